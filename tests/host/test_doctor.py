"""Each planted fault is named by its own check and no other; a healthy host has none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from tests.host.lab import PLAN, Lab, Tun, attach
from tests.host.test_strangers import add
from tunrouter.doctor import CHECKS, Finding, Known, diagnose
from tunrouter.host import Host

pytestmark = pytest.mark.root

KNOWN = Known(range=PLAN.range, peers=("192.0.2.2",))


@pytest.fixture
def healthy(lab: Lab) -> Iterator[Lab]:
    tun = Tun(lab)
    host: Host = lab.host(manage_firewall=False)
    lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    yield lab
    tun.close()


def failures(lab: Lab, known: Known = KNOWN, now: float | None = None) -> list[Finding]:
    return [f for f in lab.inside(lambda: diagnose(known, now)) if f.level == "fail"]


def test_a_healthy_host_has_no_failure_and_every_check_speaks(healthy: Lab) -> None:
    found = healthy.inside(lambda: diagnose(KNOWN))
    assert [f for f in found if f.level == "fail"] == []
    assert [f for f in found if f.level == "warn" and f.check != "clock"] == []
    assert {f.check for f in found} == set(CHECKS)


def sysctl(name: str, value: int) -> Callable[[Lab], object]:
    return lambda lab: lab.sysctl(name, value)


def command(*arguments: str) -> Callable[[Lab], object]:
    return lambda lab: lab.host_ns.run(*arguments)


NATIVE = "table inet f { chain c { type filter hook forward priority 0; policy drop; }; }"
FAULTS: list[tuple[str, str, Callable[[Lab], object]]] = [
    ("firewall", "iptables-nft filter FORWARD", command("iptables-nft", "-P", "FORWARD", "DROP")),
    ("firewall", "iptables-legacy filter FORWARD", command("iptables-legacy", "-A", "FORWARD", "-j", "REJECT")),
    ("firewall", "nft inet f c", command("nft", NATIVE)),
    ("firewall", "UDP 6783", command("iptables-nft", "-A", "INPUT", "-p", "udp", "-j", "DROP")),
    ("firewall", "missing", command("nft", "delete", "table", "bridge", "tunrouter")),
    ("rp_filter", "weave", sysctl("net.ipv4.conf.weave.rp_filter", 1)),
    ("rp_filter", "tunrouter0", sysctl("net.ipv4.conf.tunrouter0.rp_filter", 1)),
    ("nf-call", "is 1", lambda lab: lab.nf_call(1)),
    ("mtu", "weave has 1440", command("ip", "link", "set", "weave", "mtu", "1440")),
    ("mtu", "underlay's 1300", command("ip", "link", "set", "eth0", "mtu", "1300")),
    ("mtu", "10.32.9.0/24", command("ip", "route", "add", "10.32.9.0/24", "dev", "tunrouter0", "mtu", "1450")),
    ("range", "10.40.0.0/16 dev eth0", command("ip", "route", "add", "10.40.0.0/16", "via", "192.0.2.2")),
    ("range", "cni0 has 10.40.0.1/16", lambda lab: add(lab, "cni0", "bridge", "10.40.0.1/16")),
    ("range", "no route", command("ip", "route", "del", "10.32.0.0/12", "dev", "tunrouter0")),
    ("tun-offloads", "tso", command("ethtool", "-K", "tunrouter0", "tso", "off")),
    ("tun-offloads", "tx-checksum", command("ethtool", "-K", "tunrouter0", "tx", "off")),
    ("forwarding", "ip_forward", sysctl("net.ipv4.ip_forward", 0)),
    ("devices", "tunrouter0 down", command("ip", "link", "set", "tunrouter0", "down")),
]


@pytest.mark.parametrize(("check", "text", "plant"), FAULTS, ids=[f"{check}: {text}" for check, text, _ in FAULTS])
def test_a_planted_fault_is_named(healthy: Lab, check: str, text: str, plant: Callable[[Lab], object]) -> None:
    plant(healthy)
    found = failures(healthy)
    # A device that is down has lost its routes, too.
    assert {f.check for f in found} - ({"range"} if check == "devices" else set()) == {check}
    assert any(text in f.text for f in found)
    assert all(f.fix for f in found)


@pytest.mark.parametrize("now", [0.0, 86_400.0, time.time() + 3e9])
def test_a_clock_that_is_far_off_is_named(healthy: Lab, now: float) -> None:
    assert [f.check for f in failures(healthy, now=now)] == ["clock"]


def test_a_port_in_use_is_named(healthy: Lab) -> None:
    holder = healthy.host_ns.start(
        "python3",
        "-c",
        "import socket; s = socket.socket(2, 2); s.bind(('', 6783)); print('held', flush=True); input()",
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    try:
        assert [f.check for f in failures(healthy)] == ["port"]
        assert failures(healthy, Known(range=PLAN.range, running=True)) == []
    finally:
        holder.communicate("\n")
    assert [f.check for f in failures(healthy, Known(range=PLAN.range, running=True))] == ["port"]


def test_a_peer_inside_the_range_is_named(healthy: Lab) -> None:
    assert "range" in {f.check for f in failures(healthy, Known(range=PLAN.range, peers=("10.40.0.9",)))}


def test_it_works_where_nothing_is_set_up(lab: Lab) -> None:
    lab.host_ns.run("ip", "link", "del", PLAN.tun)
    found = lab.inside(lambda: diagnose(KNOWN))
    assert [f for f in found if f.level == "fail"] == []
    assert {"devices", "tun-offloads"} <= {f.check for f in found if f.level == "warn"}


def test_pods_come_with_their_own_mtu(healthy: Lab) -> None:
    host = healthy.host(mtu=1376, manage_firewall=False)
    pod = healthy.namespaces[-1]
    healthy.inside(host.apply)
    healthy.inside(lambda: attach(host, pod.path, "big", IPv4Address("10.32.1.9"), "eth1", 1460))
    assert [f.check for f in failures(healthy)] == ["mtu"]
