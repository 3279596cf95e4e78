"""Hosts behind routers that translate addresses: found through one in the open, reached by relay, kept reachable."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.test_healing import Pings, path, paths
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until

pytestmark = pytest.mark.root

FORGOTTEN = 30
"""Seconds after which the routers forget a mapping: the default for one that was never answered."""


@pytest.fixture
def hidden(secret: str) -> Iterator[Lab]:
    """The first is in the open and knows nobody; the others hide, and know the first."""
    with Lab(hosts=3, offloads="off", hidden=(2, 3)) as lab:
        first, *others = lab.hosts
        first.agent.start(password=secret)
        for host in others:
            assert host.nat is not None
            host.nat.forget_after(FORGOTTEN)
            host.agent.start(first.address, password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        wait_until("all are linked to the first", lambda: paths(first) == ["direct"] * 2, 10)
        yield lab


def test_two_that_hide_reach_each_other_by_who_is_in_the_open(hidden: Lab) -> None:
    first, one, other = hidden.hosts
    wait_until("a packet finds the way", lambda: one.pods[0].ping(other.pods[0].address), 10)
    assert path(one, other) == path(other, one) == f"relay through {first.agent.name}"
    for host in (one, other):
        assert path(host, first) == path(first, host) == "direct"
        assert len(first.pods[0].ping(host.pods[0].address, count=3)) == 3
        assert len(host.pods[0].ping(first.pods[0].address, count=3)) == 3
    assert len(one.pods[0].ping(other.pods[0].address, count=5)) == 5


def test_a_router_that_forgets_its_mappings_costs_four_seconds(hidden: Lab) -> None:
    first, one, _ = hidden.hosts
    assert one.nat is not None
    assert one.pods[0].ping(first.pods[0].address)
    with Pings(first.pods[0], one.pods[0]) as pings:
        one.nat.forget()
        wait_until("it answers again", lambda: len(first.pods[0].ping(one.pods[0].address, count=10)) == 10, 10)
    assert pings.gap <= 4.0


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_who_hides_and_is_silent_can_still_be_reached(secret: str) -> None:
    """By somebody whom neither it nor the operator keeps a session with."""
    with Lab(hosts=3, offloads="off", hidden=(2,)) as lab:
        first, one, other = lab.hosts
        first.agent.start("--no-discovery", password=secret)
        for host in (one, other):
            host.agent.start("--no-discovery", first.address, password=secret)
        assert one.nat is not None
        one.nat.forget_after(FORGOTTEN)
        pods = one.add_pod("a"), other.add_pod("a")
        wait_until("a packet finds the way", lambda: pods[0].ping(pods[1].address), 10)
        wait_until("they speak directly", lambda: path(one, other) == path(other, one) == "direct", 70)
        began = time.monotonic()
        wait_until("an idle mapping would be gone", lambda: time.monotonic() - began > 1.5 * FORGOTTEN, 60)
        assert path(other, one) == "direct"
        assert len(pods[1].ping(pods[0].address, count=3)) == 3
        assert path(other, one) == "direct"
