"""Agents in a cluster: real agents on real hosts, the API server of the tests, and what both make of each other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.kube.scene import Scene, conflist, scene

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def up() -> Iterator[Scene]:
    with scene(3) as made:
        made.start(*made.lab.hosts)
        yield made


def test_all_are_ready_soon_with_few_writes(up: Scene) -> None:
    for host in up.lab.hosts:
        up.wait(f"{host} is ready", partial(up.ready, host))
        up.wait(f"{host} says so", partial(up.condition, host))
    assert sorted(up.leases().values()) == ["host1", "host2", "host3"]
    for host in up.lab.hosts:
        assert (up.condition(host)["status"], up.condition(host)["reason"]) == ("False", "TunrouterIsUp")
        assert conflist(host) is not None
        assert len(up.writes(host)) <= 5, up.writes(host)
        host.agent.wait_established(2)
    one, other = up.lab.hosts[0].add_pod("a"), up.lab.hosts[1].add_pod("b")
    assert len(one.ping(other.address)) == 1


def test_a_first_pod_is_quick() -> None:
    with scene(1) as made:
        began = time.monotonic()
        made.start(*made.lab.hosts)
        (host,) = made.lab.hosts
        made.wait("the network is installed", lambda: conflist(host))
        assert time.monotonic() - began < 10
        began = time.monotonic()
        host.add_pod("a")
        assert time.monotonic() - began < 2


def test_the_api_is_away_for_a_while(up: Scene) -> None:
    """Traffic and pods go on; what happened meanwhile is known soon after its return; and nobody spins."""
    one, two, three = up.lab.hosts
    left, right = one.add_pod("left"), two.add_pod("right")
    up.control.do("down")
    up.wait("it is noticed", lambda: "out of touch" in " ".join(one.agent.snapshot().warnings))
    used, began = one.agent.cpu_seconds(), time.monotonic()
    assert len(left.ping(right.address, count=100, seconds=15)) == 100
    assert one.add_pod("more").address
    three.agent.stop()
    three.agent.restart()
    assert three.add_pod("after its restart").address
    spent = (one.agent.cpu_seconds() - used) / (time.monotonic() - began)
    assert spent < 0.25, f"{spent:.0%} of a core, pings included"
    up.control.do("up")
    up.wait("it is back", lambda: not any("out of touch" in text for text in one.agent.snapshot().warnings))
    assert up.ready(one)
    assert up.ready(three)
    assert sorted(up.leases().values()) == ["host1", "host2", "host3"]


def test_a_node_object_is_deleted_and_made_again_under_its_pods(up: Scene) -> None:
    host = up.lab.hosts[1]
    pod = host.add_pod("stays")
    other = up.lab.hosts[0].add_pod("asks")
    before = {name for name, holder in up.leases().items() if holder == host.name}
    up.delete_node(host)
    up.wait("the Lease is collected", lambda: host.name not in up.leases().values())
    assert len(other.ping(pod.address)) == 1
    uid = up.add_node(host)
    up.wait("the same blocks are its own again", lambda: before <= up.leases().keys(), 5)
    assert {name for name, holder in up.leases().items() if holder == host.name} == before
    assert up.lease(min(before))["metadata"]["ownerReferences"][0]["uid"] == uid
    up.wait("the condition is told of the new object", partial(up.condition, host))
    up.wait("it gives addresses again", partial(up.ready, host))
    assert host.add_pod("later").address != pod.address


def test_a_disk_is_lost_under_pods(up: Scene) -> None:
    """The Node is the same, so its block is: written to the new identity in one request, and in use as before."""
    host, other = up.lab.hosts[2], up.lab.hosts[0]
    pod, asks = host.add_pod("survivor"), other.add_pod("witness")
    (block,) = [name for name, holder in up.leases().items() if holder == host.name]
    before = up.lease(block)["metadata"]
    host.agent.kill()
    shutil.rmtree(host.agent.directory / "state")
    host.agent.restart()
    label = "tunrouter.io/peer"
    up.wait("it is ours by name", lambda: up.lease(block)["metadata"]["labels"][label] != before["labels"][label])
    assert up.lease(block)["metadata"]["uid"] == before["uid"]
    up.wait("it serves", partial(up.ready, host), 15)
    up.wait("the pod is reached", lambda: asks.ping(pod.address), 15)
    assert [name for name, holder in up.leases().items() if holder == host.name].count(block) == 1


def test_the_nodes_address_is_the_tunnels(up: Scene) -> None:
    host = up.lab.hosts[2]
    there = host.agent.snapshot().host
    assert there.underlay == host.address
    assert "InternalIP" in there.underlay_wish


def test_settings_that_work_against_us_are_named_and_an_annotation_is_obeyed() -> None:
    with scene(1, nodes=False) as made:
        made.add_node(made.lab.hosts[0], **{"tunrouter.io/iface": "eth7,eth0"})
        made.control.do("plant", thing={
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
            "data": {"config.conf": "clusterCIDR: 10.244.0.0/16\nmode: ipvs\n"},
        })  # fmt: skip
        (host,) = made.lab.hosts
        made.start(host)
        made.wait("Events", lambda: len(made.events("NetworkConflict")) == 2)
        assert any("clusterCIDR" in text for text in host.agent.snapshot().warnings)
        assert host.agent.snapshot().host.underlay_wish == "annotation eth7,eth0", "it beats the InternalIP"


def test_a_network_that_somebody_takes_away_is_put_back_and_said(up: Scene) -> None:
    host = up.lab.hosts[0]
    host.agent.wait_ready()
    (host.agent.directory / "net.d" / "05-tunrouter.conflist").unlink()
    up.wait("it is there again", partial(conflist, host), 5)
    up.wait("an Event says so", lambda: up.events("NetworkFileRestored"), 5)
    snapshot = host.agent.snapshot()
    assert snapshot.host.repaired[0].endswith("05-tunrouter.conflist")
    assert snapshot.kubernetes is not None
    assert (snapshot.kubernetes.node, snapshot.kubernetes.registered) == (host.name, True)
    assert {each.resource for each in snapshot.kubernetes.requests} >= {"nodes", "leases", "events"}


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_an_outage_of_the_api_costs_next_to_no_processor_time() -> None:
    """Beside the same agent in touch; and all is known again within ten seconds."""
    with scene(2) as made:
        one, two = made.lab.hosts
        made.start(one, two)
        for host in (one, two):
            made.wait(f"{host} is ready", partial(made.ready, host))
        left, right = one.add_pod("left"), two.add_pod("right")
        shares = []
        for state in ("up", "down"):
            if state == "down":
                made.control.do(state)
            deadline, used, began = time.monotonic() + 150, one.agent.cpu_seconds(), time.monotonic()
            while time.monotonic() < deadline:
                left.ping(right.address, count=20, seconds=15)
                time.sleep(5)
            shares.append((one.agent.cpu_seconds() - used) / (time.monotonic() - began))
            one.add_pod(f"while {state}")
        made.control.do("up")
        began = time.monotonic()
        made.wait("it is back", lambda: not any("out of touch" in text for text in one.agent.snapshot().warnings))
        assert time.monotonic() - began < 10
        assert shares[1] - shares[0] < 0.05, shares


def test_an_agent_that_cannot_start_tells_the_cluster_why() -> None:
    """Here Weave Net's bridge is in its place, with a port of a pod: nothing of it is touched."""
    with scene(1) as made:
        (host,) = made.lab.hosts
        host.namespace.ip(
            "link add weave type bridge",
            "link add vethwepl1 type veth peer name eth9",
            "link set vethwepl1 master weave",
        )
        host.agent.block = ""
        made.start(host, wait=False)
        made.wait("an Event", lambda: made.events("StartFailed"))
        (event,) = made.events("StartFailed")
        assert "bridge weave is another network's (probably Weave Net)" in event["message"]
        assert host.agent.process.wait(10) != 0
        assert "vethwepl1" in host.namespace.run("ip", "link", "show", "master", "weave").stdout
