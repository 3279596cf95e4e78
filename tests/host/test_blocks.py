"""Blocks that come and go under pods: gateways, routes, the source in the tunnel, and addresses that are fenced."""

from __future__ import annotations

import json
import re
import socket
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.host.lab import LISTEN, PLAN, SEND, Lab, Namespace, Tun, attach, detach, udp, wait_until
from tunrouter.edge.netlink import Link
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import Attached, Host
from tunrouter.host.pods import from_link

pytestmark = pytest.mark.root

ONE, TWO, THREE = (IPv4Network(f"10.32.{number}.0/24") for number in (1, 2, 3))
ELSEWHERE = "10.33.5.5"


@pytest.fixture
def host(lab: Lab) -> Host:
    """With the blocks ONE and TWO."""
    found = lab.host(ONE, TWO)
    lab.inside(found.apply)
    return found


def own(lab: Lab, host: Host, *blocks: IPv4Network) -> list[str]:
    return lab.inside(lambda: host.own(blocks))


def addresses(lab: Lab, device: str) -> set[str]:
    links = json.loads(lab.host_ns.run("ip", "-j", "-4", "addr", "show", "dev", device))
    return {f"{found['local']}/{found['prefixlen']}" for link in links for found in link["addr_info"]}


def gateway_of(pod: Namespace) -> str:
    (route,) = json.loads(pod.run("ip", "-j", "route", "show", "default"))
    return str(route["gateway"])


def leaves(lab: Lab, tun: Tun, sender: Namespace, source: str = "") -> bytes | None:
    """The source address with which a datagram to another host's pod enters the tunnel, if it does."""
    for _ in tun.packets(0.05):
        pass
    sender.run("python3", "-c", SEND, ELSEWHERE, "9", source, check=False)
    packet = tun.first(socket.IPPROTO_UDP, 0.5)
    return packet and packet[12:16]


def arrives(pod: Namespace, tun: Tun, address: str, source: str = ELSEWHERE) -> bool:
    listener = pod.start("python3", "-c", LISTEN, "9000")
    assert listener.stdout
    assert listener.stdout.readline() == "ready\n"
    tun.write(udp(source, address, 9000))
    return "got" in listener.communicate()[0]


def settle(lab: Lab, host: Host) -> None:
    wait_until(lambda: not lab.inside(host.repair))


@pytest.mark.parametrize("nf_call", [0, 1])
def test_pods_of_all_blocks_reach_each_other_the_outside_and_other_hosts(lab: Lab, nf_call: int) -> None:
    lab.nf_call(nf_call)
    host = lab.host(ONE, TWO)
    lab.inside(host.apply)
    tun, a, b = Tun(lab), lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.2.2")
    assert gateway_of(a) == gateway_of(b) == "10.32.1.1"
    for one, other in ((a, "10.32.2.2"), (b, "10.32.1.2")):
        assert one.pings(other)
        assert one.pings("10.32.1.1")
        assert one.pings("192.0.2.2"), "masqueraded"
    assert lab.host_ns.pings("10.32.2.2")
    for pod, address in ((a, "10.32.1.2"), (b, "10.32.2.2")):
        assert leaves(lab, tun, pod) == IPv4Address(address).packed
        assert arrives(pod, tun, address)
    tun.close()


def test_a_block_may_be_the_whole_range(lab: Lab) -> None:
    host = lab.host(ONE, range=ONE)
    lab.inside(host.apply)
    a, _ = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.1.3")
    settle(lab, host)
    assert a.pings("10.32.1.3")


def test_a_block_may_come_while_pods_run(lab: Lab) -> None:
    host = lab.host(ONE)
    lab.inside(host.apply)
    a = lab.pod(host, "10.32.1.2")
    with pytest.raises(ConfigError, match=r"10\.32\.2\.2 cannot be a pod's.*choose one from 10\.32\.1\.0/24 "):
        lab.pod(host, "10.32.2.2")
    assert own(lab, host, ONE, TWO) == ["route 10.32.2.0/24 dev weave"]
    assert own(lab, host, ONE, TWO) == []
    for reserved in ("10.32.2.0", "10.32.2.1", "10.32.2.255"):
        with pytest.raises(ConfigError, match="cannot be a pod's"):
            lab.pod(host, reserved)
    lab.pod(host, "10.32.2.2")
    assert a.pings("10.32.2.2")


