"""Who is linked with whom, and by which neighbour the way to a node begins.

Law: a link counts if both ends say it: a one-way link is none. Who tells as many links as it can denies none by its
silence; there the other end's word counts, and for our own links what we know. The way is the shortest by Dijkstra's
algorithm (1959), where a link costs the longer of the round trips that its ends tell (as classes: small changes change
nothing, see record.py) and each further hop 5 ms. Of equal ways the one over lower node ids is taken, so that nodes
with equal views agree. The tree is only computed when somebody asks after a change: most changes concern nobody here.
And once for each change, however often somebody asks: members decide how often.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Set
from functools import lru_cache
from typing import Final, NamedTuple

from tunrouter.core import bounds
from tunrouter.core.record import LinksBody, class_seconds

HOP_SECONDS: Final = 0.005


@lru_cache(2 * bounds.MAX_PEERS)
def _table(links: LinksBody) -> Mapping[int, int]:
    """One for all who were told the same; not to be changed."""
    return {link.node: link.rtt for link in links.links}


class Way(NamedTuple):
    """How to reach a node."""

    neighbour: int
    """Where it begins."""
    hops: int
    seconds: float
    """Round trip and hops, as the algorithm counts them."""
    before: int
    """The last node on the way, this one where it has one step."""


class Topology:
    def __init__(self, own_id: int) -> None:
        self.own_id = own_id
        self.version = 0
        """Grows with each change."""
        self._told: dict[int, Mapping[int, int]] = {}
        """For each node its neighbours with the class of the round trip."""
        self._ways: dict[int, Way] | None = None
        self._reached: Set[int] | None = None
        self._around: dict[int, Way | None] = {}
        """The ways around neighbours, as far as somebody asked for them."""
        self._neighbours: Set[int] | None = None
        """The only links of ours that are used; None: all that were told."""

    def tell(self, node: int, links: LinksBody) -> None:
        """`node` says it is linked with exactly these."""
        told = _table(links)
        if self._told.get(node) != told:
            self._told[node] = told
            self._changed()

    def resume(self, other: Topology) -> None:
        """For simulations: knows what another node knows."""
        self._told = dict(other._told)
        self._changed()

    def forget(self, node: int) -> None:
        if self._told.pop(node, None):
            self._changed()

    def trust(self, neighbours: Set[int]) -> bool:
        """No others of our links are used now, whatever was told: we know better, and first. Whether that is news."""
        if neighbours == self._neighbours:
            return False
        self._neighbours = neighbours
        self._changed()
        return True

    def _changed(self) -> None:
        self._ways = self._reached = None
        self._around.clear()
        self.version += 1

    def __len__(self) -> int:
        """How many nodes have told their links."""
        return len(self._told)

    def linked(self, one: int, other: int) -> bool:
        ends = [(self._told.get(one, {}), other), (self._told.get(other, {}), one)]
        return all(node in told or _full(told) for told, node in ends) and any(node in told for told, node in ends)

    def degree(self, node: int) -> int:
        """How many links both ends say."""
        return sum(node in self._told.get(other, ()) for other in self._told.get(node, ()))

    def way(self, node: int) -> Way | None:
        """None if there is no way, or `node` is this one."""
        return self.ways().get(node)

    def around(self, node: int) -> Way | None:
        """The cheapest way that does not begin with the link to `node` itself."""
        way = self.way(node)
        if way is None or way.neighbour != node:
            return way
        if node not in self._around:
            self._around[node] = self._dijkstra(without=node, until=node).get(node)
        return self._around[node]

    def relays(self, node: int) -> tuple[int, ...]:
        """Who passes on what goes around to `node`, in order; empty without a way around."""
        way = self.way(node)
        if way is None:
            return ()
        ways = self._dijkstra(without=node, until=node) if way.neighbour == node else self.ways()
        found: list[int] = []
        while node in ways and ways[node].before != self.own_id:
            node = ways[node].before
            found.append(node)
        return tuple(reversed(found))

    def ways(self) -> dict[int, Way]:
        """To all that can be reached."""
        if self._ways is None:
            self._ways = self._dijkstra()
        return self._ways

    def reached(self) -> Set[int]:
        """All that can be reached, where nobody asks how: costs a fraction of the ways."""
        if self._ways is not None:
            return self._ways.keys()
        if self._reached is None:
            self._reached = self._search()
        return self._reached

    def _search(self) -> set[int]:
        told, own, silent = self._told, self.own_id, self._silent()
        seen, found = {own}, [own]
        while found:
            node = found.pop()
            for other in (told.get(node, {}).keys() | silent.get(node, {}).keys()) - seen:
                back = node in told.get(other, ()) or node in silent.get(other, ())
                if back and (node != own or self._trusts(other)):
                    seen.add(other)
                    found.append(other)
        return seen - {own}

    def _dijkstra(self, without: int = 0, until: int = 0) -> dict[int, Way]:
        """`without` our link with one, and only `until` one is found."""
        told, own, silent = self._told, self.own_id, self._silent()
        ways: dict[int, Way] = {}
        # Cost first, then hops, then the node before: the order that makes equal views choose alike.
        heap: list[tuple[float, int, int, int, int]] = [(0.0, 0, own, own, 0)]
        seen: set[int] = set()
        while heap:
            cost, hops, before, node, neighbour = heapq.heappop(heap)
            if node in seen:
                continue
            seen.add(node)
            if node != own:
                ways[node] = Way(neighbour, hops, cost, before)
            if node == until:
                break
            for other, rtt in {**told.get(node, {}), **silent.get(node, {})}.items():
                back = told.get(other, {}).get(node, silent.get(other, {}).get(node)) if other not in seen else None
                if back is None or (node == own and (other == without or not self._trusts(other))):
                    continue
                step = class_seconds(max(rtt, back)) + (HOP_SECONDS if hops else 0.0)
                heapq.heappush(heap, (cost + step, hops + 1, node, other, neighbour or other))
        return ways

    def _trusts(self, neighbour: int) -> bool:
        return self._neighbours is None or neighbour in self._neighbours

    def _silent(self) -> dict[int, dict[int, int]]:
        """For each node that tells as many links as it can those that only the other ends tell."""
        silent: dict[int, dict[int, int]] = {node: {} for node, told in self._told.items() if _full(told)}
        for node, told in self._told.items() if silent else ():
            for other in silent.keys() & told.keys():
                if node not in self._told[other] and (other != self.own_id or node in (self._neighbours or ())):
                    silent[other][node] = told[other]
        return silent


def _full(told: Mapping[int, int]) -> bool:
    return len(told) >= bounds.MAX_LINKS
