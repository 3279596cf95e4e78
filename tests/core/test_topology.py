"""Shortest ways over links that both ends tell."""

from __future__ import annotations

import random
from time import process_time

import pytest

from tunrouter.core import bounds
from tunrouter.core.record import Link, LinksBody, class_seconds, rtt_class
from tunrouter.core.topology import HOP_SECONDS, Topology


def mesh(own: int, *links: tuple[int, int, int]) -> Topology:
    """Links as (one, other, class), told by both ends."""
    told: dict[int, list[Link]] = {}
    for one, other, rtt in links:
        told.setdefault(one, []).append(Link(other, rtt))
        told.setdefault(other, []).append(Link(one, rtt))
    topology = Topology(own)
    for node, mine in told.items():
        topology.tell(node, LinksBody(tuple(mine)))
    return topology


def test_the_shorter_way_is_taken_even_with_more_hops() -> None:
    slow, fast = rtt_class(0.5), rtt_class(0.001)
    topology = mesh(1, (1, 3, slow), (1, 2, fast), (2, 3, fast))
    way = topology.way(3)
    assert way is not None
    assert (way.neighbour, way.hops) == (2, 2)
    assert way.seconds == pytest.approx(2 * class_seconds(fast) + HOP_SECONDS)


def test_a_hop_costs_so_that_little_is_not_worth_a_relay() -> None:
    topology = mesh(1, (1, 3, rtt_class(0.003)), (1, 2, 0), (2, 3, 0))
    assert topology.ways()[3].neighbour == 3


def test_a_link_that_only_one_end_tells_is_none() -> None:
    topology = mesh(1, (1, 2, 5), (2, 3, 5))
    topology.tell(3, LinksBody(()))
    assert topology.way(3) is None
    assert not topology.linked(2, 3)
    assert topology.degree(2) == 1


def test_the_longer_of_both_told_round_trips_counts() -> None:
    topology = mesh(1, (1, 2, 5))
    topology.tell(2, LinksBody((Link(1, 9),)))
    assert topology.ways()[2].seconds == class_seconds(9)


def test_an_avoided_neighbour_is_still_reached_by_others() -> None:
    topology = mesh(1, (1, 2, 3), (1, 3, 3), (2, 3, 3))
    assert topology.ways()[2].neighbour == 2
    topology.trust({3})
    assert topology.ways()[2].neighbour == 3
    topology.trust({2, 3})
    assert topology.ways()[2].neighbour == 2


def test_who_relays_is_named_in_order() -> None:
    chain = mesh(1, (1, 2, 0), (2, 3, 0), (3, 4, 0))
    assert chain.relays(4) == (2, 3)
    assert chain.relays(2) == (), "there is no way but the link itself"
    assert chain.relays(9) == chain.relays(1) == ()
    around = mesh(1, (1, 4, 0), (1, 2, 3), (2, 3, 3), (3, 4, 3))
    assert around.ways()[4].neighbour == 4
    assert around.relays(4) == (2, 3), "the way that is left without the link"


def test_a_node_that_is_forgotten_carries_nothing() -> None:
    topology = mesh(1, (1, 2, 3), (2, 3, 3))
    topology.forget(2)
    assert topology.ways() == {}


def test_all_ways_are_shortest_and_lead_on() -> None:
    """Against Floyd and Warshall's algorithm on random graphs: following next hops from node to node costs no more."""
    for seed in range(30):
        rng = random.Random(seed)
        nodes = range(1, 13)
        links = [(a, b, rng.randrange(20)) for a in nodes for b in nodes if a < b and rng.random() < 0.25]
        cost = {(a, b): 0.0 if a == b else float("inf") for a in nodes for b in nodes}
        for a, b, rtt in links:
            cost[a, b] = cost[b, a] = class_seconds(rtt) + HOP_SECONDS
        for k in nodes:
            for a in nodes:
                for b in nodes:
                    cost[a, b] = min(cost[a, b], cost[a, k] + cost[k, b])
        views = {node: mesh(node, *links) for node in nodes}
        for a in nodes:
            for b in nodes:
                way = views[a].way(b)
                if a == b or cost[a, b] == float("inf"):
                    assert way is None
                    continue
                assert way is not None
                assert way.seconds == pytest.approx(cost[a, b] - HOP_SECONDS)
                at, hops = a, 0
                while at != b:
                    at, hops = views[at].ways()[b].neighbour, hops + 1
                    assert hops <= 12


