"""Pods and hosts reach each other through agents, and nothing of theirs is readable on the underlay."""

from __future__ import annotations

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


def test_every_pair_of_pods_on_three_hosts_exchanges_packets_of_every_size(secret: str) -> None:
    with Lab(hosts=3) as lab:
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


def test_peers_meet_over_ipv6(secret: str) -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        one.agent.start(password=secret)
        two.agent.start(f"[{one.address6}]:{PORT}", password=secret)
        two.agent.wait_established(1)
        sender, receiver = (host.add_pod("a") for host in lab.hosts)
        assert sender.ping(receiver.address, size=1376 - ICMP_AND_IP)
        with Stream(sender.namespace, receiver.namespace, receiver.address, 8 << 20) as stream:
            stream.finish()


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
