"""Virtual time: what is to happen, in the order of its time and then of its arrival.

Law: nothing else decides an order, so a run is a function of its seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Action = Callable[..., None]


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        """Seconds."""
        self.events = 0
        """How many have happened."""
        self._heap: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, action: Action, *arguments: Any) -> None:
        """Does it at that time; what is in the past happens now."""
        self._order += 1
        heapq.heappush(self._heap, (max(when, self.now), self._order, action, arguments))

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.events += 1
            action(*arguments)
        self.now = until