def test_the_gateway_stays_while_a_pod_uses_it_though_its_block_goes(lab: Lab, host: Host) -> None:
    tun, a, b = Tun(lab), lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.2.2")
    lab.inside(lambda: detach(host, a.path, a.name, "eth0"))
    done = own(lab, host, TWO, THREE)
    assert "removed route 10.32.1.0/24 dev weave" in done
    assert (addresses(lab, "weave"), addresses(lab, PLAN.tun)) == ({"10.32.1.1/32", "10.32.2.1/32"}, {"10.32.2.1/32"})
    c = lab.pod(host, "10.32.3.3")
    assert (gateway_of(b), gateway_of(c)) == ("10.32.1.1", "10.32.2.1")
    assert b.pings("10.32.1.1")
    assert b.pings("10.32.3.3")
    assert c.pings("10.32.2.2")
    assert b.pings("192.0.2.2")
    assert arrives(b, tun, "10.32.2.2")
    assert leaves(lab, tun, lab.host_ns) == leaves(lab, tun, lab.host_ns, "192.0.2.1") == TWO[1].packed
    settle(lab, host)
    before = picture(lab)
    again = lab.host(TWO, THREE)
    lab.inside(again.apply)
    assert picture(lab) == before, "the next agent knows it from the kernel"
    lab.inside(lambda: attach(again, b.path, b.name, TWO[2], "eth0", PLAN.mtu))
    assert picture(lab) == before, "what is attached again stays as it is"
    b.remove()
    wait_until(lambda: len(lab.inside(again.attached)) == 1)
    assert "weave lost 10.32.1.1/32" in lab.inside(again.repair)
    assert addresses(lab, "weave") == {"10.32.2.1/32"}
    assert c.pings("10.32.2.1")
    tun.close()


def test_a_block_that_changes_its_place_keeps_its_pods(lab: Lab, host: Host) -> None:
    a, b = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.2.2")
    for blocks in ((TWO, ONE), (THREE, TWO, ONE), (ONE, TWO)):
        own(lab, host, *blocks)
        assert addresses(lab, PLAN.tun) == {f"{blocks[0][1]}/32"}
        assert a.pings("10.32.2.2")
        assert b.pings("192.0.2.2")
        assert lab.host_ns.pings("10.32.2.2")
    settle(lab, host)
    assert addresses(lab, "weave") == {"10.32.1.1/32"}


def test_no_packet_is_lost_and_no_route_missing_while_the_gateway_changes(lab: Lab, host: Host) -> None:
    tun, a, _ = Tun(lab), lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.2.2")
    monitor = lab.host_ns.start("ip", "-o", "monitor", "route")
    pings = [a.start("ping", "-q", "-i0.002", "-c500", to) for to in ("10.32.2.2", "192.0.2.2", "10.32.1.1")]
    changes = 0
    while any(ping.poll() is None for ping in pings):
        own(lab, host, *((ONE, TWO), (TWO, ONE))[changes % 2])
        changes += 1
    monitor.terminate()
    assert changes > 2
    assert [" 0% packet loss" in ping.communicate()[0] for ping in pings] == [True] * 3
    news = monitor.communicate()[0]
    assert f"{PLAN.range} dev {PLAN.tun}" in news, "the source of the route did change"
    assert not re.findall(rf"Deleted (?:{PLAN.range}|10\.32\.[12]\.0/24).*", news)
    tun.close()


def test_a_host_without_a_block_sends_nothing_into_the_tunnel_and_works_when_it_gets_one(lab: Lab) -> None:
    host = lab.host()
    lab.inside(lambda: host.own(()))
    lab.inside(host.apply)
    tun = Tun(lab)
    assert (addresses(lab, "weave"), addresses(lab, PLAN.tun)) == (set(), set())
    assert host.gateway is None
    assert f"{PLAN.range} dev {PLAN.tun}" in lab.host_ns.run("ip", "route")
    with pytest.raises(HostError, match="this node has no block of addresses"):
        lab.pod(host, "10.32.1.2")
    lab.outside.run("ip", "route", "add", str(PLAN.range), "via", "192.0.2.1")
    for sender, source in ((lab.host_ns, ""), (lab.host_ns, "192.0.2.1"), (lab.outside, "")):
        assert leaves(lab, tun, sender, source) is None
        assert re.search(
            "Unreachable|unreachable|No route", sender.run("sh", "-c", f"ping -c1 -W2 {ELSEWHERE} 2>&1; :")
        )
    settle(lab, host)
    own(lab, host, ONE)
    assert host.gateway == ONE[1]
    pod = lab.pod(host, "10.32.1.2")
    assert leaves(lab, tun, lab.host_ns) == leaves(lab, tun, lab.outside) == ONE[1].packed
    assert leaves(lab, tun, pod) == ONE[2].packed
    assert pod.pings("192.0.2.1")
    own(lab, host)
    assert leaves(lab, tun, lab.host_ns) is None
    assert addresses(lab, "weave") == {"10.32.1.1/32"}, "a pod has it"
    assert pod.pings("192.0.2.1") is False, "its block is not here any more"
    tun.close()


