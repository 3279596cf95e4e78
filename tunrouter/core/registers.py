"""Compare-and-set registers as one elector has them: what it has promised, what it has accepted, and what it answers.

    a proposer ── Prepare(ballot) ──> promises, with what was accepted ──> Accept(ballot, value) ──> accepted

Law: CASPaxos (Rystsov, arXiv 1802.07000). A value is chosen once a majority has accepted it under one ballot. What an
elector answers is on its disk before. It serves one epoch of electors; with the register that names the next epoch's it
freezes: from then on this epoch's registers change no more (final rounds only settle what is undecided). A ballot
begins with its epoch, so nothing of an earlier epoch outbids anything of a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from tunrouter.core import bounds
from tunrouter.core.journal import Journal, RegisterRow

BLOCK: Final = 1
"""Kind of the registers that say who holds a block; the number is its place in the range."""
ELECTORS: Final = 2
"""Kind of the register that says who are the electors of the epoch after `number`."""
PAGE: Final = 16
"""Registers in one message."""


class Name(NamedTuple):
    kind: int
    number: int


class Ballot(NamedTuple):
    epoch: int
    round: int
    proposer: int
    """Random, of one life of one node: no two proposers ever use the same ballot."""


NOTHING: Final = Ballot(0, 0, 0)


class Value(NamedTuple):
    version: int
    """Grows by one with each change; 0 was never written."""
    holder: int
    """Node id; 0 is nobody."""
    data: bytes = b""


EMPTY: Final = Value(0, 0)


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One register in a message: its name, a ballot, a value."""

    name: Name
    ballot: Ballot = NOTHING
    value: Value = EMPTY


class Entry(NamedTuple):
    promised: Ballot
    accepted: Ballot
    value: Value


BLANK: Final = Entry(NOTHING, NOTHING, EMPTY)


class Verdict:
    """What became of a request, as a number in the answer."""

    DONE: Final = 0
    OUTBID: Final = 1
    """A higher ballot was promised: `round` is its round."""
    FROZEN: Final = 2
    """The next epoch is being prepared: ask again soon."""
    ELSEWHERE: Final = 3
    """Not an elector of that epoch, of that cluster, or not at all."""


class Registers:
    """The table of one elector, without a view of who asks; `frozen` follows from what it has accepted."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._entries: dict[Name, Entry] = {}
        self.epoch = 0

    def restore(self, rows: Iterable[RegisterRow], epoch: int) -> None:
        self.epoch = epoch
        for row in rows:
            value, accepted = Value(row.version, row.holder, row.data), Ballot(*row.accepted)
            promised = accepted if row.promised == accepted else Ballot(*row.promised)
            self._entries[Name(row.kind, row.number)] = Entry(promised, accepted, value)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def frozen(self) -> bool:
        return self._entries.get(Name(ELECTORS, self.epoch), BLANK).accepted != NOTHING

    def _closed(self, names: Iterable[Name], *, final: bool) -> bool:
        return self.frozen and not final and any(name.kind != ELECTORS for name in names)

    def _outbid(self, ballot: Ballot, names: Iterable[Name]) -> int:
        """The highest round promised to others above `ballot`; 0 if there is none."""
        promised = (self._entries.get(name, BLANK).promised for name in names)
        return max((other.round for other in promised if other > ballot), default=0)

    # --- the two phases ----------------------------------------------------------------------------------------------
    def prepare(self, ballot: Ballot, names: Iterable[Name], *, final: bool) -> tuple[int, int, tuple[Item, ...]]:
        """Verdict, round and what was accepted. All names or none."""
        names = tuple(names)
        if self._closed(names, final=final):
            return Verdict.FROZEN, 0, ()
        if higher := self._outbid(ballot, names):
            return Verdict.OUTBID, higher, ()
        for name in names:
            entry = self._entries.get(name, BLANK)
            if entry.promised != ballot:
                self._set(name, entry._replace(promised=ballot))
        return Verdict.DONE, ballot.round, tuple(map(self._item, names))

    def accept(self, ballot: Ballot, items: Iterable[Item], *, final: bool) -> tuple[int, int]:
        """Verdict and round."""
        items = tuple(items)
        names = [item.name for item in items]
        if self._closed(names, final=final):
            return Verdict.FROZEN, 0
        if higher := self._outbid(ballot, names):
            return Verdict.OUTBID, higher
        for item in items:
            entry = Entry(ballot, ballot, item.value)
            if self._entries.get(item.name) != entry:
                self._set(item.name, entry)
        return Verdict.DONE, ballot.round

    def _set(self, name: Name, entry: Entry) -> None:
        self._entries[name] = entry
        self._journal.put(_row(name, entry))

    # --- looking things up -------------------------------------------------------------------------------------------
    def _item(self, name: Name) -> Item:
        entry = self._entries.get(name, BLANK)
        return Item(name, entry.accepted, entry.value)

    def read(self, names: Iterable[Name]) -> tuple[Item, ...]:
        return tuple(map(self._item, names))

    def page(self, after: Name, wanted: Callable[[Value], bool]) -> tuple[Item, ...]:
        """The next registers with an accepted value, in order of their names; fewer than `PAGE` are the last."""
        names = sorted(name for name, entry in self._entries.items() if name > after and wanted(entry.value))
        found = (self._item(name) for name in names)
        return tuple(item for item in found if item.ballot != NOTHING)[:PAGE]

    def held(self) -> Iterator[Item]:
        """All registers of blocks with an accepted value."""
        return (self._item(name) for name in self._entries if name.kind == BLOCK)

    # --- another epoch -----------------------------------------------------------------------------------------------
    def become(self, epoch: int, items: Iterable[Item]) -> None:
        """An elector of this epoch from now on, whose registers begin with these values and nothing else."""
        before = set(self._entries)
        self._entries, self.epoch = {}, epoch
        start = Ballot(epoch, 0, 0)
        for item in items:
            self._set(item.name, Entry(max(start, item.ballot), max(start, item.ballot), item.value))
        for name in before - self._entries.keys():
            self._journal.forget(_row(name, BLANK).key)

    def resign(self) -> None:
        """No elector any more."""
        self.become(0, ())


def digest(items: Iterable[Item]) -> int:
    """Of names and values, in any order: equal for those who have the same."""
    encode = msgspec.msgpack.encode
    sums = (blake2b(encode((item.name, item.value)), digest_size=8).digest() for item in items)
    return sum(int.from_bytes(one, "big") for one in sums) & (1 << 64) - 1


def _row(name: Name, entry: Entry) -> RegisterRow:
    promised, accepted, value = entry
    return RegisterRow(name.kind, name.number, promised, accepted, value.version, value.holder, value.data)


assert PAGE * 60 < bounds.MAX_CONTROL_BYTES
