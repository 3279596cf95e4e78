"""Pods of Debian's containerd, made as a kubelet makes them."""

from __future__ import annotations

import pytest

from tests.runtimes.containerd import Containerd
from tests.runtimes.every import EveryRuntime, held, wait_serving
from tests.runtimes.leftovers import remains
from tests.runtimes.ports import Ports
from tests.runtimes.runtime import Port, fetch
from tests.runtimes.spoofing import Spoofing
from tunrouter.bench.namespaces import run

pytestmark = pytest.mark.root

RUNTIME = Containerd
Containerds = tuple[Containerd, Containerd]


class TestContainerd(EveryRuntime):
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
