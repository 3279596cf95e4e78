"""What records mean together: whose routes count, and what it costs to find out, on one node without sessions."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import count
from random import Random

import pytest

from tests.core.villages import local
from tunrouter.core import bounds, record, wire
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox
from tunrouter.core.record import Block, BlocksBody, Body, Link, LinksBody, Record
from tunrouter.core.routes import Routes
from tunrouter.core.topology import Topology

RANGE = IPv4Network("10.32.0.0/12")
NEIGHBOUR = 500
"""Seed of the one that tells everything."""


class Lab:
    """One node that hears what it hears from one neighbour."""

    def __init__(self, seed: int = 1) -> None:
        self.local = local(seed)
        self.id = self.local.id
        self.out = Outbox()
        self.said: list[tuple[int, wire.GossipBody]] = []
        self.routes = Routes(RANGE, self.local.blocks, self.id)
        self.mesh = Mesh(self.local, self.routes, self.out, lambda node, body: self.said.append((node, body)))
        self.neighbour = local(NEIGHBOUR).id
        self.now = 100.0
        self._numbers = count(1)
        self.mesh.start(self.now)
        self.mesh.link({self.neighbour: 0.01}, self.now)
        self.run(3)

    def hear(self, *records: Record) -> None:
        for one in records:
            self.mesh.hear(self.neighbour, wire.Records((), next(self._numbers), (one.data,)), self.now)
            self.mesh.tick(self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (at := self.mesh.deadline) <= end:
            self.now = max(at, self.now)
            self.mesh.tick(self.now)
        self.now = end

    def routed(self) -> set[tuple[str, int]]:
        """All that packets follow, but for what is this node's own."""
        return {(str(claim.block), claim.node) for claim in self.routes._accepted if claim.node != self.id}


def word(seed: int, sequence: int, body: Body) -> Record:
    return record.write(local(seed).identity, 1, sequence, body)


def blocks(*numbers: int) -> BlocksBody:
    return BlocksBody(tuple(Block(f"10.40.{number}.0/24", 0) for number in numbers))


def links(*nodes: int) -> LinksBody:
    return LinksBody(tuple(Link(node, 3) for node in nodes))


def test_news_of_links_costs_no_search_each_while_a_block_is_contested(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    lab.hear(word(2, 1, blocks(7)), word(3, 1, blocks(7)))
    lab.run(2)
    searches: list[None] = []
    search = Topology._dijkstra

    def counted(topology: Topology, without: int = 0, until: int = 0) -> object:
        searches.append(None)
        return search(topology, without, until)

    monkeypatch.setattr(Topology, "_dijkstra", counted)
    for sequence in range(2, 102):
        lab.hear(word(1000 + sequence, sequence, links(lab.id, sequence)))
    assert len(searches) <= 1
    lab.run(bounds.WEIGH_PAUSE_SECONDS)
    assert 1 <= len(searches) <= 2


def test_all_orders_of_all_words_lead_to_the_same_routes_on_every_node() -> None:
    """Four claim three blocks in several versions of their word, one of them is not there; five nodes hear that."""
    for seed in range(12):
        rng = Random(seed)
        words = [
            word(author, sequence, blocks(*rng.sample(range(4), rng.randint(0, 3))))
            for author in range(2, 7)
            for sequence in range(1, 4)
        ]
        labs = [Lab(observer) for observer in range(10, 15)]
        here = [lab.id for lab in labs] + [local(author).id for author in range(3, 7)]
        hub = word(NEIGHBOUR, 1, links(*here))
        spokes = [word(author, 9, links(local(NEIGHBOUR).id)) for author in range(3, 7)]
        for lab in labs:
            heard = [*words, hub, *spokes]
            rng.shuffle(heard)
            lab.hear(*heard, *rng.sample(heard, 5))
            lab.run(2 * bounds.WEIGH_PAUSE_SECONDS)
        assert len({frozenset(lab.routed()) for lab in labs}) == 1, f"seed {seed}"
        assert len({lab.routes.conflicts for lab in labs}) == 1, f"seed {seed}"


def test_strangers_that_come_in_crowds_do_not_crowd_out_the_links_that_a_node_wants() -> None:
    """Anybody may link himself with us, and find keys whose ids come first."""
    lab = Lab()
    wanted = {1 << 63 | number: 0.01 for number in range(8)}
    before = {1 << 62 | number: 0.01 for number in range(10)}
    lab.mesh.link(wanted | before, lab.now)
    lab.run(5)
    lab.mesh.link(wanted | before | dict.fromkeys(range(1, 200), 0.01), lab.now)
    lab.run(5)
    told = {link.node for link in lab.mesh.links(lab.id)}
    assert len(told) == bounds.MAX_LINKS
    assert wanted.keys() <= told
    assert before.keys() <= told


def test_peers_that_see_a_node_in_ever_new_places_do_not_make_it_talk_without_end() -> None:
    lab = Lab()
    lab.run(bounds.NODE_PAUSE_SECONDS)

    said: list[Record | None] = [lab.mesh.gossip.replica.get(lab.id, record.NODE)]

    def heard(seconds: float) -> int:
        """How many records of where it is the node has made."""
        lab.run(seconds)
        own = lab.mesh.gossip.replica.get(lab.id, record.NODE)
        if own is not said[-1]:
            said.append(own)
        return len(said)

    for port in range(1000, 1100):
        seen = wire.Introduction("n500", b"", keep=True, seen=("192.0.2.9", port))
        lab.mesh.introduce(lab.neighbour, seen, lab.now)
        heard(0.01)
    assert heard(0) == 2, "the first is told at once"
    assert heard(bounds.NODE_PAUSE_SECONDS) == 3
    assert ("192.0.2.9", 1099) in lab.mesh.endpoints(lab.id), "and the newest in the end"


def test_a_block_that_is_known_to_be_anothers_is_not_routed_to_who_claims_it() -> None:
    """Until those who know say otherwise, which is asked again when they tell so."""
    lab = Lab()
    liar = local(7)
    holders = {(liar.id, 5): False}
    lab.mesh.allows = lambda node, place, version: holders.get((node, place), True)
    lab.hear(word(7, 1, BlocksBody((Block("10.32.5.0/24", 1 << 60), Block("10.32.6.0/24", 1)))))
    assert lab.routed() == {("10.32.6.0/24", liar.id)}
    assert lab.out.counters["blocks_not_leased"] == 1
    holders.clear()
    lab.mesh.reconsider(5, set())
    assert lab.routed() == {("10.32.5.0/24", liar.id), ("10.32.6.0/24", liar.id)}
