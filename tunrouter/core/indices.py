"""Receiver indices: random, one contiguous run a session, not used again for ten minutes.

Law: a run starts at a multiple of this node's worker count, so that index modulo workers is the lane's worker (what the
socket filter computes), and runs of different sessions never overlap: slots are `SLOT` apart and a run needs at most
`MAX_WORKERS` of them after rounding up by less than `MAX_WORKERS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from tunrouter.core import bounds

SLOT: Final = 2 * bounds.MAX_WORKERS
SLOTS: Final = (1 << 32) // SLOT
MAX_QUARANTINED: Final = 1 << 16
"""Beyond it the oldest is released early: a chance of 1 in 500 that one draw meets one of them is all it costs."""


class Indices:
    def __init__(self, workers: int, random: Callable[[int], bytes]) -> None:
        self._workers = workers
        self._random = random
        self._taken: set[int] = set()
        self._resting: deque[tuple[float, int]] = deque()

    def allocate(self, now: float) -> int:
        """The base of a run that no session uses."""
        self._wake(now)
        while True:
            slot = int.from_bytes(self._random(4), "big") % SLOTS
            if slot and slot not in self._taken:
                break
        self._taken.add(slot)
        return -(-slot * SLOT // self._workers) * self._workers

    def release(self, base: int, now: float) -> None:
        self._resting.append((now + bounds.INDEX_QUARANTINE_SECONDS, base // SLOT))
        self._wake(now)

    def _wake(self, now: float) -> None:
        while self._resting and (self._resting[0][0] <= now or len(self._resting) > MAX_QUARANTINED):
            self._taken.discard(self._resting.popleft()[1])
