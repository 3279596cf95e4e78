"""Pods of Debian's podman, its networks by CNI."""

from __future__ import annotations

import json

import pytest

from tests.runtimes import image
from tests.runtimes.crashes import Crashes
from tests.runtimes.every import EveryRuntime, held, wait_serving
from tests.runtimes.leftovers import NETWORK, remains
from tests.runtimes.podman import Podman
from tests.runtimes.ports import Ports
from tests.runtimes.runtime import Pod, fetch
from tests.runtimes.spoofing import Spoofing
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.runtimes import PLUGIN

pytestmark = pytest.mark.root

RUNTIME = Podman
Podmans = tuple[Podman, Podman]


class TestPodman(EveryRuntime):
    """All of them."""


@pytest.mark.soak
class TestCrashes(Crashes):
    """All of them; in every run those of containerd."""


class TestPorts(Ports):
    """All of them."""


@pytest.mark.soak
class TestSpoofing(Spoofing):
    """All of them; in every run those of containerd."""


def test_a_container_that_is_killed_gives_its_address_back(pair: Podmans) -> None:
    one, _ = pair
    pod = one.serve("hello", host_port=8080)
    assert held(pod)
    one.podman("kill", pod.identity)
    wait_until("its monitor has had the network cleaned up", lambda: not remains(one.host), 10, pause=0.1)


def test_a_container_is_reached_after_it_was_stopped_and_started(pair: Podmans) -> None:
    one, two = pair
    before = one.serve("again", host_port=8080)
    wait_serving(before)
    one.podman("stop", "--time", "0", before.identity)
    assert remains(one.host) == {}
    one.podman("start", before.identity)
    after = Pod(one, before.identity)
    wait_serving(after)
    assert held(after)
    assert fetch(two.host, after.address) == fetch(two.host, one.host.address, 8080) == "again"


def test_podman_tells_what_the_container_has(pair: Podmans) -> None:
    one, _ = pair
    pod = one.launch("sleep", "infinity")
    said = json.loads(
        one.podman("inspect", "--format", f"{{{{json .NetworkSettings.Networks.{NETWORK}}}}}", pod.identity)
    )
    assert (said["IPAddress"], said["IPPrefixLen"], said["Gateway"]) == (pod.address, 32, "10.32.1.1")
    assert f"ether {said['MacAddress']} " in pod.run("ip", "link", "show", "eth0")
    assert f"inet {pod.address}/32 " in pod.run("ip", "address", "show", "eth0")
    assert "default via 10.32.1.1 " in pod.run("ip", "route")


def test_a_container_has_the_address_that_was_asked_for(pair: Podmans) -> None:
    one, two = pair
    wanted = "10.32.1.77"
    with one.overheard(PLUGIN) as calls:
        identity = one.podman("run", "--detach", "--ip", wanted, image.NAME, "sleep", "infinity").strip()
    # As an argument, although the network has the capability.
    assert [f"IP={wanted}" in call.arguments for call in calls] == [True]
    assert "runtimeConfig" not in calls[0].config
    assert Pod(one, identity).address == wanted
    assert two.launch("sleep", "infinity").ping(wanted)
    refused = one.podman("run", "--detach", "--ip", wanted, image.NAME, "sleep", "infinity", check=False)
    assert wanted in refused
    assert "failed (add)" in refused


def test_a_running_container_leaves_the_network_and_joins_it_again(pair: Podmans) -> None:
    one, two = pair
    before = one.serve("back")
    one.podman("network", "disconnect", NETWORK, before.identity)
    assert remains(one.host) == {}
    assert "eth0" not in before.run("ip", "link")
    one.podman("network", "connect", NETWORK, before.identity)
    after = Pod(one, before.identity)
    wait_serving(after)
    assert held(after)
    assert fetch(two.host, after.address) == "back"
