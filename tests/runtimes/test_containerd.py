"""Pods of Debian's containerd, made as a kubelet makes them."""

from __future__ import annotations

import pytest

from tests.runtimes import forged
from tests.runtimes.containerd import Containerd
from tests.runtimes.crashes import Crashes
from tests.runtimes.every import EveryRuntime, held, wait_serving
from tests.runtimes.inside import in_pod, on_host
from tests.runtimes.leftovers import remains, state
from tests.runtimes.limits import unlimited, wait_limited
from tests.runtimes.ports import Ports
from tests.runtimes.runtime import Port, fetch
from tests.runtimes.scene import Scene
from tests.runtimes.spoofing import Spoofing
from tunrouter.bench.namespaces import run
from tunrouter.edge.runtimes import PLUGIN

pytestmark = pytest.mark.root

RUNTIME = Containerd
Containerds = tuple[Containerd, Containerd]
INGRESS, EGRESS = 5_000_000, 3_000_000
LIMITS = {"kubernetes.io/ingress-bandwidth": "5M", "kubernetes.io/egress-bandwidth": "3M"}


class TestContainerd(EveryRuntime):
    """All of them."""


class TestCrashes(Crashes):
    """All of them."""


class TestPorts(Ports):
    """All of them."""


class TestSpoofing(Spoofing):
    """All of them."""


def test_a_pod_that_is_ended_again_takes_nothing_from_its_successor(pair: Containerds) -> None:
    one, two = pair
    ended = one.launch("sleep", "infinity", ports=(Port(8080),))
    one.end(ended.identity)
    assert remains(one.host) == {}
    successor = one.serve("successor", host_port=8080)
    wait_serving(successor)
    one.end(ended.identity)
    ended.remove()
    assert held(successor)
    assert fetch(two.host, successor.address) == fetch(two.host, one.host.address, 8080) == "successor"


def test_a_pod_whose_namespace_is_gone_is_removed(pair: Containerds) -> None:
    one, _ = pair
    pod = one.serve("hello", host_port=8080)
    namespace = one.namespace(pod.identity)
    run(["umount", str(namespace)])
    namespace.unlink()
    pod.remove()
    assert remains(one.host) == {}


def test_a_pod_is_as_fast_as_it_was_annotated_to_be_and_leaves_no_limit(pair: Containerds) -> None:
    one, _ = pair
    before = state(one.host)
    pods = [one.launch("sleep", "infinity", annotations=annotations) for annotations in (LIMITS, {})]
    host, slow, fast = on_host(one.host), in_pod(pods[0], "slow"), in_pod(pods[1], "fast")
    assert remains(one.host).keys() == {"links", "addresses", "limits"}
    for sender, receiver, limit in ((host, slow, INGRESS), (slow, host, EGRESS)):
        wait_limited(sender, receiver, limit)
    for sender, receiver in ((host, fast), (fast, host)):
        assert unlimited(sender, receiver) > 20 * max(INGRESS, EGRESS), f"{sender} to {receiver}"
    for pod in pods:
        pod.remove()
    assert state(one.host) == before


def test_a_pod_with_a_limit_speaks_for_nobody_else_either(pair: Containerds) -> None:
    """Its frames take a way of their own: by way of the limit's device, and back into its port."""
    one, _ = pair
    with Scene(pair, one.launch("sleep", "infinity", annotations=LIMITS)) as scene:
        senders = {"its own MAC": scene.mac, "the neighbour's": scene.mac_of_neighbour}
        between = scene.attacker.address, scene.neighbour.address
        assert scene.attack(forged.packets(scene.others_than("the outside"), scene.places, senders, scene.doors)) == {}
        assert scene.attack(forged.claims(scene.places, scene.mac, scene.mac, scene.doors)) == {}
        assert scene.attack(forged.others(scene.mac, *between, scene.doors)) == {}


def test_containerd_hands_on_limits_and_no_wish_for_an_address(pair: Containerds) -> None:
    """Of a kubelet's annotations; whoever wants a certain address on Kubernetes has no way to ask for it here."""
    one, _ = pair
    annotations = LIMITS | {"ips": "10.32.1.77", "kubernetes.io/ips": "10.32.1.77"}
    with one.overheard(PLUGIN) as ours, one.overheard("bandwidth") as bandwidths:
        pod = one.launch("sleep", "infinity", annotations=annotations)
    assert [call.config.keys() & {"runtimeConfig", "args"} for call in ours] == [set()]
    assert not [part for part in ours[0].arguments.split(";") if part.startswith("IP=")]
    assert pod.address != "10.32.1.77"
    given = bandwidths[0].config["runtimeConfig"]["bandwidth"]
    assert (given["IngressRate"], given["EgressRate"]) == (INGRESS, EGRESS)
