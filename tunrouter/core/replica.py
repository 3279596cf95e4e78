"""The records of all nodes as this one knows them, and the digests that find out where two replicas differ.

Law: merging is commutative, associative and idempotent, for the greater version wins whatever came first: replicas that
have seen the same records are equal. A merge returns what was new, and only that is ever passed on. The signature is
looked at last, after everything that costs less.

Digests are sums of the records' digests (modulo 2⁶⁴) over ranges of node ids: 64 groups, each of 64 leaves. Two
replicas agree on a range if their sums do.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple

from tunrouter.core import bounds
from tunrouter.core.record import KINDS, Body, Record, genuine, record_key

GROUPS: Final = 64
LEAVES: Final = 64
"""In a group."""
_LEAF_SHIFT: Final = 64 - 12
_MASK: Final = (1 << 64) - 1
LAST: Final = _MASK
"""The greatest node id."""


class Verdict(Enum):
    """What became of a record."""

    NEW = "new"
    SAME = "same"
    OLD = "old"
    """We have a newer one, which the sender should have."""
    FORGED = "forged"
    BURIED = "buried"
    FULL = "full"


class Entry(NamedTuple):
    """What one replica says it has."""

    key: int
    incarnation: int
    sequence: int
    digest: int

    @property
    def version(self) -> tuple[int, int, int]:
        return self.incarnation, self.sequence, self.digest


class Replica:
    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._nodes: list[int] = []
        """Ids of all nodes, ascending."""
        self._sums = array("Q", bytes(8 * GROUPS * LEAVES))
        self._buried: dict[int, int] = {}
        """Nodes that were erased, with the incarnation whose records are not taken any more."""

    # --- merging -----------------------------------------------------------------------------------------------------
    def judge(self, record: Record) -> Verdict:
        """What `merge` would say, but for the signature."""
        mine = self._records.get(record.key)
        if mine is not None:
            if mine.version == record.version:
                return Verdict.SAME
            return Verdict.NEW if record.version > mine.version else Verdict.OLD
        if record.incarnation <= self._buried.get(record.node, -1):
            return Verdict.BURIED
        if len(self._nodes) >= bounds.MAX_PEERS and not self.knows(record.node):
            return Verdict.FULL
        return Verdict.NEW

    def merge(self, record: Record) -> Verdict:
        verdict = self.judge(record)
        if verdict is not Verdict.NEW:
            return verdict
        if not genuine(record):
            return Verdict.FORGED
        self.put(record)
        return Verdict.NEW

    def put(self, record: Record) -> None:
        """A record that is known to be genuine and newer than ours."""
        if not self.knows(record.node):
            insort(self._nodes, record.node)
            self._buried.pop(record.node, None)
        before = self._records.get(record.key)
        self._records[record.key] = record
        self._add(record.node, record.digest - (before.digest if before is not None else 0))

    def resume(self, other: Replica) -> None:
        """For simulations: a copy of another one."""
        self._records, self._nodes, self._sums = dict(other._records), list(other._nodes), other._sums[:]

    def erase(self, node: int) -> None:
        """Forgets all of `node`; a life of it that is not newer than what was known does not come back."""
        records = list(self.of(node))
        if not records:
            return
        for record in records:
            del self._records[record.key]
            self._add(node, -record.digest)
        del self._nodes[bisect_left(self._nodes, node)]
        self._buried[node] = max(record.incarnation for record in records)
        while len(self._buried) > bounds.MAX_PEERS:
            del self._buried[next(iter(self._buried))]

    def _add(self, node: int, digest: int) -> None:
        leaf = node >> _LEAF_SHIFT
        self._sums[leaf] = (self._sums[leaf] + digest) & _MASK

    # --- looking things up -------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    @property
    def nodes(self) -> tuple[int, ...]:
        """Ids, ascending."""
        return tuple(self._nodes)

    @property
    def full(self) -> bool:
        return len(self._nodes) >= bounds.MAX_PEERS

    def knows(self, node: int) -> bool:
        at = bisect_left(self._nodes, node)
        return at < len(self._nodes) and self._nodes[at] == node

    def get(self, node: int, kind: int) -> Record | None:
        return self._records.get(record_key(node, kind))

    def body(self, node: int, kind: int) -> Body | None:
        record = self._records.get(record_key(node, kind))
        return record.body if record is not None else None

    def newest(self, key: int) -> Record | None:
        return self._records.get(key)

    def of(self, node: int) -> Iterator[Record]:
        for kind in range(1, KINDS):
            record = self._records.get(record_key(node, kind))
            if record is not None:
                yield record

    def within(self, first: int, last: int) -> Iterator[Record]:
        """Records of the nodes with ids from `first` to `last`, in ascending order."""
        at = bisect_left(self._nodes, first)
        for node in islice(self._nodes, at, None):
            if node > last:
                return
            yield from self.of(node)

    # --- digests -----------------------------------------------------------------------------------------------------
    @property
    def digest(self) -> int:
        """Of everything."""
        return sum(self._sums) & _MASK

    def groups(self) -> tuple[int, ...]:
        sums = self._sums
        return tuple(sum(sums[at : at + LEAVES]) & _MASK for at in range(0, GROUPS * LEAVES, LEAVES))

    def leaves(self, group: int) -> tuple[int, ...]:
        return tuple(self._sums[group * LEAVES : (group + 1) * LEAVES])

    def entries(self, first: int, last: int) -> Iterator[Entry]:
        for record in self.within(first, last):
            yield Entry(record.key, record.incarnation, record.sequence, record.digest)

    def compare(self, first: int, last: int, theirs: Iterable[Entry]) -> tuple[list[Record], bool, int]:
        """Against all that another replica has in a range: what it lacks, whether we lack any, how many we have."""
        there = {entry.key: entry.version for entry in theirs}
        ours = {record.key: record for record in self.within(first, last)}
        newer = [record for key, record in ours.items() if record.version > there.get(key, (-1, 0, 0))]
        behind = any(key not in ours or ours[key].version < version for key, version in there.items())
        return newer, behind, len(ours)


def group_range(group: int) -> tuple[int, int]:
    """First and last node id of a group."""
    return group << (_LEAF_SHIFT + 6), ((group + 1) << (_LEAF_SHIFT + 6)) - 1


def leaf_range(group: int, leaf: int) -> tuple[int, int]:
    number = group * LEAVES + leaf
    return number << _LEAF_SHIFT, ((number + 1) << _LEAF_SHIFT) - 1
