"""Thirty real agents that know one of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.status import Snapshot
from tunrouter.edge.api import StatusCall
from tunrouter.edge.api.client import Client
from tunrouter.errors import TunrouterError

pytestmark = pytest.mark.root

SIZE = 30


def snapshot(host: Host) -> Snapshot | None:
    """None while the agent is starting. Without a process of its own: thirty of those would be most of the load."""
    try:
        return Client(host.agent.directory / "run" / "tunrouter.sock").ask(StatusCall(), Snapshot)
    except TunrouterError:
        assert host.agent.running, host.agent.last_words()
        return None


def all_route_to_all(hosts: Sequence[Host], size: int) -> bool:
    return all((found := snapshot(host)) is not None and len(found.routes) == size for host in hosts)


def one_view(hosts: Sequence[Host]) -> bool:
    found = [snapshot(host) for host in hosts]
    return len({one.gossip.digest for one in found if one is not None and one.gossip is not None}) == 1


def reachable(host: Host) -> int:
    found = snapshot(host)
    return found.gossip.reachable if found is not None and found.gossip is not None else 0


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_thirty_agents_find_each_other_by_one_and_outlive_it(secret: str) -> None:
    with Lab(hosts=SIZE, offloads="off") as lab:
        seed, *others = lab.hosts
        seed.agent.start(password=secret)
        for host in others:
            host.agent.start(seed.address, password=secret, wait=False)
        wait_until("all agents answer", lambda: all(snapshot(host) for host in lab.hosts), 90)
        began = time.monotonic()
        wait_until("all route to all", lambda: all_route_to_all(lab.hosts, SIZE), 10)
        assert time.monotonic() - began <= 10

        near, far = others[3], others[20]
        one, other = near.add_pod("a"), far.add_pod("b")
        assert len(one.ping(other.address, count=3)) == 3
        assert snapshot(near).host.attachments == 1  # type: ignore[union-attr]

        seed.agent.kill()
        assert len(one.ping(other.address, count=5)) == 5
        third = others[25].add_pod("c")
        assert len(one.ping(third.address, count=3)) == 3
        assert len(third.ping(other.address, count=3)) == 3
        wait_until("the seed is missed", lambda: all(reachable(host) == SIZE - 1 for host in others), 15)
        wait_until("views agree", lambda: one_view(others), 45)
