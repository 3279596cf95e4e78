"""Which node owns which prefix: announcements in, the messages that change the data plane's table out.

Law: accepted prefixes never overlap. Of two nodes that announce overlapping blocks the one with the higher register
version keeps it, else one that can be reached, else the lower node id, and both are told; who came first or restarted
last does not matter, so views agree and nothing flaps. This node's own blocks are always its own here: its pods are on
its bridge, whatever others say. A newer claim to a block that a register gave us is only reported (`against_own`): the
electors know who is right, a record does not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network
from itertools import pairwise
from typing import NamedTuple

from tunrouter.core import bounds, seam
from tunrouter.core.record import Block
from tunrouter.errors import ProtocolError


class Announced(NamedTuple):
    """A block as its owner announces it."""

    block: IPv4Network
    version: int = 0
    """Of the register that gave it to the node; 0 if the operator did."""


class Conflict(NamedTuple):
    """`loser`'s announcement of `block` is not routed, because `winner`'s overlaps it."""

    block: IPv4Network
    loser: int
    winner: int
    static: bool = True
    """The operator gave it to one of the two: no register will settle it."""


class Contest(NamedTuple):
    """`node` announces a block of ours with a newer version of the register than the one that gave it to us."""

    own: Announced
    node: int
    version: int


class Owner(NamedTuple):
    """Who announces a block with the newest version of its register."""

    node: int
    version: int


class _Claim(NamedTuple):
    first: int
    last: int
    node: int
    block: IPv4Network
    version: int


class Routes:
    """The ownership table of one node."""

    def __init__(self, network: IPv4Network, own: tuple[Announced, ...], own_id: int) -> None:
        self.range = network
        self.own = own
        """Our blocks of now; the first has the pods' gateway."""
        self.own_id = own_id
        self._announced: dict[int, tuple[Announced, ...]] = {}
        self._away: frozenset[int] = frozenset()
        self._accepted: list[_Claim] = []
        """In order of address."""
        self.conflicts: tuple[Conflict, ...] = ()
        self.contested: frozenset[int] = frozenset()
        """The nodes whose blocks overlap another's, whether they can be reached or not."""
        self.against_own: tuple[Contest, ...] = ()
        """Claims that may have taken blocks from us; the blocks stay ours until `possess` says otherwise."""
        self.changed: set[int] = set()
        """Nodes whose routed blocks the last change touched."""
        self._owners: dict[int, Owner] | None = None

    def start(self) -> list[seam.ToWorker]:
        return self._rebuild()

    def blocks(self, node: int) -> tuple[IPv4Network, ...]:
        return tuple(announced.block for announced in self._announced.get(node, ()))

    def announced(self) -> list[tuple[int, Announced]]:
        """Every announcement with its node, our own included, whether packets follow it or not."""
        own = [(self.own_id, announced) for announced in self.own]
        return own + [(node, one) for node, announced in self._announced.items() for one in announced]

    def routed(self, node: int) -> tuple[IPv4Network, ...]:
        """The blocks of `node` that packets follow: those it announces, without the ones it lost."""
        if node == self.own_id or node in self.contested:
            return tuple(claim.block for claim in self._accepted if claim.node == node)
        return self.blocks(node)

    def registered(self, node: int) -> bool:
        """Whether a register gave `node` a block, as far as it says."""
        return any(announced.version for announced in self._announced.get(node, ()))

    def place(self, block: IPv4Network) -> int:
        """Which of the equal blocks of the range it is, from 0."""
        return (int(block.network_address) - int(self.range.network_address)) >> (32 - block.prefixlen)

    def owners(self) -> Mapping[int, Owner]:
        """Of all blocks that registers gave to nodes, ours included, by place; read it, do not keep it."""
        if self._owners is None:
            self._owners = {}
            for node, announced in self.announced():
                self._put_owner(node, announced)
        return self._owners

    def _put_owner(self, node: int, announced: Announced) -> None:
        if self._owners is not None and announced.version:
            place, claim = self.place(announced.block), Owner(node, announced.version)
            before = self._owners.get(place, claim)
            self._owners[place] = min(before, claim, key=lambda owner: (-owner.version, owner.node))

    def possess(self, blocks: tuple[Announced, ...]) -> list[seam.ToWorker]:
        """Exactly `blocks` are ours from now on; returns what changes for the data plane."""
        self.changed = set()
        if self.own == blocks:
            return []
        before, self.own = self.own, blocks
        return self._replace(self.own_id, before, blocks)

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
        self._announced = {node: blocks for node, blocks in other._announced.items() if node != self.own_id}
        self._announced[other.own_id] = other.own
        self._accepted = list(other._accepted)
        self._owners = None

    def away(self, nodes: frozenset[int]) -> list[seam.ToWorker]:
        """Of the contested nodes these cannot be reached: what they lose is no conflict that anybody has to solve."""
        self.changed = set()
        if self._away == nodes:
            return []
        self._away = nodes
        return self._rebuild()

    def _replace(self, node: int, old: tuple[Announced, ...], blocks: tuple[Announced, ...]) -> list[seam.ToWorker]:
        """What almost always happens, nobody contests anything, costs no look at all the others."""
        before = sorted(_claim(node, announced) for announced in old)
        after = sorted(_claim(node, announced) for announced in blocks)
        alone = _alone(before) and _alone(after) and not any(self._contests(claim) for claim in after)
        if self.contested or not alone:
            self._owners = None
            return self._rebuild()
        for claim in before:
            del self._accepted[bisect_left(self._accepted, claim)]
            if self._owners is not None and claim.version:
                self._owners.pop(self.place(claim.block), None)
        for claim in after:
            insort(self._accepted, claim)
            self._put_owner(node, Announced(claim.block, claim.version))
        return self._changes(before, after)

    def _contests(self, claim: _Claim) -> bool:
        other = self._overlapping(claim)
        return other is not None and other.node != claim.node

    def _rebuild(self) -> list[seam.ToWorker]:
        before, self._accepted = self._accepted, []
        lost: list[tuple[_Claim, _Claim]] = []
        for claim in self._claims():
            winner = self._overlapping(claim)
            if winner is None:
                insort(self._accepted, claim)
            elif winner.node != claim.node:
                lost.append((claim, winner))
        self.contested = frozenset(claim.node for pair in lost for claim in pair)
        self.conflicts = tuple(
            Conflict(loser.block, loser.node, winner.node, not (loser.version and winner.version))
            for loser, winner in lost
            if loser.node not in self._away
        )
        self.against_own = tuple(
            Contest(Announced(winner.block, winner.version), loser.node, loser.version)
            for loser, winner in lost
            if winner.node == self.own_id and loser.version > winner.version > 0
        )
        return self._changes(before, self._accepted)

    def _changes(self, before: Iterable[_Claim], after: Iterable[_Claim]) -> list[seam.ToWorker]:
        """Where only the version is another, nothing changes for packets."""
        old, new = {_route(claim) for claim in before}, {_route(claim) for claim in after}
        self.changed = {node for node, _ in old ^ new}
        gone: list[seam.ToWorker] = [seam.Unroute(*_key(block)) for _, block in _in_order(old - new)]
        return gone + [seam.Route(*_key(block), self._seam_id(node)) for node, block in _in_order(new - old)]

    def _claims(self) -> list[_Claim]:
        """All claims, the strongest first."""
        others = [_claim(node, one) for node, announced in self._announced.items() for one in announced]
        others.sort(key=lambda claim: (-claim.version, claim.node in self._away, claim.node, claim))
        return [*(_claim(self.own_id, announced) for announced in self.own), *others]

    def _overlapping(self, claim: _Claim) -> _Claim | None:
        at = bisect_right(self._accepted, claim.last, key=lambda c: c.first)
        if at > bisect_left(self._accepted, claim.first, key=lambda c: c.last):
            return self._accepted[at - 1]
        return None

    def _seam_id(self, node: int) -> int:
        return seam.SELF if node == self.own_id else node


