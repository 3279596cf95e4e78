"""Each planted fault of devices, switches and the place is named by its own check, and mended by what that says."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address

import msgspec
import pytest

from tests.doctor.patients import Patient, commands
from tests.host.lab import Lab, attach, detach, wait_until
from tests.host.test_strangers import add, weave_net
from tunrouter.doctor import CHECKS, diagnose
from tunrouter.edge.netlink import nft

pytestmark = pytest.mark.root

Act = Callable[[Patient], object]
MOST_SECONDS = 1.0


def sysctl(name: str, value: int) -> Act:
    return lambda patient: patient.lab.sysctl(name, value)


def command(*arguments: str) -> Act:
    return lambda patient: patient.run(*arguments)


def obey(patient: Patient) -> None:
    assert patient.obey(patient.last), "there is something to do"


def restart(patient: Patient) -> None:
    assert any("restart the agent" in f.fix for f in patient.last)
    patient.restart()


def test_a_healthy_host_has_no_ailment_and_every_check_speaks_in_order(healthy: Patient) -> None:
    began = time.monotonic()
    found = healthy.findings()
    assert time.monotonic() - began < MOST_SECONDS
    assert list(dict.fromkeys(f.check for f in found)) == list(CHECKS)


def test_it_only_looks(healthy: Patient) -> None:
    # The kernel takes its time with addresses of IPv6 that it gives by itself.
    wait_until(lambda: "tentative" not in healthy.run("ip", "address"), 10)
    state, generation = healthy.lab.state(), healthy.lab.inside(nft.generation)
    healthy.findings()
    assert healthy.lab.inside(nft.generation) == generation
    assert healthy.lab.state() == state


FAULTS: list[tuple[str, str, Act, Act]] = [
    ("rp_filter", "weave", sysctl("net.ipv4.conf.weave.rp_filter", 1), obey),
    ("rp_filter", "tunrouter0", sysctl("net.ipv4.conf.tunrouter0.rp_filter", 1), obey),
    ("forwarding", "ip_forward", sysctl("net.ipv4.ip_forward", 0), obey),
    ("forwarding", "weave.forwarding", sysctl("net.ipv4.conf.weave.forwarding", 0), obey),
    ("mtu", "weave has 1440", command("ip", "link", "set", "weave", "mtu", "1440"), restart),
    ("mtu", "10.32.9.0/24", command("ip", "route", "add", "10.32.9.0/24", "dev", "tunrouter0", "mtu", "1450"),
     command("ip", "route", "del", "10.32.9.0/24")),
    ("mtu", "underlay's 1300", command("ip", "link", "set", "eth0", "mtu", "1300"),
     command("ip", "link", "set", "eth0", "mtu", "1500")),
    ("range", "10.40.0.0/16 dev eth0", command("ip", "route", "add", "10.40.0.0/16", "via", "192.0.2.2"),
     command("ip", "route", "del", "10.40.0.0/16")),
    ("range", "eth0 has 10.47.0.1/32", command("ip", "addr", "add", "10.47.0.1/32", "dev", "eth0"),
     command("ip", "addr", "del", "10.47.0.1/32", "dev", "eth0")),
    ("range", "cni0 has 10.40.0.1/16", lambda patient: add(patient.lab, "cni0", "bridge", "10.40.0.1/16"), obey),
    ("range", "no route", command("ip", "route", "del", "10.32.0.0/12", "dev", "tunrouter0"), restart),
    ("tun-offloads", "tso", command("ethtool", "-K", "tunrouter0", "tso", "off"), obey),
    ("tun-offloads", "tx-checksum", command("ethtool", "-K", "tunrouter0", "tx", "off"), obey),
    ("devices", "tap7 is a port of weave, but not ours",
     command("ip", "link", "add", "tap7", "master", "weave", "type", "veth"), obey),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "text", "plant", "mend"), FAULTS, ids=[f"{check}: {text}" for check, text, *_ in FAULTS]
)
def test_a_planted_fault_is_named_and_mended(healthy: Patient, check: str, text: str, plant: Act, mend: Act) -> None:
    plant(healthy)
    healthy.finds(check, text)
    mend(healthy)
    assert healthy.ailments() == []


def test_devices_that_are_down_are_named_with_the_route_that_went_along(healthy: Patient) -> None:
    healthy.run("ip", "link", "set", "tunrouter0", "down")
    found = healthy.ailments()
    assert {f.check for f in found} == {"devices", "range"}
    healthy.obey(found)
    healthy.finds("range", "no route")
    healthy.restart()


def test_ports_in_the_other_mode_are_named_and_mended_both_ways(healthy: Patient) -> None:
    for value in (1, 0):
        healthy.lab.nf_call(value)
        healthy.obey(healthy.finds("nf-call", f"bridge-nf-call-iptables is {value}", "1 port(s)"))
        assert healthy.ailments() == []


def test_pods_come_with_their_own_mtu(healthy: Patient) -> None:
    host, pod = healthy.host, healthy.pod
    healthy.lab.inside(lambda: attach(host, pod.path, "big", IPv4Address("10.32.1.9"), "eth1", 1460))
    healthy.finds("mtu", "has 1460")
    healthy.lab.inside(lambda: detach(host, pod.path, "big", "eth1"))


def test_a_peer_inside_the_range_is_named(healthy: Patient) -> None:
    healthy.tell(peers=("10.40.0.9",))
    healthy.finds("range", "peer 10.40.0.9 lies in the range")


# --- a host that nothing is set up on, and one of Weave Net's ---------------------------------------------------------
def test_it_works_where_nothing_is_set_up(lab: Lab, healthy: Patient) -> None:
    lab.host_ns.run("ip", "link", "del", "tunrouter0")
    found = lab.inside(lambda: diagnose(healthy.known))
    assert [f for f in found if f.level == "fail"] == []
    assert {f.check for f in found if f.level == "warn"} - {"clock"} == {"devices", "tun-offloads"}
    running = msgspec.structs.replace(healthy.known, running=True)
    failed = {f.check: f for f in lab.inside(lambda: diagnose(running)) if f.level == "fail"}
    assert list(failed) == ["port", "devices"]
    assert "weave and tunrouter0 missing" in failed["devices"].text


def test_weave_nets_bridge_is_named_with_all_that_hangs_on_it(lab: Lab, healthy: Patient) -> None:
    weave_net(lab)
    lab.host_ns.run("ip", "link", "del", "tunrouter0")
    found = {f.check: f for f in lab.inside(lambda: diagnose(healthy.known)) if f.level != "ok"}
    assert "bridge weave is another network's (probably Weave Net)" in found["range"].text
    assert found["leftovers"].text == "devices of Weave Net: datapath, vethwe-bridge, vethwe-datapath and 2 more"
    for done in commands(found["leftovers"].fix):
        lab.host_ns.run(*done.split())
    left = {f.check for f in lab.inside(lambda: diagnose(healthy.known)) if f.level != "ok"}
    assert left - {"clock"} == {"devices", "tun-offloads"}
