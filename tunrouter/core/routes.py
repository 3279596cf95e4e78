"""Which node owns which prefix: announcements in, the messages that change the data plane's table out.

Law: accepted prefixes never overlap. Of two nodes that announce overlapping blocks the one with the higher register
version keeps it, else one that can be reached, else the lower node id, and both are told; who came first or restarted
last does not matter, so views agree and nothing flaps. This node's own block is always its own here: its pods are on
its bridge, whatever others say.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from functools import lru_cache
from ipaddress import IPv4Network
from itertools import pairwise
from typing import NamedTuple

from tunrouter.core import bounds, seam
from tunrouter.core.record import Block
from tunrouter.errors import ProtocolError


class Conflict(NamedTuple):
    """`loser`'s announcement of `block` is not routed, because `winner`'s overlaps it."""

    block: IPv4Network
    loser: int
    winner: int


class Announced(NamedTuple):
    """A block as its owner announces it."""

    block: IPv4Network
    version: int = 0
    """Of the register that gave it to the node; 0 if the operator did."""


class _Claim(NamedTuple):
    first: int
    last: int
    node: int
    block: IPv4Network


class Routes:
    """The ownership table of one node."""

    def __init__(self, network: IPv4Network, own: tuple[IPv4Network, ...], own_id: int) -> None:
        self.range = network
        self.own = own
        self.own_id = own_id
        self._announced: dict[int, tuple[Announced, ...]] = {}
        self._away: frozenset[int] = frozenset()
        self._accepted: list[_Claim] = []
        """In order of address."""
        self.conflicts: tuple[Conflict, ...] = ()
        self.contested: frozenset[int] = frozenset()
        """The nodes whose blocks overlap another's, whether they can be reached or not."""
        self.changed: set[int] = set()
        """Nodes whose routed blocks the last change touched."""

    def start(self) -> list[seam.ToWorker]:
        return self._rebuild()

    def blocks(self, node: int) -> tuple[IPv4Network, ...]:
        return tuple(announced.block for announced in self._announced.get(node, ()))

    def announced(self) -> list[tuple[int, Announced]]:
        """Every announcement with its node, our own included, whether packets follow it or not."""
        own = [(self.own_id, Announced(block)) for block in self.own]
        return own + [(node, one) for node, announced in self._announced.items() for one in announced]

    def routed(self, node: int) -> tuple[IPv4Network, ...]:
        """The blocks of `node` that packets follow: those it announces, without the ones it lost."""
        if node == self.own_id or node in self.contested:
            return tuple(claim.block for claim in self._accepted if claim.node == node)
        return self.blocks(node)

    def announce(self, node: int, blocks: tuple[Announced, ...]) -> list[seam.ToWorker]:
        """`node` owns exactly `blocks` from now on; returns what changes for the data plane."""
        self.changed = set()
        if self._announced.get(node, ()) == blocks:
            return []
        before = self._announced.get(node, ())
        self._announced[node] = blocks
        return self._replace(node, before, blocks)

    def withdraw(self, node: int) -> list[seam.ToWorker]:
        self.changed = set()
        before = self._announced.pop(node, ())
        return self._replace(node, before, ()) if before else []

    def resume(self, other: Routes) -> None:
        """For simulations: knows what another node knows, which nobody contests."""
        own = tuple(Announced(block) for block in other.own)
        self._announced = {node: blocks for node, blocks in other._announced.items() if node != self.own_id}
        self._announced[other.own_id] = own
        self._accepted = list(other._accepted)

    def away(self, nodes: frozenset[int]) -> list[seam.ToWorker]:
        """Of the contested nodes these cannot be reached: what they lose is no conflict that anybody has to solve."""
        self.changed = set()
        if self._away == nodes:
            return []
        self._away = nodes
        return self._rebuild()

    def _replace(self, node: int, old: tuple[Announced, ...], blocks: tuple[Announced, ...]) -> list[seam.ToWorker]:
        """What almost always happens, nobody contests anything, costs no look at all the others."""
        before = [_claim(node, announced.block) for announced in old]
        after = sorted(_claim(node, announced.block) for announced in blocks)
        alone = all(one.last < other.first for one, other in pairwise(after))
        if self.contested or not alone or any(self._contests(claim) for claim in after):
            return self._rebuild()
        for claim in before:
            del self._accepted[bisect_left(self._accepted, claim)]
        for claim in after:
            insort(self._accepted, claim)
        return self._changes(set(before), set(after))

    def _contests(self, claim: _Claim) -> bool:
        other = self._overlapping(claim)
        return other is not None and other.node != claim.node

    def _rebuild(self) -> list[seam.ToWorker]:
        before = set(self._accepted)
        self._accepted, conflicts = [], []
        for claim in self._claims():
            winner = self._overlapping(claim)
            if winner is None:
                insort(self._accepted, claim)
            elif winner.node != claim.node:
                conflicts.append(Conflict(claim.block, claim.node, winner.node))
        self.contested = frozenset(node for conflict in conflicts for node in (conflict.loser, conflict.winner))
        self.conflicts = tuple(conflict for conflict in conflicts if conflict.loser not in self._away)
        return self._changes(before, set(self._accepted))

    def _changes(self, before: set[_Claim], after: set[_Claim]) -> list[seam.ToWorker]:
        self.changed = {claim.node for claim in before ^ after}
        gone: list[seam.ToWorker] = [seam.Unroute(*_key(c)) for c in sorted(before - after)]
        return gone + [seam.Route(*_key(c), self._seam_id(c.node)) for c in sorted(after - before)]

    def _claims(self) -> list[_Claim]:
        """All claims, the strongest first."""
        others = [
            (-version, node in self._away, _claim(node, block))
            for node, announced in self._announced.items()
            for block, version in announced
        ]
        others.sort(key=lambda entry: (*entry[:2], entry[2].node, entry[2]))
        return [*(_claim(self.own_id, block) for block in self.own), *(claim for _, _, claim in others)]

    def _overlapping(self, claim: _Claim) -> _Claim | None:
        at = bisect_right(self._accepted, claim.last, key=lambda c: c.first)
        if at > bisect_left(self._accepted, claim.first, key=lambda c: c.last):
            return self._accepted[at - 1]
        return None

    def _seam_id(self, node: int) -> int:
        return seam.SELF if node == self.own_id else node


@lru_cache(2 * bounds.MAX_PEERS)
def _claim(node: int, block: IPv4Network) -> _Claim:
    return _Claim(int(block.network_address), int(block.broadcast_address), node, block)


def _key(claim: _Claim) -> tuple[bytes, int]:
    return claim.block.network_address.packed, claim.block.prefixlen


@lru_cache(2 * bounds.MAX_PEERS)
def parse_blocks(blocks: tuple[Block, ...], network: IPv4Network, length: int) -> tuple[Announced, ...]:
    """What a peer announced. Raises ProtocolError for anything that is no block of `network`.

    Blocks are equal: all have `length`. Otherwise a sliver of a block would cost its owner the whole of it.
    """
    parsed = tuple(Announced(IPv4Network(block.network), block.version) for block in blocks)
    if not all(announced.block.subnet_of(network) for announced in parsed):
        raise ProtocolError(f"a block outside the range {network}; give all nodes the same --ipalloc-range")
    if any(announced.block.prefixlen != length for announced in parsed):
        raise ProtocolError(f"a block that is no /{length}; give all nodes blocks of one size")
    return parsed
