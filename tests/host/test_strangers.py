"""Other networks in our place: named before anything is touched, named when they come later, never taken over."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from tests.host.lab import PLAN, Lab, wait_until
from tests.host.test_blocks import picture, settle
from tunrouter.edge.listeners import listening
from tunrouter.edge.netlink import Link, Netlink
from tunrouter.errors import ConfigError
from tunrouter.host import Host, reset
from tunrouter.host.strangers import Strangers, maker, removal

pytestmark = pytest.mark.root

INSIDE = "10.40.0.1/16"
LISTENER = "import socket; s = [socket.create_server(('127.0.0.1', port)) for port in {}]; input()"
WEAVERS = [6783, 6784]
ELSEWHERE = "else use --range 10.48.0.0/12 on every node"
DOWN = [
    ("cni0", "bridge", " (probably the bridge of another CNI plugin)"),
    ("cbr0", "bridge", " (probably kubenet's bridge)"),
    ("flannel.1", "vxlan id 1 dstport 8472", " (probably flannel)"),
    ("docker0", "bridge", " (probably Docker's bridge)"),
    ("br-0123456789ab", "bridge", " (probably the bridge of a Docker network)"),
    ("podman3", "bridge", " (probably podman's bridge)"),
    ("datapath", "bridge", " (probably Weave Net)"),
    ("vxlan-6784", "vxlan id 2 dstport 6784", " (probably Weave Net)"),
    ("mine", "bridge", ""),
]


def add(lab: Lab, name: str, kind: str, *addresses: str) -> None:
    lab.host_ns.run("ip", "link", "add", name, "type", *kind.split())
    for address in addresses:
        lab.host_ns.run("ip", "addr", "add", address, "dev", name)


def refused(lab: Lab, host: Host) -> ConfigError:
    """What preflight says, having touched nothing."""
    before = lab.state()
    with pytest.raises(ConfigError) as caught:
        lab.inside(host.preflight)
    assert lab.state() == before
    assert str(caught.value).isprintable()
    return caught.value


def obey(lab: Lab, error: ConfigError) -> list[str]:
    """Runs the commands that it tells."""
    commands = re.findall(r"(?:ip|ovs-dpctl) (?:link|addr|del-dp) [^;]*", error.fix)
    for command in commands:
        lab.host_ns.run(*shlex.split(command))
    return commands


@pytest.mark.parametrize(("name", "kind", "who"), DOWN, ids=[name for name, _, _ in DOWN])
def test_a_device_in_our_range_is_named_though_it_is_down(lab: Lab, name: str, kind: str, who: str) -> None:
    add(lab, name, kind, INSIDE)
    error = refused(lab, lab.host())
    assert error.what == f"range 10.32.0.0/12 is in use on this host: {name} has {INSIDE}{who}"
    assert error.fix == f"if nothing uses it any more, ip link del {name}; {ELSEWHERE}"
    assert obey(lab, error) == [f"ip link del {name}"]
    lab.inside(lab.host().preflight)


@pytest.mark.parametrize("options", [(), ("noprefixroute",)])
def test_and_when_it_is_up_with_a_route_or_without(lab: Lab, options: tuple[str, ...]) -> None:
    add(lab, "cni0", "bridge")
    lab.host_ns.run("ip", "link", "set", "cni0", "up")
    lab.host_ns.run("ip", "addr", "add", INSIDE, "dev", "cni0", *options)
    assert f"cni0 has {INSIDE} (probably the bridge" in refused(lab, lab.host()).what


def test_what_may_be_the_hosts_own_is_not_to_be_removed(lab: Lab) -> None:
    lab.host_ns.run("ip", "addr", "add", "10.40.0.5/16", "dev", "eth0")
    error = refused(lab, lab.host())
    assert error.what.endswith("is in use on this host: eth0 has 10.40.0.5/16")
    assert error.fix == "use --range 10.48.0.0/12 on every node"


@pytest.mark.parametrize(
    ("name", "kind", "command"),
    [
        ("ens5", "", ""),
        ("bond0", "bond", ""),
        ("eth0.7", "vlan", ""),
        ("ve1", "veth", "ip addr del 10.40.0.1/16 dev ve1"),
        ("cali12345678901", "veth", "ip link del cali12345678901"),
        ("tunl0", "ipip", "ip addr del 10.40.0.1/16 dev tunl0"),
        ("datapath", "openvswitch", "ovs-dpctl del-dp datapath"),
        ("cni0", "bridge", "ip link del cni0"),
    ],
)
def test_the_command_fits_the_device(name: str, kind: str, command: str) -> None:
    link = Link(index=7, name=name, kind=kind, mac="", mtu=1500, queue=0, up=True, master=0, alias="")
    assert removal(link, IPv4Interface(INSIDE)) == command


def test_several_are_named_and_all_of_them_are_kept_out_of_what_is_proposed(lab: Lab) -> None:
    for number, name in enumerate(("cni0", "cbr0", "docker0", "br-0123456789ab", "mine")):
        add(lab, name, "bridge", f"10.4{number}.0.1/16")
    add(lab, "other", "bridge", "10.48.0.1/16")
    error = refused(lab, lab.host())
    for name in ("cni0 has 10.40", "cbr0 has 10.41", "docker0 has 10.42", " and 2 more"):
        assert name in error.what
    assert "ip link del cni0; ip link del cbr0; ip link del docker0; else use --range 10.0.0.0/12" in error.fix


def test_addresses_outside_the_range_are_nobodys_business(lab: Lab) -> None:
    add(lab, "cni0", "bridge", "10.244.0.1/24", "10.48.0.1/16")
    host = lab.host()
    lab.inside(host.preflight)
    lab.inside(host.apply)
    assert host.facts().strangers == ()


# --- a bridge of our name ---------------------------------------------------------------------------------------------
def weave_net(lab: Lab) -> None:
    """As Weave Net leaves it; another kind of bridge stands for what Open vSwitch makes."""
    add(lab, "weave", "bridge", "10.32.0.1/12")
    add(lab, "vethwe-bridge", "veth peer name vethwe-datapath")
    lab.host_ns.run("ip", "link", "set", "vethwe-bridge", "master", "weave")
    add(lab, "datapath", "bridge")
    add(lab, "vxlan-6784", "vxlan id 2 dstport 6784")


def test_weave_nets_bridge_is_not_adopted(lab: Lab) -> None:
    weave_net(lab)
    error = refused(lab, lab.host())
    assert error.what == (
        "bridge weave is another network's (probably Weave Net): it has a port that is not ours, vethwe-bridge"
    )
    assert error.fix.endswith("; else choose another --bridge")
    assert obey(lab, error) == ["ip link del weave", "ip link del vethwe-bridge", "ip link del datapath"]
    host = lab.host()
    lab.inside(host.preflight)
    lab.inside(host.apply)


def test_nor_is_one_with_a_pod_of_weave_nets_or_of_anybodys(lab: Lab) -> None:
    add(lab, "weave", "bridge")
    for name, who in (("vethwepl0a1b2c3", " (probably Weave Net)"), ("tap7", "")):
        add(lab, name, "veth")
        lab.host_ns.run("ip", "link", "set", name, "master", "weave")
        error = refused(lab, lab.host())
        assert error.what == f"bridge weave is another network's{who}: it has a port that is not ours, {name}"
        assert "ip link del weave; else choose another --bridge" in error.fix
        lab.inside(lab.host(bridge="weave2").preflight)
        lab.host_ns.run("ip", "link", "del", name)
    lab.inside(lab.host().preflight)


def test_one_that_we_made_or_whose_ports_we_made_is_ours(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    lab.inside(lab.host().preflight)
    lab.host_ns.run("ip", "link", "set", "weave", "alias", "")
    lab.inside(lab.host().preflight)
    add(lab, "tap7", "veth")
    lab.host_ns.run("ip", "link", "set", "tap7", "master", "weave")
    assert "it has a port that is not ours, tap7" in refused(lab, lab.host()).what


def test_a_stranger_on_our_own_bridge_is_named_and_does_not_stop_us(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    settle(lab, host)
    assert host.facts().strangers == ()
    for name, words in (
        ("vethwe-bridge", " (probably Weave Net): if nothing uses it, ip link del vethwe-bridge"),
        ("tap7", ": if nothing uses it, ip link set tap7 nomaster"),
    ):
        add(lab, name, "veth")
        lab.host_ns.run("ip", "link", "set", name, "master", "weave")
        lab.inside(host.repair)
        assert host.facts().strangers == (f"{name} is a port of weave, but not ours{words}",)
        lab.inside(lab.host().preflight)
        lab.host_ns.run(*words.rpartition("uses it, ")[2].split())
        lab.inside(host.repair)
        assert host.facts().strangers == ()


# --- what we left ourselves -------------------------------------------------------------------------------------------
def no_routes(lab: Lab) -> None:
    lab.host_ns.run("ip", "route", "flush", "table", "main", "proto", "83")


def no_tables(lab: Lab) -> None:
    lab.host_ns.run("nft", "flush", "ruleset")


@pytest.mark.parametrize("less", [lambda lab: None, no_routes, no_tables])
def test_a_set_up_of_ours_for_another_range_is_named(lab: Lab, less: Callable[[Lab], None]) -> None:
    old = lab.host()
    lab.inside(old.apply)
    lab.pod(old, "10.32.1.2")
    less(lab)
    new = lab.host(IPv4Network("172.16.1.0/24"), range=IPv4Network("172.16.0.0/12"))
    error = refused(lab, new)
    assert error.what == "this host is set up for the range 10.32.0.0/12, not 172.16.0.0/12"
    assert error.fix == "take that away first: tunrouter reset; or keep --range 10.32.0.0/12"
    lab.inside(lab.host().preflight)
    lab.inside(reset)
    lab.inside(new.preflight)


def test_a_bridge_of_ours_under_another_name_is_named(lab: Lab) -> None:
    old = lab.host(bridge="weave0")
    lab.inside(old.apply)
    error = refused(lab, lab.host())
    assert "weave0 has 10.32.1.1/32 (probably an earlier tunrouter)" in error.what
    assert "ip link del weave0" in error.fix


# --- who comes later --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("address", "state"), [(INSIDE, "down"), (INSIDE, "up"), ("10.32.0.1/12", "up")])
def test_who_comes_later_is_named_until_he_goes(lab: Lab, address: str, state: str) -> None:
    host = lab.host()
    lab.inside(lambda: host.expose((PLAN.range[(1 << 8) + 77],)))
    lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    settle(lab, host)
    before = picture(lab)
    assert host.facts().strangers == ()
    add(lab, "cni0", "bridge", address)
    lab.host_ns.run("ip", "link", "set", "cni0", state)
    wait_until(lambda: lab.inside(host.repair) == [] and bool(host.facts().strangers))
    (line,) = host.facts().strangers
    named = f"cni0 has {address} (probably the bridge of another CNI plugin), in our range 10.32.0.0/12"
    assert line == f"{named}: if nothing uses it, ip link del cni0"
    again = lab.host()
    lab.inside(again.apply)
    assert again.facts().strangers == host.facts().strangers, "and by the next agent"
    lab.host_ns.run("ip", "link", "del", "cni0")
    lab.inside(host.repair)
    assert host.facts().strangers == ()
    assert picture(lab) == before


def test_one_with_our_gateways_very_address_is_a_stranger_too(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    add(lab, "mine", "bridge", "10.32.1.1/32")
    lab.inside(host.repair)
    (line,) = host.facts().strangers
    assert line.startswith("mine has 10.32.1.1/32, in our range")


def test_an_idle_look_asks_nothing_and_a_known_stranger_is_not_looked_for_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = lab.host()
    lab.inside(host.apply)
    add(lab, "cni0", "bridge", INSIDE)
    settle(lab, host)
    looks: list[object] = []
    addresses, whose = Netlink.addresses, Strangers._whose

    def noted(self: Netlink, name: str = "") -> object:
        looks.append(name)
        return addresses(self, name)

    def searched(*arguments: object) -> object:
        looks.append("all devices")
        return whose(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Netlink, "addresses", noted)
    monkeypatch.setattr(Strangers, "_whose", searched)
    for _ in range(5):
        lab.inside(host.repair)
    assert looks == []
    lab.host_ns.run("ip", "link", "set", "lo", "mtu", "60000")
    lab.inside(host.repair)
    assert looks.count("") == 1, "one list, beside the looks at bridge and TUN"
    assert "all devices" not in looks
    assert len(host.facts().strangers) == 1


def test_makers_are_told_by_name_and_alias() -> None:
    def link(name: str, kind: str = "bridge", alias: str = "") -> Link:
        return Link(index=7, name=name, kind=kind, mac="", mtu=1500, queue=0, up=True, master=0, alias=alias)

    assert maker(link("weave", alias="tunrouter-before net/ipv4/ip_forward=0")) == "an earlier tunrouter"
    assert maker(link("tunrouter1", "tun")) == "an earlier tunrouter"
    assert maker(link("weave")) == "Weave Net"
    assert maker(link("vxlan.calico")) == "Calico"
    assert maker(link("eth0", "")) == ""


def _listen(lab: Lab, ports: list[int]) -> bool:
    return lab.inside(listening) >= set(ports)


def test_what_we_serve_at_these_ports_is_no_weave_net(lab: Lab) -> None:
    """Metrics and health may be served anywhere."""
    sockets = [lab.inside(partial(socket.create_server, ("127.0.0.1", port))) for port in WEAVERS]
    lab.inside(lab.host().preflight)
    for one in sockets:
        one.close()


def test_nor_is_what_an_agent_serves_that_the_doctor_looks_at(lab: Lab, tmp_path: Path) -> None:
    package = tmp_path / "tunrouter" / "agent"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(LISTENER.format(WEAVERS))
    command = ["ip", "netns", "exec", lab.host_ns.name, sys.executable, "-m", "tunrouter.agent", "--config-fd", "3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) as agent:
        try:
            wait_until(partial(_listen, lab, WEAVERS))
            lab.inside(lab.host().preflight)
        finally:
            agent.kill()


def test_a_live_router_of_weave_net_is_not_joined(lab: Lab) -> None:
    """Whatever address it listens on; what listens on one of its ports alone is somebody else."""
    for ports in ([6783], [6784], WEAVERS):
        command = ["ip", "netns", "exec", lab.host_ns.name, sys.executable, "-c", LISTENER.format(ports)]
        listener = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            wait_until(partial(_listen, lab, ports))
            if len(ports) == 1:
                lab.inside(lab.host().preflight)
            else:
                assert "Weave Net runs on this host" in str(refused(lab, lab.host()))
        finally:
            listener.kill()
            listener.communicate()
