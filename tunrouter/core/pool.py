"""The addresses of one block: each is reserved, held, resting, rested, or was never used.

    never used ──> held ──> resting (a minute) ──> rested ──> held …

Law: who was never used goes first, then who rested longest; so an address comes back as late as it can. Of those that
were never used only the gaps cost memory, and of those that rested only the last `MAX_RESTED` are remembered: the one
beyond counts as never used, and its turn comes when the others' has come. The network's and the broadcast address are
nobody's, nor is the first usable one, which is the pods' gateway in whichever block carries it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import takewhile
from typing import NamedTuple

from tunrouter.core import bounds
from tunrouter.core.runs import Runs
from tunrouter.core.timetable import NEVER


class Lease(NamedTuple):
    address: IPv4Address
    container: str
    interface: str
    pod: str = ""
    """What outlives the container, if its runtime said so (`keepers.py`)."""


class Pool:
    """Addresses are whole numbers here."""

    def __init__(self, network: IPv4Network, gateway: IPv4Address | None) -> None:
        self.network = network
        self.first, self.last = int(network.network_address), int(network.broadcast_address)
        self.open = True
        """Whether it gives addresses."""
        self.rests_until: float | None = None
        """Of the block as a whole, which another node had: holds for those that were never used."""
        self.held: dict[int, Lease] = {}
        self._resting: OrderedDict[int, tuple[int, float]] = OrderedDict()
        """The release's number, and until when; the earliest first."""
        self._rested: OrderedDict[int, int] = OrderedDict()
        """The release's number; the earliest first."""
        self._unused = Runs(self.first + 2, self.last - 1)
        self._turn = self.first
        if gateway is not None and int(gateway) in self._unused:
            self._unused.remove(int(gateway))

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last

    def is_unused(self, number: int) -> bool:
        return number in self._unused

    def is_reserved(self, number: int) -> bool:
        return not (number in self.held or number in self._resting or number in self._rested or number in self._unused)

    def hold(self, lease: Lease) -> None:
        """Whatever the address was before."""
        number = int(lease.address)
        if number in self._unused:
            self._unused.remove(number)
        self._resting.pop(number, None)
        self._rested.pop(number, None)
        self.held[number] = lease

    def rest(self, number: int, order: int, until: float) -> None:
        """No longer held, or never since this life began. Both `order` and `until` only grow."""
        if self.held.pop(number, None) is None:
            self._unused.remove(number)
        self._resting[number] = order, until

    def wake(self, now: float) -> list[int]:
        """Those whose rest is over; returns who need not be remembered any more."""
        forgotten = []
        if self.rests_until is not None and self.rests_until <= now:
            self.rests_until = None
            forgotten.append(self.first)
        while self._resting and next(iter(self._resting.values()))[1] <= now:
            number, (order, _) = self._resting.popitem(last=False)
            self._rested[number] = order
            if len(self._rested) > bounds.MAX_RESTED:
                oldest, _ = self._rested.popitem(last=False)
                self._unused.add(oldest)
                forgotten.append(oldest)
        return forgotten

    def next_unused(self) -> int | None:
        """From where the last one was taken, so that one that was forgotten waits for the others."""
        if not self._unused or self.rests_until is not None:
            return None
        number = self._unused.next(self._turn)
        self._turn = number + 1
        return number

    @property
    def oldest_rested(self) -> tuple[int, int] | None:
        """The release's number and the address."""
        return next(((order, number) for number, order in self._rested.items()), None)

    def rested_at(self, number: int) -> float | None:
        """None if it does not rest."""
        if number in self._resting:
            return self._resting[number][1]
        return self.rests_until if number in self._unused else None

    @property
    def deadline(self) -> float:
        """When the next one has rested."""
        earliest = next((until for _, until in self._resting.values()), NEVER)
        return earliest if self.rests_until is None else min(earliest, self.rests_until)

    def free(self, now: float) -> int:
        woken = sum(1 for _ in takewhile(lambda entry: entry[1] <= now, self._resting.values()))
        unused = 0 if self.rests_until is not None and self.rests_until > now else len(self._unused)
        return unused + len(self._rested) + woken

    @property
    def resting(self) -> int:
        return len(self._resting) + (0 if self.rests_until is None else len(self._unused))

    def remembered(self) -> Iterator[int]:
        """Whatever has a row of its own; the network's address stands for the block as a whole."""
        yield from self.held
        yield from self._resting
        yield from self._rested
        if self.rests_until is not None:
            yield self.first
