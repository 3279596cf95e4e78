"""A disk for the pure core: what is written becomes durable a while later, and a crash in between may lose it.

Law (what SQLite promises with WAL and synchronous FULL): batches become durable in order, each as a whole. Of those
that nobody was told of when the power went, the first few may be there all the same; those after them are not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

from tunrouter.core.journal import Key, Persist, Row
from tunrouter.core.timetable import NEVER


class PowerCut(Exception):
    """The life that wrote ends here."""


class Disk:
    def __init__(self, delay: float = 0.0, *, cut: int | None = None) -> None:
        """The power goes at the `cut`th event: a batch that was handed over, or one that became durable."""
        self.delay = delay
        self.full = False
        """Nothing becomes durable until there is room again."""
        self.rows: dict[Key, Row] = {}
        """What is durable."""
        self.aside: list[dict[Key, Row]] = []
        """What was found damaged."""
        self._damaged = False
        self._cut = cut
        self._events = 0
        self._pending: deque[tuple[float, Persist]] = deque()

    def start(self) -> list[Row]:
        """What a new life finds; of a damaged disk, which is kept aside, nothing."""
        if self._damaged:
            self._damaged = False
            self.aside.append(self.rows)
            self.rows = {}
        return list(self.rows.values())

    def write(self, batch: Persist, now: float) -> None:
        self._pending.append((now + self.delay, batch))
        self._event()

    def sync(self, now: float) -> int | None:
        """The number of the newest batch that became durable by now, which is to be told to the node."""
        newest = None
        while self.deadline <= now:
            newest = self._commit()
            self._event()
        return newest

    @property
    def deadline(self) -> float:
        """When the next batch is durable."""
        return self._pending[0][0] if self._pending and not self.full else NEVER

    @property
    def behind(self) -> int:
        """Batches that are not durable."""
        return len(self._pending)

    def crash(self, survivors: int = 0) -> None:
        """Of the batches that are not durable the first `survivors` are there nevertheless."""
        for _ in range(survivors):
            self._commit()
        self._pending.clear()
        self._cut = None

    def damage(self) -> None:
        """To be found out at the next start."""
        self._damaged = True

    def clone(self) -> Disk:
        """What a copy of the directory has."""
        copy = Disk(self.delay)
        copy.rows = dict(self.rows)
        return copy

    def _commit(self) -> int:
        _, batch = self._pending.popleft()
        for key, row in batch.changes.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        return batch.number

    def _event(self) -> None:
        self._events += 1
        if self._events == self._cut:
            raise PowerCut


def crash_points(life: Callable[[Disk], None], delay: float = 0.0) -> Iterator[Disk]:
    """Lives a life again and again, cut at each event of its disk in turn, and gives what disk that leaves.

    Each cut is made once for every number of batches that may have survived it. The life must do the same each time
    and let PowerCut pass.
    """
    for cut in count(1):
        for survivors in count():
            disk = Disk(delay, cut=cut)
            try:
                life(disk)
            except PowerCut:
                behind = disk.behind
                disk.crash(survivors)
                yield disk
                if survivors == behind:
                    break
            else:
                return
