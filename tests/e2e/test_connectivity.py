"""Pods and hosts reach each other through agents, and nothing of theirs is readable on the underlay."""

from __future__ import annotations

from typing import Literal

import pytest

from tunrouter.bench.agent import PORT
from tunrouter.bench.capture import Capture
from tunrouter.bench.fabric import GATEWAY
from tunrouter.bench.lab import Host, Lab, Pod
from tunrouter.bench.namespaces import stop, wait_until
from tunrouter.bench.traffic import Stream

pytestmark = pytest.mark.root

RANGE = "10.32.0.0/12"
ICMP_AND_IP = 28
"""Bytes of a ping's headers."""


def deliver(sender: Host, receiver: Pod) -> None:
    """A host's own ping and stream to a pod elsewhere."""
    assert sender.namespace.run("ping", "-n", "-c", "3", "-i", "0.05", "-w", "3", receiver.address).returncode == 0
    with Stream(sender.namespace, receiver.namespace, receiver.address, 4 << 20) as stream:
        stream.finish()


@pytest.mark.parametrize("underlay", [4, 6])
def test_every_pair_of_pods_on_three_hosts_exchanges_packets_of_every_size(
    secret: str, underlay: Literal[4, 6]
) -> None:
    with Lab(hosts=3, underlay=underlay) as lab:
        lab.start_agents(password=secret)
        pods = [host.add_pod(name) for host in lab.hosts for name in "ab"]
        mtu = lab.hosts[0].agent.snapshot().mtu
        assert mtu == 1376
        for sender in pods:
            for receiver in pods:
                if sender is not receiver:
                    assert sender.ping(receiver.address), f"{sender} to {receiver}"
                    assert sender.ping(receiver.address, size=mtu - ICMP_AND_IP), f"{sender} to {receiver}, full size"
        assert not pods[0].ping(pods[2].address, size=mtu - ICMP_AND_IP + 1, seconds=1)


def test_nine_thousand_bytes_where_the_underlay_has_them(secret: str) -> None:
    with Lab(hosts=2, mtu=9000) as lab:
        lab.start_agents(password=secret)
        one, two = (host.add_pod("a") for host in lab.hosts)
        mtu = lab.hosts[0].agent.snapshot().mtu
        assert mtu == 9000 - 124
        wait_until(
            "a full packet crosses", lambda: one.ping(two.address, size=mtu - ICMP_AND_IP, seconds=1), 10, pause=0.1
        )


def test_over_ipv6_the_smallest_path_carries_pods_and_there_is_no_way_out_for_them(secret: str) -> None:
    """1,280 bytes is what every IPv6 link carries (RFC 8200)."""
    with Lab(hosts=2, mtu=1280, offloads="off", underlay=6) as lab:
        lab.start_agents(password=secret)
        one, two = (host.add_pod("a") for host in lab.hosts)
        assert lab.hosts[0].agent.snapshot().mtu == 1280 - 124
        assert one.ping(two.address, size=1280 - 124 - ICMP_AND_IP)
        with Stream(one.namespace, two.namespace, two.address, 8 << 20) as stream:
            stream.finish()
        tracked = lab.hosts[1].namespace.read("/proc/net/nf_conntrack")
        assert "dport=5600" in tracked, "what pods send is tracked"
        assert f"dport={PORT}" not in tracked
        said = one.namespace.run("ping", "-n", "-c", "1", "-W", "1", GATEWAY, check=False).stdout
        assert "From 10.32.1.1 icmp_seq=1 Destination Net Unreachable" in said, "a pod hears at once that there is none"


def test_between_hosts_with_both_families_each_peer_may_be_reached_by_another(secret: str) -> None:
    """The last is bound to its IPv6 address and is named by that, and by an IPv4 one where nobody answers."""
    with Lab(hosts=3) as lab:
        one, two, three = lab.hosts
        one.agent.start(password=secret)
        three.agent.start("--host", three.address6, f"[{one.address6}]:{PORT}", password=secret)
        two.agent.start(one.address, three.address, f"[{three.address6}]", password=secret)
        two.agent.wait_established(2)
        rows = [row.address for row in two.agent.connections() if row.state == "established"]
        assert sorted(rows) == sorted([one.endpoint, f"[{three.address6}]:{PORT}"])


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_a_host_reaches_a_remote_pod_and_no_address_of_the_range_is_on_the_underlay(
    secret: str, rp_filter: int
) -> None:
    with Lab(hosts=2) as lab:
        one, two = lab.hosts
        for host in lab.hosts:
            for key in ("all", "default", "eth0"):
                host.namespace.sysctl(f"net.ipv4.conf.{key}.rp_filter", rp_filter)
        lab.start_agents(password=secret)
        near, far = one.add_pod("a"), two.add_pod("a")
        with Capture(one.namespace, lab.directory / "wire") as capture:
            deliver(one, far)
            deliver(two, near)
            # What a pod sends while its host's own address is the source comes back the same way.
            assert near.ping(far.address)
            capture.wait_for(10, f"udp port {PORT}")
            assert capture.packets(f"net {RANGE}") == []


def test_the_capture_would_see_an_address_of_the_range(secret: str) -> None:
    with Lab(hosts=2) as lab:
        lab.start_agents(password=None)
        one, two = (host.add_pod("a") for host in lab.hosts)
        lab.hosts[0].namespace.ip(f"route replace {two.address}/32 via {lab.hosts[1].address}")
        with Capture(lab.hosts[0].namespace, lab.directory / "wire") as capture:
            one.ping(two.address, seconds=1)
            assert capture.wait_for(1, f"net {RANGE}")


def test_an_attached_pod_keeps_its_address_and_a_detached_one_is_gone(pair: Lab) -> None:
    one, two = pair.hosts
    near, far = one.pods[0], two.pods[0]
    before = far.address
    two.attach(far)
    assert far.address == before
    chosen = two.add_pod("b", address="10.32.2.77")
    assert chosen.address == "10.32.2.77"
    assert near.ping("10.32.2.77")
    two.agent.command("detach", str(chosen.namespace.path))
    assert "eth0" not in chosen.namespace.run("ip", "-br", "link").stdout
    assert not near.ping("10.32.2.77", seconds=1)
    assert near.ping(far.address)


def test_a_namespace_is_attached_by_the_id_of_a_process_in_it(pair: Lab) -> None:
    two = pair.hosts[1]
    pod = two.make_namespace("b")
    sleeper = pod.namespace.spawn("sleep", "60")
    try:
        wait_until("the process is in the namespace", lambda: sleeper.pid in pod.namespace.pids(), 5)
        said = two.agent.command("attach", str(sleeper.pid)).stdout
        address = said.split()[0].partition("/")[0]
        assert pair.hosts[0].pods[0].ping(address)
    finally:
        stop(sleeper)


def test_a_pod_reaches_the_world_outside_with_its_hosts_address(pair: Lab) -> None:
    pod = pair.hosts[0].pods[0]
    with Capture(pair.hosts[0].namespace, pair.directory / "wire") as capture:
        assert pod.ping(GATEWAY)
        capture.wait_for(1, f"icmp and src {pair.hosts[0].address} and dst {GATEWAY}")
        assert capture.packets(f"net {RANGE}") == []