@lru_cache(2 * bounds.MAX_PEERS)
def _claim(node: int, announced: Announced) -> _Claim:
    block, version = announced
    return _Claim(int(block.network_address), int(block.broadcast_address), node, block, version)


def _alone(claims: Sequence[_Claim]) -> bool:
    """None of these, in order of address, overlaps another."""
    return all(one.last < other.first for one, other in pairwise(claims))


def _route(claim: _Claim) -> tuple[int, IPv4Network]:
    return claim.node, claim.block


def _in_order(routes: Iterable[tuple[int, IPv4Network]]) -> list[tuple[int, IPv4Network]]:
    return sorted(routes, key=lambda route: (route[1], route[0]))


def _key(block: IPv4Network) -> tuple[bytes, int]:
    return block.network_address.packed, block.prefixlen


@lru_cache(2 * bounds.MAX_PEERS)
def parse_blocks(blocks: tuple[Block, ...], network: IPv4Network, length: int) -> tuple[Announced, ...]:
    """What a peer announced. Raises ProtocolError for anything that is no block of `network`.

    Blocks are equal: all have `length`. Otherwise a sliver of a block would cost its owner the whole of it.
    """
    parsed = tuple(Announced(IPv4Network(block.network), block.version) for block in blocks)
    if not all(announced.block.subnet_of(network) for announced in parsed):
        raise ProtocolError(f"announces a block outside the range {network}; give all nodes the same --ipalloc-range")
    if any(announced.block.prefixlen != length for announced in parsed):
        raise ProtocolError(f"announces a block that is no /{length}; give all nodes blocks of one size")
    return parsed