@pytest.mark.parametrize("nf_call", [0, 1])
def test_a_fenced_pod_reaches_nobody_and_its_address_may_be_anothers(lab: Lab, nf_call: int) -> None:
    lab.nf_call(nf_call)
    host = lab.host(ONE, TWO)
    lab.inside(host.apply)
    tun, bad, good = Tun(lab), lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.2.2")
    lab.inside(lambda: host.fence((ONE[2], ONE[77])))
    assert host.facts().fenced == (f"{bad.name} (10.32.1.2)",)
    for target in ("10.32.1.1", "10.32.2.2", "192.0.2.2", "192.0.2.1"):
        assert not bad.pings(target)
        assert target == "10.32.2.2" or good.pings(target)
    assert not lab.host_ns.pings("10.32.1.2")
    assert leaves(lab, tun, bad) is None
    assert not arrives(bad, tun, "10.32.1.2"), "still routed here"
    settle(lab, host)
    lab.host_ns.run("nft", "flush", "ruleset")
    lab.inside(host.repair)
    assert not bad.pings("10.32.2.2")
    own(lab, host, TWO)
    for _ in tun.packets(0.1):
        pass
    good.run("python3", "-c", SEND, "10.32.1.2", "9", "")
    packet = tun.first(socket.IPPROTO_UDP)
    assert packet, "who has the address now is elsewhere"
    assert packet[12:20] == TWO[2].packed + ONE[2].packed
    lab.inside(lambda: host.fence(()))
    own(lab, host, ONE, TWO)
    assert bad.pings("10.32.2.2")
    assert host.facts().fenced == ()
    tun.close()


SABOTAGE: list[tuple[str, ...]] = [
    ("ip", "-4", "addr", "flush", "dev", "weave"),
    ("ip", "-4", "addr", "flush", "dev", "tunrouter0"),
    ("ip", "addr", "add", "10.32.1.1/24", "dev", "weave"),
    ("ip", "route", "del", "10.32.2.0/24"),
    ("ip", "route", "replace", "10.32.2.0/24", "dev", "tunrouter0"),
    ("ip", "link", "del", "weave"),
    ("nft", "flush", "ruleset"),
]


@pytest.mark.parametrize("command", SABOTAGE, ids=" ".join)
def test_what_somebody_breaks_is_repaired(lab: Lab, host: Host, command: tuple[str, ...]) -> None:
    a, b = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.2.2")
    own(lab, host, TWO, THREE)
    lab.inside(lambda: host.fence((ONE[2],)))
    lab.inside(lambda: host.set_path_mtus({IPv4Network("10.32.9.0/24"): 1200}))
    settle(lab, host)
    before = picture(lab)
    lab.host_ns.run(*command)
    assert lab.inside(host.repair), "something was repaired, and said"
    settle(lab, host)
    assert picture(lab) == before
    assert b.pings("10.32.1.1")
    assert not a.pings("10.32.2.2")


def picture(lab: Lab) -> list[str]:
    """Without indices, and without IPv6, whose addresses come in their own time."""
    lines = (line.split(": ", 1)[-1].replace("linkdown", "") for line in lab.state().splitlines())
    return sorted(" ".join(line.split()) for line in lines if not re.search("fe80|ff00|inet6", line))


