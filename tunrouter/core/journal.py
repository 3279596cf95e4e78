"""What must be on disk before anybody hears of it.

    a step ── put, forget ──> changes ──> Persist(number, …) ──> the agent's disk ──> durable(number) ──> what waited

Law: "a state change is durable before it is announced": whoever changes a row gives what depends on it to `then`, and
that happens only after the row, and all rows before it, have been committed. Rows are upserts under a key, so writing
one twice does no harm; an order is kept between steps, and all rows of a step become durable together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from tunrouter.core.pool import Lease

Action = Callable[[float], None]
"""Is given the time at which it happens."""


class RegisterRow(NamedTuple):
    """One register as this elector has it; ballots are (epoch, round, proposer), all 0 is none."""

    kind: int
    number: int
    promised: tuple[int, int, int]
    accepted: tuple[int, int, int]
    version: int
    holder: int
    data: bytes

    @property
    def key(self) -> Key:
        return "register", self.kind, self.number


class BlockRow(NamedTuple):
    """A block of this node, by its place in the range; `state` is a word for what it may be used for."""

    place: int
    version: int
    state: str

    @property
    def key(self) -> Key:
        return "block", self.place


class LeaseRow(NamedTuple):
    """An address of this node and whose it is, or was: `order` counts releases, and is 0 while it is held.

    Without a container nobody knows whose it was, or it is a block's own row. `pod` is its name for Kubernetes.
    """

    address: IPv4Address
    container: str
    interface: str
    order: int
    pod: str = ""

    @classmethod
    def of(cls, lease: Lease, order: int = 0) -> LeaseRow:
        return cls(lease.address, lease.container, lease.interface, order, lease.pod)

    @property
    def held(self) -> bool:
        return bool(self.container) and not self.order

    @property
    def key(self) -> Key:
        return "lease", int(self.address)


class ClusterRow(NamedTuple):
    """Which cluster this node belongs to, as `name` of one thing that it knows of it."""

    name: str
    data: bytes

    @property
    def key(self) -> Key:
        return "cluster", self.name


Row = RegisterRow | BlockRow | LeaseRow | ClusterRow
Key = tuple[str, int] | tuple[str, int, int] | tuple[str, str]
"""The table's name and the row's key in it."""
TABLES: Final[dict[str, type[Row]]] = {
    "register": RegisterRow,
    "block": BlockRow,
    "lease": LeaseRow,
    "cluster": ClusterRow,
}


class Persist(NamedTuple):
    """Commit all of these together and then say `durable(number)`: rows to write, keys (with None) to remove."""

    number: int
    changes: dict[Key, Row | None]


class Journal:
    def __init__(self) -> None:
        self._changes: dict[Key, Row | None] = {}
        self._number = 0
        self._waiting: deque[tuple[int, Action]] = deque()
        self.durable = 0
        """The newest number that is on disk."""

    @property
    def behind(self) -> int:
        """Steps that are not on disk yet."""
        return self._number - self.durable

    def put(self, row: Row) -> None:
        self._changes[row.key] = row

    def forget(self, key: Key) -> None:
        self._changes[key] = None

    def then(self, action: Action) -> None:
        """Does it when all that was put until now is durable: at the end of this step at the earliest."""
        self._waiting.append((self._number + bool(self._changes), action))

    def take(self) -> Persist | None:
        """What this step changed. One that only waits for earlier ones has nothing to write."""
        if not self._changes:
            return None
        self._number += 1
        changes, self._changes = self._changes, {}
        return Persist(self._number, changes)

    def committed(self, number: int, now: float) -> None:
        """All up to `number` is on disk."""
        self.durable = max(self.durable, number)
        self.run(now)

    def run(self, now: float) -> None:
        """What waited for nothing, or for what is durable by now."""
        while self._waiting and self._waiting[0][0] <= self.durable:
            self._waiting.popleft()[1](now)
