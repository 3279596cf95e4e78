"""Blocks as their node has them, and remembers them from one life to the next.

Law: the first block has the pods' gateway, so it is the first to be known and the last to go. A place is a block only
together with the range and the length of blocks that it was given under, so these are remembered with it. A block is
used, and others are told of it, only once it is on disk that it is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network
from typing import Final, NamedTuple

from tunrouter.core.addresses import Addresses
from tunrouter.core.journal import BlockRow, ClusterRow, Journal
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox
from tunrouter.core.pool import Lease
from tunrouter.core.routes import Announced

FIRST: Final = "first"
"""State of the block that has the pods' gateway: it is handed back last."""
HELD: Final = "held"
CLOSING: Final = "closing"
"""It is being handed back."""

CUT: Final = "cut"
"""Name of the row that says of which range the places are, and in blocks of which length."""


def cut(network: IPv4Network, length: int) -> ClusterRow:
    return ClusterRow(CUT, f"{network} {length}".encode())


def block_at(network: IPv4Network, length: int, place: int) -> IPv4Network:
    """The block of `length` bits at this place of the range."""
    return IPv4Network((int(network.network_address) + (place << (network.max_prefixlen - length)), length))


def kept(rows: Iterable[BlockRow], network: IPv4Network, length: int) -> list[BlockRow]:
    """What an earlier life has left, in the node's order. A place that the range has not is no block of it."""
    within = [row for row in rows if row.place < 1 << length - network.prefixlen]
    return sorted(within, key=lambda row: (row.state != FIRST, row.place))


class Own(NamedTuple):
    version: int
    state: str
    verified: bool
    """In this life."""


class Holdings:
    """`changed` is told which blocks others may know of: at once when one is lost, else when that is on disk."""

    def __init__(
        self,
        local: Local,
        addresses: Addresses,
        journal: Journal,
        out: Outbox,
        network: IPv4Network,
        changed: Callable[[tuple[Announced, ...], float], None],
    ) -> None:
        self.network = network
        self.own: dict[int, Own] = {}
        """By place in the range, the first one first."""
        self.busy: set[int] = set()
        """Registers that a round of ours is about."""
        self.reason = ""
        """Why there is no block yet, or none more."""
        self.lost: Callable[[tuple[Lease, ...]], None] = lambda leases: None
        """Is told of addresses that are in use here and another node's."""
        self.gained: Callable[[IPv4Network, float], None] = lambda block, now: None
        """Is told of a block that is ours now, before anything is given from it."""
        self._length = local.block_length
        self._addresses = addresses
        self._journal = journal
        self._out = out
        self._changed = changed

    def restore(self, rows: Iterable[BlockRow], now: float) -> None:
        for row in kept(rows, self.network, self._length):
            self.own[row.place] = Own(row.version, row.state, verified=False)
            self._addresses.add_block(self.block(row.place), now, rested=True)
            self._addresses.close(self.block(row.place))

    def block(self, place: int) -> IPv4Network:
        return block_at(self.network, self._length, place)

    @property
    def announced(self) -> tuple[Announced, ...]:
        """What is ours and not on its way back."""
        return tuple(
            Announced(self.block(place), own.version) for place, own in self.own.items() if own.state != CLOSING
        )

    def tell(self, now: float) -> None:
        self._changed(self.announced, now)

    def idle(self, place: int) -> bool:
        return not self._addresses.held_in(self.block(place))

    def needed(self, place: int) -> bool:
        """Pods live by it: by its addresses, or by the gateway that it gave them."""
        return not self.idle(place) or (self.own[place].state == FIRST and bool(self._addresses.used))

    # --- they come ---------------------------------------------------------------------------------------------------
    def gain(self, place: int, version: int, now: float, *, rested: bool) -> None:
        """The register is ours: on disk, and then in use."""
        if place in self.own:
            return
        first = not any(own.state == FIRST for own in self.own.values())
        self._journal.put(cut(self.network, self._length))
        self.put(place, Own(version, FIRST if first else HELD, verified=True))
        self._addresses.add_block(self.block(place), now, rested=rested)
        self._addresses.close(self.block(place))
        self.gained(self.block(place), now)
        self.busy.add(place)

        def use(now: float) -> None:
            self.busy.discard(place)
            if place in self.own and self.own[place].state != CLOSING:
                self.reason = ""
                self._addresses.open(self.block(place))
                self._out.log("info", f"block {place}", f"{self.block(place)} is this node's")
                self.tell(now)

        self._journal.then(use)

    def put(self, place: int, own: Own) -> None:
        self.own[place] = own
        self._journal.put(BlockRow(place, own.version, own.state))

    def confirm(self, place: int) -> None:
        """It is ours still: addresses are given from it."""
        own = self.own[place] = self.own[place]._replace(verified=True)
        self._journal.put(cut(self.network, self._length))
        if own.state != CLOSING:
            self.reason = ""
            self._addresses.open(self.block(place))

    def suspend(self, place: int) -> None:
        """Nothing new is given from it until it is confirmed."""
        self.own[place] = self.own[place]._replace(verified=False)
        self._addresses.close(self.block(place))

    # --- they go -----------------------------------------------------------------------------------------------------
    def lose(self, place: int, now: float) -> None:
        """It is another's: what is used of it here is cut off."""
        closing = self.own.pop(place).state == CLOSING
        self._journal.forget(BlockRow(place, 0, "").key)
        lost = self._addresses.drop_block(self.block(place))
        if closing and not lost:
            return
        self._out.count("blocks_lost")
        who = f"; {len(lost)} addresses of it were in use here and are cut off" if lost else ""
        self._out.log("error", f"block {place}", f"{self.block(place)} is not this node's any more{who}")
        self.tell(now)
        self.lost(lost)
        self._appoint()

    def forget(self, place: int) -> None:
        """It was handed back."""
        del self.own[place]
        self._journal.forget(BlockRow(place, 0, "").key)
        self._addresses.drop_block(self.block(place))
        self._appoint()

    def _appoint(self) -> None:
        """Some block is the first one, if there is any."""
        if any(own.state == FIRST for own in self.own.values()):
            return
        for place, own in self.own.items():
            if own.state == HELD:
                rest = {other: one for other, one in self.own.items() if other != place}
                self.own.clear()
                self.put(place, own._replace(state=FIRST))
                self.own.update(rest)
                return
