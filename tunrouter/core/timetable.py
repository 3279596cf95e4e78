"""When each of many things is due: one heap, and entries that were superseded are left in it until they come up.

Law: `due` gives a key only at the newest time that was set for it. The heap holds about twice as many entries as
there are keys at most, for it is rebuilt when the superseded ones outnumber the others.
"""

from __future__ import annotations

import heapq
from typing import Final

NEVER: Final = float("inf")


class Timetable:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._times: dict[int, float] = {}

    def set(self, key: int, at: float) -> None:
        """`key` is due at `at`, whatever was said before; NEVER takes it off."""
        if self._times.get(key, NEVER) == at:
            return
        if at == NEVER:
            del self._times[key]
            return
        self._times[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._times) + 16:
            self._heap = [(at, key) for key, at in self._times.items()]
            heapq.heapify(self._heap)

    @property
    def next(self) -> float:
        """The earliest time."""
        heap = self._heap
        while heap and self._times.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else NEVER

    def due(self, now: float) -> list[int]:
        """Takes off what is due."""
        keys = []
        while self.next <= now:
            _, key = heapq.heappop(self._heap)
            del self._times[key]
            keys.append(key)
        return keys
