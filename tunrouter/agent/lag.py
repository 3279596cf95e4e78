"""The loop's lag: how much later than planned it looks at its clock, which is how late it is for everybody.

Law: one timer, four times a second, and no memory that grows: looks are sorted into classes, as a histogram of
Prometheus wants them.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from typing import Final

from tunrouter.core import status

PAUSE_SECONDS: Final = 0.25


class LagProbe:
    """Measures from `start` to `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._seconds = 0.0
        self._classes = [0] * (len(status.LAG_SECONDS) + 1)
        """Looks in each class; the last is of those that were later than all bounds."""

    def start(self) -> None:
        self._due = self._clock() + PAUSE_SECONDS
        self._timer = self._loop.call_later(PAUSE_SECONDS, self._look)

    def _look(self) -> None:
        # Timers have millisecond resolution: one that fires early was on time.
        late = max(0.0, self._clock() - self._due)
        self._seconds += late
        self._classes[bisect_left(status.LAG_SECONDS, late)] += 1
        self.start()

    def report(self) -> status.Lag:
        within = tuple(accumulate(self._classes))
        return status.Lag(looks=within[-1], seconds=self._seconds, within=within[:-1])

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
