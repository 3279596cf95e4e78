"""Which neighbour relayed datagrams leave by: only what was asked for is told, and kept right."""

from __future__ import annotations

import pytest

from tunrouter.core import bounds, seam
from tunrouter.core.hops import Hops
from tunrouter.core.outbox import Outbox
from tunrouter.core.record import Link, LinksBody
from tunrouter.core.topology import Topology

ME, A, B, FAR = 1, 2, 3, 9


def links(*nodes: int, rtt: int = 3) -> LinksBody:
    return LinksBody(tuple(Link(node, rtt) for node in nodes))


class Lab:
    def __init__(self) -> None:
        self.topology, self.out = Topology(ME), Outbox()
        self.topology.tell(ME, links(A, B))
        self.topology.tell(A, links(ME, FAR))
        self.topology.tell(B, links(ME, FAR, rtt=9))
        self.topology.tell(FAR, links(A, B))
        self.hops = Hops(self.topology, self.out)

    def told(self) -> list[object]:
        return list(self.out.take())


def test_what_was_asked_for_is_told_once() -> None:
    lab = Lab()
    assert lab.told() == []
    assert lab.hops.lead(FAR)
    assert lab.hops.lead(FAR)
    assert lab.told() == [seam.Hop(FAR, A)]
    assert lab.hops.via(FAR) == A


def test_our_own_doubts_count_at_once_and_others_news_a_little_later() -> None:
    lab = Lab()
    lab.hops.lead(FAR)
    lab.told()
    lab.topology.trust({B})
    lab.hops.refresh(10.0, urgent=True)
    assert lab.told() == [seam.Hop(FAR, B)]
    lab.topology.tell(B, links(ME))
    lab.hops.refresh(10.1, urgent=False)
    assert lab.told() == []
    assert lab.hops.deadline == 10.0 + bounds.HOPS_PAUSE_SECONDS
    lab.hops.refresh(lab.hops.deadline, urgent=False)
    assert lab.told() == [seam.Hop(FAR, 0)]
    assert lab.hops.via(FAR) == 0
    assert lab.hops.deadline == float("inf")


def test_in_a_large_cluster_the_news_of_others_is_looked_at_less_often() -> None:
    lab = Lab()
    for node in range(10_000, 14_000):
        lab.topology.tell(node, links(node + 1))
    lab.hops.lead(FAR)
    lab.hops.refresh(10.0, urgent=False)
    lab.topology.tell(B, links(ME))
    assert lab.hops.deadline == pytest.approx(10.0 + 4 * bounds.HOPS_PAUSE_SECONDS, rel=0.01)


def test_a_way_around_a_neighbour_does_not_begin_with_it() -> None:
    lab = Lab()
    lab.topology.tell(B, links(ME, A))
    lab.topology.tell(A, links(ME, B))
    assert lab.hops.lead(A)
    assert lab.told() == [seam.Hop(A, B)]


def test_targets_that_nobody_knows_take_no_room() -> None:
    lab = Lab()
    assert not any(lab.hops.lead(node) for node in range(100, 200))
    assert lab.told() == []


def test_who_was_asked_for_longest_ago_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_HOPS", 2)
    lab = Lab()
    lab.topology.tell(A, links(ME, FAR, 20, 21))
    lab.topology.tell(20, links(A))
    lab.topology.tell(21, links(A))
    for target in (FAR, 20, FAR, 21):
        assert lab.hops.lead(target)
    assert lab.told() == [seam.Hop(FAR, A), seam.Hop(20, A), seam.Hop(21, A), seam.Hop(20, 0)]
