"""Which node owns which block: announcements in, the messages that change the data plane's table out.

Law: blocks have one size, so two of them are the same or have nothing in common, and each has one owner. Of two nodes
that announce one block the one with the higher register version keeps it, else one that can be reached, else the lower
node id, and both are told; who came first or restarted last does not matter, so views agree and nothing flaps. This
node's own block is always its own here: its pods are on its bridge, whatever others say. A change is decided among
those who announce its blocks; it costs no look at anybody else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network
from typing import NamedTuple

from tunrouter.core import bounds, seam
from tunrouter.core.record import Block
from tunrouter.errors import ProtocolError


class Conflict(NamedTuple):
    """`loser`'s announcement of `block` is not routed, because it is `winner`'s."""

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
        self._losers: dict[IPv4Network, frozenset[int]] = {}
        """Of blocks that more than one announces, all but the owner."""
        self.changed: set[int] = set()
        """Nodes whose routed blocks the last change touched."""

    def start(self) -> list[seam.ToWorker]:
        return self._decide((self.own_id,), self.own)

    def blocks(self, node: int) -> tuple[IPv4Network, ...]:
        return tuple(announced.block for announced in self._announced.get(node, ()))

    def announced(self) -> list[tuple[int, Announced]]:
        """Every announcement with its node, our own included, whether packets follow it or not."""
        own = [(self.own_id, Announced(block)) for block in self.own]
        return own + [(node, one) for node, announced in self._announced.items() for one in announced]

    def routed(self, node: int) -> tuple[IPv4Network, ...]:
        """The blocks of `node` that packets follow: those it announces, without the ones it lost."""
        blocks = self.own if node == self.own_id else self.blocks(node)
        return tuple(block for block in blocks if node not in self._losers.get(block, ()))

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Those that somebody has to solve: who is not there loses nothing that it uses."""
        return tuple(c for block in sorted(self._losers) for c in self._conflicts(block))

    def conflicts_of(self, node: int) -> tuple[Conflict, ...]:
        """Those among them that `node` has part in."""
        contested = [block for block in self.blocks(node) if block in self._losers]
        return tuple(c for block in contested for c in self._conflicts(block) if node in (c.loser, c.winner))

    @property
    def contested(self) -> frozenset[int]:
        """The nodes whose blocks others announce as well, whether they can be reached or not."""
        return frozenset(node for block, losers in self._losers.items() for node in (*losers, self._owner(block)))

    def announce(self, node: int, blocks: tuple[Announced, ...]) -> list[seam.ToWorker]:
        """`node` owns exactly `blocks` from now on; returns what changes for the data plane."""
        before = self.blocks(node)
        self._announced[node] = blocks
        return self._decide((node,), (*before, *self.blocks(node)))

    def withdraw(self, node: int) -> list[seam.ToWorker]:
        before = self.blocks(node)
        self._announced.pop(node, None)
        return self._decide((node,), before)

    def resume(self, other: Routes) -> None:
        """For simulations: knows what another node knows, which nobody contests."""
        own = tuple(Announced(block) for block in other.own)
        self._announced = {node: blocks for node, blocks in other._announced.items() if node != self.own_id}
        self._announced[other.own_id] = own
        self._accepted = list(other._accepted)

    def away(self, nodes: frozenset[int]) -> list[seam.ToWorker]:
        """Of the contested nodes these cannot be reached: what they lose is no conflict that anybody has to solve."""
        moved, self._away = self._away ^ nodes, nodes
        return self._decide(moved, (block for node in moved for block in self.blocks(node)))

    def _decide(self, nodes: Iterable[int], blocks: Iterable[IPv4Network]) -> list[seam.ToWorker]:
        """Looks again at who owns `blocks`, of which something changed for `nodes`."""
        gone: list[seam.ToWorker] = []
        come: list[seam.ToWorker] = []
        self.changed = set()
        for block in sorted(set(blocks)):
            at, before = self._find(block)
            asked = {*nodes, *self._losers.pop(block, ()), *((before,) if before is not None else ())}
            ranks = sorted(rank for node in asked if (rank := self._rank(node, block)) is not None)
            owner = ranks[0][-1] if ranks else None
            if len(ranks) > 1:
                self._losers[block] = frozenset(rank[-1] for rank in ranks[1:])
            if owner == before:
                continue
            if before is not None:
                gone.append(seam.Unroute(*_key(block)))
            if owner is not None:
                come.append(seam.Route(*_key(block), self._seam_id(owner)))
            self._accepted[at : at + (before is not None)] = [_claim(owner, block)] if owner is not None else []
            self.changed |= {node for node in (before, owner) if node is not None}
        return gone + come

    def _rank(self, node: int, block: IPv4Network) -> tuple[bool, int, bool, int] | None:
        """Of those who announce `block` the one with the least owns it; None if `node` does not."""
        versions = [one.version for one in self._announced.get(node, ()) if one.block == block]
        if node == self.own_id:
            versions = [0] if block in self.own else []
        return (node != self.own_id, -max(versions), node in self._away, node) if versions else None

    def _find(self, block: IPv4Network) -> tuple[int, int | None]:
        """Where in `_accepted` it stands or belongs, and its owner."""
        first = int(block.network_address)
        at = bisect_left(self._accepted, first, key=lambda claim: claim.first)
        found = at < len(self._accepted) and self._accepted[at].first == first
        return at, self._accepted[at].node if found else None

    def _owner(self, block: IPv4Network) -> int:
        owner = self._find(block)[1]
        assert owner is not None, "who loses a block loses it to somebody"
        return owner

    def _conflicts(self, block: IPv4Network) -> list[Conflict]:
        owner = self._owner(block)
        return [Conflict(block, loser, owner) for loser in sorted(self._losers[block]) if loser not in self._away]

    def _seam_id(self, node: int) -> int:
        return seam.SELF if node == self.own_id else node


@lru_cache(2 * bounds.MAX_PEERS)
def _claim(node: int, block: IPv4Network) -> _Claim:
    return _Claim(int(block.network_address), node, block)


def _key(block: IPv4Network) -> tuple[bytes, int]:
    return block.network_address.packed, block.prefixlen


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
