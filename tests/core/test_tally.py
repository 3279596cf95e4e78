"""What passed between a node and others: sums that only grow, apart for as many neighbours as there may be series."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import bounds
from tunrouter.core.tally import Counts, Tally

MOST = bounds.MAX_PEER_SERIES
PACKET: Counts = (1, 100, 2, 300)


class Peers:
    """Sessions whose sums grow packet by packet."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.sums: dict[int, Counts] = {}

    def send(self, node: int) -> None:
        before = self.sums.get(node, (0, 0, 0, 0))
        after = self.sums[node] = (before[0] + 1, before[1] + 100, before[2] + 2, before[3] + 300)
        self.tally.passed(node, before, after)


def test_a_neighbours_traffic_is_not_that_of_the_others() -> None:
    peers = Peers()
    peers.tally.tell_apart([1])
    peers.send(1)
    peers.send(2)
    assert (peers.tally.payload, peers.tally.others) == ((2, 200, 4, 600), PACKET)


def test_what_was_sent_before_stays_with_the_others_and_comes_to_them_again_afterwards() -> None:
    peers = Peers()
    peers.send(1)
    peers.tally.tell_apart([1])
    peers.send(1)
    assert peers.tally.others == PACKET
    peers.tally.tell_apart([])
    peers.send(1)
    assert peers.tally.others == (2, 200, 4, 600)


def test_only_so_many_are_told_apart_and_those_that_are_stay() -> None:
    tally = Tally()
    tally.tell_apart(range(MOST + 8))
    first = set(tally.apart)
    assert len(first) == MOST
    tally.tell_apart(reversed(range(MOST + 8)))
    assert tally.apart == first
    gone = min(first)
    tally.tell_apart(node for node in range(MOST + 8) if node != gone)
    assert len(tally.apart) == MOST
    assert len(first - tally.apart) == 1


@given(st.lists(st.one_of(st.integers(0, 50), st.frozensets(st.integers(0, 50), max_size=50)), max_size=60))
def test_whatever_happens_every_sum_only_grows_and_nothing_is_counted_twice(story: list[int | frozenset[int]]) -> None:
    """A number sends a packet, a set are the neighbours from then on."""
    peers, apart, before = Peers(), 0, (0, 0, 0, 0)
    for event in story:
        if isinstance(event, int):
            apart += event in peers.tally.apart
            peers.send(event)
        else:
            peers.tally.tell_apart(event)
            assert peers.tally.apart <= event
            assert len(peers.tally.apart) == min(len(event), MOST)
        assert all(now >= then for now, then in zip(peers.tally.others, before, strict=True))
        before = peers.tally.others
    assert peers.tally.payload[0] == peers.tally.others[0] + apart


def test_gossip_that_was_not_said_is_not_counted() -> None:
    tally = Tally()
    tally.said(0)
    tally.said(70)
    tally.heard(500)
    assert tally.gossip == (1, 70, 1, 500)
