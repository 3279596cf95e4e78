"""Agents in a cluster: real agents on real hosts, the API server of the tests, and what both make of each other."""

from __future__ import annotations

import time
from collections.abc import Iterator

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
        up.wait(f"{host} is ready", lambda host=host: up.ready(host))
        up.wait(f"{host} says so", lambda host=host: up.condition(host).get("status") == "False")
    assert sorted(up.leases().values()) == ["host1", "host2", "host3"]
    for host in up.lab.hosts:
        assert up.condition(host)["reason"] == "TunrouterIsUp"
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