def thousand() -> Topology:
    rng = random.Random(1)
    links = [(a, rng.randrange(1, 1001), rng.randrange(10, 16)) for a in range(1, 1001) for _ in range(4)]
    return mesh(1, *(link for link in {(min(a, b), max(a, b), c) for a, b, c in links} if link[0] != link[1]))


def test_ways_around_are_computed_once_for_each_change() -> None:
    """Whoever relays something to us names its origin, and each time the way back is asked for."""
    topology = thousand()
    neighbours = [node for node, way in topology.ways().items() if way.neighbour == node]
    start = process_time()
    for _ in range(1000):
        for node in (5000, *neighbours):
            topology.around(node)
    assert process_time() - start < 0.5
    topology.tell(5000, LinksBody((Link(2, 3),)))
    topology.tell(2, LinksBody((Link(5000, 3), Link(1, 3))))
    topology.tell(1, LinksBody((Link(2, 3),)))
    way = topology.around(5000)
    assert way is not None
    assert (way.neighbour, topology.around(2)) == (2, None)


def test_a_thousand_nodes_take_milliseconds() -> None:
    topology = thousand()
    start = process_time()
    assert len(topology.ways()) > 990
    assert process_time() - start < 0.1


@pytest.mark.parametrize("seconds", [1e-5, 1e-4, 0.003, 0.05, 0.2, 20.0])
def test_round_trips_keep_their_class_while_they_vary_a_little(seconds: float) -> None:
    before = rtt_class(seconds)
    assert seconds <= class_seconds(before)
    assert rtt_class(seconds * 1.1, before) == rtt_class(seconds * 0.9, before) == before
    assert rtt_class(seconds * 2.5, before) > before or seconds in (1e-5, 20.0)
    assert rtt_class(seconds / 2.5, before) < before or before == 0


def test_who_asks_for_nobody_or_for_the_same_again_costs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relayed datagrams name any origin that their sender likes, thousands a second."""
    topology = mesh(1, (1, 2, 3), (1, 3, 3), (2, 3, 3))
    searches: list[int] = []
    search = Topology._dijkstra

    def counted(self: Topology, without: int = 0, until: int = 0) -> object:
        searches.append(without)
        return search(self, without, until)

    monkeypatch.setattr(Topology, "_dijkstra", counted)
    assert not any(topology.around(node) for node in range(100, 200))
    ways = [topology.around(2) for _ in range(100)]
    assert searches == [0, 2]
    assert {way.neighbour for way in ways if way is not None} == {3}
    topology.tell(3, LinksBody((Link(1, 3),)))
    assert topology.around(2) is None


def star(own: int, spokes: int) -> Topology:
    """Node 1 is linked with so many, and has room to tell only of the first."""
    topology = Topology(own)
    topology.tell(1, LinksBody(tuple(Link(node, 3) for node in range(2, 2 + bounds.MAX_LINKS))))
    for node in range(2, 2 + spokes):
        topology.tell(node, LinksBody((Link(1, 3),)))
    return topology


@pytest.mark.parametrize("own", [2, 80])
def test_who_has_more_links_than_it_can_tell_is_linked_with_all(own: int) -> None:
    topology = star(own, 80)
    assert len(topology.ways()) == 80
    assert topology.linked(1, 80)
    assert topology.linked(80, 1)
    assert not topology.linked(2, 80)


def test_who_has_more_links_than_it_can_tell_knows_its_own() -> None:
    topology = star(1, 80)
    topology.trust(set(range(2, 79)))
    assert topology.way(78) is not None
    assert topology.way(80) is None, "says that it is linked with us, and is not"
    topology.trust(set(range(2, 78)))
    assert topology.way(78) is None


@pytest.mark.parametrize("seed", range(40))
def test_what_can_be_reached_is_what_there_are_ways_to(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Links that one end tells or both, nodes that tell as many as they can, and neighbours that are not trusted."""
    monkeypatch.setattr(bounds, "MAX_LINKS", 4)
    rng = random.Random(seed)
    searched, asked = Topology(1), Topology(1)
    for node in range(1, 15):
        others = rng.sample([other for other in range(1, 15) if other != node], rng.randrange(5))
        body = LinksBody(tuple(Link(other, 3) for other in others))
        for topology in (searched, asked):
            topology.tell(node, body)
    if rng.random() < 0.7:
        trusted = set(rng.sample(range(2, 15), rng.randrange(8)))
        for topology in (searched, asked):
            topology.trust(trusted)
    assert searched.reached() == asked.ways().keys() == asked.reached()