def test_what_fails_half_way_is_finished_by_the_repair(lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[str]:
        raise HostError("routes", "again")

    settle(lab, host)
    with monkeypatch.context() as broken:
        broken.setattr("tunrouter.host.ways.Ways.ensure", fails)
        with pytest.raises(HostError):
            own(lab, host, THREE)
        assert host.gateway is None, "pods cannot have it yet"
    assert "route 10.32.3.0/24 dev weave" in lab.inside(host.repair)
    assert host.gateway == THREE[1]
    assert addresses(lab, "weave") == {"10.32.3.1/32"}


def test_a_block_that_becomes_ours_loses_its_path_mtu(lab: Lab, host: Host) -> None:
    lab.inside(lambda: host.set_path_mtus({THREE: 1200}))
    assert "mtu 1200" in lab.host_ns.run("ip", "route", "show", str(THREE))
    own(lab, host, ONE, THREE)
    assert "dev weave" in lab.host_ns.run("ip", "route", "show", str(THREE))
    assert "mtu" not in lab.host_ns.run("ip", "route", "show", str(THREE))
    (refused,) = lab.inside(lambda: host.set_path_mtus({THREE: 1200, TWO: 1200}))
    assert "overlaps this node's own block 10.32.3.0/24" in refused.what
    assert lab.inside(lambda: host.set_path_mtus({THREE: None})) == []
    assert "dev weave" in lab.host_ns.run("ip", "route", "show", str(THREE))
    assert "mtu 1200" in lab.host_ns.run("ip", "route", "show", str(TWO)), "it is another's now"


def test_pods_of_a_version_that_wrote_down_no_gateway_keep_theirs(lab: Lab) -> None:
    """As that version left the host: the gateway with its block's length, another MAC that no rule asks for, no gateway
    in the alias."""
    host = lab.host(ONE)
    lab.inside(host.apply)
    pod = lab.pod(host, "10.32.1.2")
    (port,) = (found.port for found in lab.inside(host.attached))
    run = lab.host_ns.run
    run("ip", "link", "set", port, "alias", f"tunrouter 10.32.1.2 {PLAN.mtu} eth0 {pod.name}")
    run("ip", "addr", "add", "10.32.1.1/24", "dev", "weave")
    run("ip", "addr", "del", "10.32.1.1/32", "dev", "weave")
    run("nft", "flush", "table", "bridge", "tunrouter")
    run("ip", "link", "set", "weave", "address", "02:aa:bb:cc:dd:ee")
    pod.run("ip", "neigh", "flush", "all")
    assert pod.pings("10.32.1.1")
    ping = pod.start("ping", "-q", "-i0.01", "-c100", "10.32.1.1")
    again = lab.host(TWO, ONE)
    lab.inside(again.apply)
    assert " 0% packet loss" in ping.communicate()[0], "the pod heard of the new MAC at once"
    assert addresses(lab, "weave") == {"10.32.1.1/32", "10.32.2.1/32"}
    assert [str(found.gateway) for found in lab.inside(again.attached)] == ["10.32.1.1"]
    before = picture(lab)
    lab.inside(lambda: attach(again, pod.path, pod.name, ONE[2], "eth0", PLAN.mtu))
    assert picture(lab) == before


@pytest.mark.parametrize(
    ("alias", "gateway"),
    [
        ("tunrouter 10.32.1.2 1376 eth0 a name", ""),
        ("tunrouter 10.32.1.2 via 10.32.9.1 1376 eth0 a name", "10.32.9.1"),
        ("tunrouter 10.32.1.2 via nowhere 1376 eth0 a name", None),
        ("tunrouter 10.32.1.2 via 10.32.9.1", None),
        ("tunrouter 10.32.1.2 eth0 1376 a name", None),
        ("another 10.32.1.2 1376 eth0 a name", None),
        ("", None),
    ],
)
def test_aliases_of_all_versions_are_read(alias: str, gateway: str | None) -> None:
    link = Link(index=7, name="vethwex", kind="veth", mac="", mtu=1376, queue=0, up=True, master=1, alias=alias)
    pod = from_link(link)
    if gateway is None:
        assert pod is None
    else:
        way = IPv4Address(gateway) if gateway else None
        expected = Attached(port="vethwex", name="a name", address=ONE[2], interface="eth0", mtu=1376, gateway=way)
        assert pod == expected
        assert pod.alias == alias


def test_pods_that_vanish_are_told_once_and_those_that_move_are_not(lab: Lab, host: Host) -> None:
    a, b, c = (lab.pod(host, f"10.32.1.{number}") for number in (2, 3, 4))
    lab.inside(lambda: detach(host, a.path, a.name, "eth0"))
    b.remove()
    wait_until(lambda: len(lab.inside(host.attached)) == 1)
    lab.inside(host.repair)
    assert [pod.address for pod in host.vanished()] == [ONE[3]]
    lab.inside(lambda: attach(host, a.path, c.name, ONE[4], "eth0", PLAN.mtu))
    assert [(pod.name, pod.address) for pod in lab.inside(host.attached)] == [(c.name, ONE[4])]
    assert "eth0" not in c.run("ip", "-o", "link"), "its container is in another namespace now"
    assert a.pings("10.32.1.1")
    lab.inside(host.repair)
    assert host.vanished() == []
    assert host.holds(c.name, "eth0")
    assert not host.holds(b.name, "eth0")
