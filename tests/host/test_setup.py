"""Setting a host up, keeping it so, and leaving nothing behind."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Network

import msgspec
import pytest

from tests.host.lab import LISTEN, PLAN, SEND, Lab, Tun, udp, wait_until
from tunrouter.errors import ConfigError
from tunrouter.host import Host, HostPlan, underlay_mtu
from tunrouter.host.choice import Chosen

pytestmark = pytest.mark.root


def test_applying_twice_changes_nothing(lab: Lab) -> None:
    host = lab.host()
    assert lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    before = lab.state()
    assert lab.inside(host.apply) == []
    assert lab.state() == before
    again = lab.host()
    done = lab.inside(again.apply)
    assert done == ["table inet tunrouter", "table bridge tunrouter"], "a restarted agent replaces its tables, only"
    assert lab.state() == before


SABOTAGE: list[tuple[str, ...]] = [
    ("nft", "flush", "ruleset"),
    ("nft", "flush", "table", "bridge", "tunrouter"),
    ("nft", "delete", "table", "inet", "tunrouter"),
    ("nft", "flush", "set", "bridge", "tunrouter", "pods"),
    ("ip", "route", "flush", "10.32.0.0/12"),
    ("ip", "route", "replace", "unreachable", "10.32.0.0/12", "proto", "static"),
    ("ip", "-4", "addr", "flush", "dev", "weave"),
    ("ip", "-4", "addr", "flush", "dev", "tunrouter0"),
    ("ip", "link", "set", "weave", "down"),
    ("ip", "link", "set", "tunrouter0", "mtu", "1500"),
    ("ip", "link", "del", "weave"),
    ("sysctl", "-qw", "net.ipv4.conf.weave.rp_filter=1"),
    ("sysctl", "-qw", "net.ipv4.ip_forward=0"),
]


@pytest.mark.parametrize("command", SABOTAGE, ids=" ".join)
def test_what_somebody_breaks_is_repaired(lab: Lab, command: tuple[str, ...]) -> None:
    host = lab.host()
    lab.inside(host.apply)
    a, _ = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.1.3")
    settle(lab, host)
    before = lab.state()
    lab.host_ns.run(*command)
    assert lab.inside(host.repair), "something was repaired, and said"
    settle(lab, host)
    assert without_indices(lab.state()) == without_indices(before)
    assert a.pings("10.32.1.3")


def test_what_portmap_set_on_the_bridge_outlives_it(lab: Lab) -> None:
    """For as long as it was set: one who takes it back is obeyed."""
    host, name = lab.host(), "net.ipv4.conf.weave.route_localnet"
    lab.inside(host.apply)
    for value in (1, 0):
        lab.sysctl(name, value)
        settle(lab, host)
        lab.host_ns.run("ip", "link", "del", "weave")
        done = lab.inside(host.repair)
        assert "bridge weave" in " ".join(done)
        assert ("net/ipv4/conf/weave/route_localnet=1" in done) == bool(value)
        assert lab.host_ns.run("sysctl", "-n", name).strip() == str(value)


def test_repair_costs_next_to_nothing_when_nothing_changed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    host = lab.host()
    lab.inside(host.apply)
    settle(lab, host)

    def fork(*_: object, **__: object) -> None:
        raise AssertionError("a fork in an idle repair")

    monkeypatch.setattr("subprocess.run", fork)
    for _ in range(20):
        assert lab.inside(host.repair) == []


def test_the_monitor_wakes_on_a_flush(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    host.monitor.drain()
    assert not host.monitor.drain()
    lab.host_ns.run("nft", "flush", "ruleset")
    wait_until(host.monitor.drain)
    assert "table inet tunrouter" in lab.inside(host.repair)


def test_an_established_connection_survives_changes_of_the_bridge_mode(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    a, b = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.1.3")
    listen = "import socket as s;l=s.create_server(('',7));c=l.accept()[0]\nwhile d:=c.recv(65536): c.sendall(d)"
    call = (
        "import socket as s,sys,time;c=s.create_connection(('10.32.1.3',7));c.settimeout(5)\n"
        "for line in sys.stdin: c.sendall(line.encode()); print(c.recv(100).decode(), end='', flush=True)"
    )
    server = b.start("python3", "-c", listen)
    wait_until(lambda: ":7 " in b.run("ss", "-ltn"))
    client = a.start("python3", "-c", call)
    assert client.stdin
    assert client.stdout
    try:
        for value, mode in ((0, "isolated"), (1, "hairpin"), (0, "isolated"), (1, "hairpin")):
            lab.nf_call(value)
            changed = lab.inside(host.repair)
            assert host.mode == mode
            assert value == 0 or f"bridge mode {mode}" in changed
            flags = lab.host_ns.run("bridge", "-d", "link")
            assert flags.count("isolated on") == (2 if mode == "isolated" else 0)
            assert flags.count("hairpin on") == (0 if mode == "isolated" else 2)
            client.stdin.write(f"through {mode}\n")
            client.stdin.flush()
            assert client.stdout.readline() == f"through {mode}\n"
    finally:
        for process in (client, server):
            process.kill()
            process.communicate()


def test_preflight_names_the_overlapping_route_and_a_free_range(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.preflight)
    lab.host_ns.run("ip", "route", "add", "10.40.0.0/16", "via", "192.0.2.2")
    with pytest.raises(ConfigError, match=r"10\.40\.0\.0/16 dev eth0.*--range 10\.48\.0\.0/12"):
        lab.inside(host.preflight)
    lab.host_ns.run("ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.2")
    with pytest.raises(ConfigError, match=r"--range 172\.16\.0\.0/12"):
        lab.inside(host.preflight)


def test_preflight_refuses_a_peer_that_the_range_would_swallow(lab: Lab) -> None:
    host = lab.host()
    lab.inside(lambda: host.preflight(["192.0.2.2", "a-name", "2001:db8::1"]))
    with pytest.raises(ConfigError, match=r"peer 10\.40\.0\.9 lies in the range"):
        lab.inside(lambda: host.preflight(["10.40.0.9"]))


def test_preflight_ignores_its_own_devices_and_default_routes(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    lab.host_ns.run("ip", "route", "add", "0.0.0.0/1", "via", "192.0.2.2")
    lab.inside(host.preflight)
    lab.inside(lab.host().preflight)


def test_host_and_outside_packets_enter_the_tunnel_with_the_bridge_address(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    tun = Tun(lab)
    lab.host_ns.run("python3", "-c", SEND, "10.33.5.5", "9", "192.0.2.1")
    packet = tun.first(socket.IPPROTO_UDP)
    assert packet is not None
    assert packet[12:20] == bytes([10, 32, 1, 1, 10, 33, 5, 5])
    lab.outside.run("ip", "route", "add", "10.32.0.0/12", "via", "192.0.2.1")
    lab.outside.run("python3", "-c", SEND, "10.33.5.6", "9", "")
    packet = tun.first(socket.IPPROTO_UDP)
    assert packet is not None
    assert packet[12:20] == bytes([10, 32, 1, 1, 10, 33, 5, 6])
    tun.close()


def test_a_pod_keeps_its_address_in_the_tunnel_and_its_mss_fits(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    lab.inside(lambda: host.set_path_mtus({IPv4Network("10.33.0.0/24"): 1200}))
    pod, tun = lab.pod(host, "10.32.1.2"), Tun(lab)
    for target, mss in (("10.33.5.5", 1336), ("10.33.0.5", 1160)):
        caller = pod.start("python3", "-c", f"import socket; socket.create_connection(('{target}', 80), 3)")
        packet = tun.first(socket.IPPROTO_TCP)
        caller.kill()
        caller.communicate()
        assert packet is not None
        assert packet[12:16] == bytes([10, 32, 1, 2])
        assert packet[40:42] == b"\x02\x04", "the first TCP option is the segment size"
        assert struct.unpack(">H", packet[42:44])[0] == mss
    tun.close()


def test_nothing_of_the_range_leaks_while_the_tun_is_away(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    pod = lab.pod(host, "10.32.1.2")
    lab.host_ns.run("ip", "link", "del", PLAN.tun)
    assert "unreachable" in lab.host_ns.run("ip", "route", "get", "10.33.5.5", check=False) or not lab.host_ns.pings(
        "10.33.5.5"
    )
    answer = pod.run("ping", "-c1", "-W2", "10.33.5.5", check=False)
    assert "Destination Host Unreachable" in answer
    lab.inside(host.repair)
    lab.host_ns.run("ip", "tuntap", "add", "mode", "tun", "multi_queue", "vnet_hdr", "name", PLAN.tun)
    repaired = lab.inside(host.repair)
    assert any("route 10.32.0.0/12 dev tunrouter0" in line for line in repaired)


def test_what_comes_out_of_the_tunnel_reaches_pods_and_nobody_it_should_not(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    pod, tun = lab.pod(host, "10.32.1.2"), Tun(lab)
    assert received(lab, pod.start, tun, udp("10.33.5.5", "10.32.1.2", 9000), 9000)
    assert not received(lab, pod.start, tun, udp("192.0.2.9", "10.32.1.2", 9000), 9000), "a source outside the range"
    assert received(lab, lab.host_ns.start, tun, udp("10.33.5.5", "192.0.2.1", 9000), 9000)
    assert not received(lab, lab.host_ns.start, tun, udp("10.1.2.3", "192.0.2.1", 9000), 9000), "nor towards the host"
    assert not received(lab, lab.host_ns.start, tun, udp("10.33.5.5", "192.0.2.1", 6783), 6783), "the tunnel's port"
    for _ in tun.packets(0.1):
        pass
    tun.write(udp("10.33.5.5", "10.34.6.6"))
    assert tun.first(socket.IPPROTO_UDP, 0.3) is None, "out of the tunnel and into it again"
    tun.close()


@pytest.mark.parametrize("nf_call", [0, 1])
def test_the_underlay_cannot_speak_for_a_pod(lab: Lab, nf_call: int) -> None:
    lab.nf_call(nf_call)
    lab.inside((host := lab.host()).apply)
    pod = lab.pod(host, "10.32.1.2")
    lab.sysctl("net.ipv4.conf.all.rp_filter", 0)
    lab.sysctl("net.ipv4.conf.eth0.rp_filter", 0)
    lab.outside.run("ip", "address", "add", "10.32.2.9/32", "dev", "lo")
    lab.outside.run("ip", "route", "add", "10.32.0.0/12", "via", "192.0.2.1")

    def heard(source: str) -> bool:
        listener = pod.start(sys.executable, "-u", "-c", LISTEN, "9")
        assert listener.stdout
        assert listener.stdout.readline() == "ready\n"
        lab.outside.run(sys.executable, "-c", SEND, "10.32.1.2", "9", source)
        with listener:
            return listener.stdout.read() == "got\n"

    assert heard("192.0.2.2"), "the way is open"
    assert not heard("10.32.2.9")


def test_pods_may_not_talk_to_the_tunnel_port(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    pod = lab.pod(host, "10.32.1.2")
    for port, expected in ((9000, True), (6783, False)):
        listener = lab.host_ns.start("python3", "-c", LISTEN, str(port))
        assert listener.stdout
        assert listener.stdout.readline() == "ready\n"
        pod.run("python3", "-c", SEND, "192.0.2.1", str(port), "")
        assert (listener.stdout.readline() == "got\n") is expected
        listener.communicate()


def test_the_tunnel_is_not_tracked_but_pods_are(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    pod = lab.pod(host, "10.32.1.2")
    pod.run("python3", "-c", SEND, "192.0.2.2", "6783", "")
    lab.outside.run("python3", "-c", SEND, "192.0.2.1", "6783", "")
    lab.host_ns.run("python3", "-c", SEND, "192.0.2.2", "6784", "")
    tracked = lab.host_ns.run("cat", "/proc/net/nf_conntrack")
    assert "src=10.32.1.2 dst=192.0.2.2" in tracked, "a pod's packet to somebody's port 6783 is an ordinary one"
    assert "src=192.0.2.1 dst=192.0.2.2" in tracked
    firsts = [line.split("src=")[1] for line in tracked.splitlines()]
    assert not [line for line in firsts if line.startswith("192.0.2.2 ")], "a peer's datagram"


def test_underlay_mtu_is_that_of_the_chosen_address(lab: Lab) -> None:
    lab.host_ns.run("ip", "link", "add", "eth1", "mtu", "9000", "type", "veth", "peer", "name", "wire")
    lab.host_ns.run("ip", "link", "set", "eth1", "up")
    lab.host_ns.run("ip", "link", "set", "wire", "up")
    lab.host_ns.run("ip", "address", "add", "198.51.100.1/24", "dev", "eth1")
    jumbo, usual = Chosen("198.51.100.1", "eth1"), Chosen("192.0.2.1", "eth0")
    assert lab.inside(lambda: underlay_mtu([], jumbo)) == 9000
    assert lab.inside(lambda: underlay_mtu([], usual)) == 1500
    assert lab.inside(lambda: underlay_mtu(["192.0.2.2"], jumbo)) == 1500, (
        "so long as the routes do not look at sources"
    )
    lab.host_ns.run("ip", "rule", "add", "from", "198.51.100.1", "lookup", "100")
    lab.host_ns.run("ip", "route", "add", "default", "dev", "eth1", "table", "100")
    assert lab.inside(lambda: underlay_mtu(["192.0.2.2", "2001:db8::2"], jumbo)) == 9000
    assert lab.inside(lambda: underlay_mtu(["192.0.2.2"], usual)) == 1500
    lab.host_ns.run("ip", "route", "replace", "default", "dev", "eth1", "mtu", "1400", "table", "100")
    assert lab.inside(lambda: underlay_mtu(["192.0.2.2"], jumbo)) == 1400


def test_underlay_mtu_is_the_smallest_towards_the_peers(lab: Lab) -> None:
    assert lab.inside(lambda: underlay_mtu(["192.0.2.2"])) == 1500
    lab.host_ns.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2", "mtu", "1400")
    assert lab.inside(lambda: underlay_mtu(["192.0.2.2", "198.51.100.1"])) == 1400
    lab.host_ns.run("ip", "link", "set", "eth0", "mtu", "9000")
    assert lab.inside(lambda: underlay_mtu(["192.0.2.2"])) == 9000
    assert lab.inside(lambda: underlay_mtu([])) == 9000
    assert lab.inside(lambda: underlay_mtu(["127.0.0.1", "no-address"])) == 9000
    lab.host_ns.run("ip", "route", "del", "default")
    assert lab.inside(lambda: underlay_mtu([])) == 1500


def test_path_mtu_routes_come_and_go(lab: Lab) -> None:
    host, prefix = lab.host(), IPv4Network("10.32.7.0/24")
    lab.inside(host.apply)
    lab.inside(lambda: host.set_path_mtus({prefix: 1200}))
    assert "mtu 1200" in lab.host_ns.run("ip", "route", "show", str(prefix))
    lab.inside(lambda: host.set_path_mtus({prefix: 1300}))
    assert "mtu 1300" in lab.host_ns.run("ip", "route", "show", str(prefix))
    lab.inside(lambda: host.set_path_mtus({prefix: None}))
    assert lab.host_ns.run("ip", "route", "show", str(prefix)) == ""


def test_a_path_mtu_never_touches_our_own_block_nor_what_is_outside_the_range(lab: Lab) -> None:
    host, good = lab.host(), IPv4Network("10.32.7.0/24")
    lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    before = lab.routes()
    bad = ("10.32.1.0/24", "10.32.1.2/32", "10.32.0.0/16", "10.32.0.0/12", "10.0.0.0/8", "192.0.2.0/24")
    paths = {IPv4Network(text): 1200 for text in bad} | {good: 1200}
    refused = lab.inside(lambda: host.set_path_mtus(paths))
    assert [error.what.split()[3].rstrip(",") for error in refused] == list(bad)
    after = lab.routes()
    assert set(after.splitlines()) - set(before.splitlines()) == {
        line for line in after.splitlines() if line.startswith(f"{good} ")
    }
    assert set(before.splitlines()) <= set(after.splitlines())
    assert "mtu 1200" in after
    assert lab.host_ns.pings("10.32.1.2")
    assert lab.inside(lambda: host.set_path_mtus(dict.fromkeys(paths))) == [], "nothing is there to be removed"
    assert lab.routes() == before


def test_a_plan_that_cannot_be_is_refused() -> None:
    for changes in (
        {"bridge": "a name that is too long"},
        {"tun": 'x"; drop'},
    ):
        with pytest.raises(ConfigError):
            HostPlan(**(msgspec.structs.asdict(PLAN) | changes))


def test_what_is_no_block_is_refused_and_changes_nothing(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    before = lab.state()
    for block in (IPv4Network("10.64.1.0/24"), IPv4Network("10.32.1.0/31")):
        with pytest.raises(ConfigError, match=str(block)):
            lab.inside(lambda: host.own((block,)))  # noqa: B023
        assert lab.state() == before


def received(lab: Lab, start: Callable[..., subprocess.Popen[str]], tun: Tun, packet: bytes, port: int) -> bool:
    listener = start("python3", "-c", LISTEN, str(port))
    assert listener.stdout
    assert listener.stdout.readline() == "ready\n"
    tun.write(packet)
    return "got" in listener.communicate()[0]


def settle(lab: Lab, host: Host) -> None:
    """Until a look finds nothing to do: our own changes are news, too."""
    wait_until(lambda: not lab.inside(host.repair))
    assert lab.inside(host.repair) == []


def without_indices(state: str) -> list[str]:
    return sorted(line.split(": ", 1)[-1].replace("linkdown", "").strip() for line in state.splitlines())
