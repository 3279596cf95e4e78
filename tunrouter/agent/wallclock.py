"""Whether somebody sets the wall clock while the agent runs.

Law: nothing in the agent goes by the wall clock but its start (the number of its life) and the times in its log, so a
jump stops nothing; but whoever reads logs of several hosts must know of it. It is measured against CLOCK_BOOTTIME,
which also goes on while the machine is suspended. A clock that is slewed, as NTP does it, never jumps.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from tunrouter.core import status

PAUSE_SECONDS: Final = 1.0
JUMP_SECONDS: Final = 2.0
"""More than a leap second or a step that nobody notices."""
log = logging.getLogger("tunrouter")


def ahead() -> float:
    """How much later it is by the wall clock than by the time since the boot: the same as long as nobody sets it."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class WallClock:
    """Watches from `start` to `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ahead: Callable[[], float] = ahead) -> None:
        self._loop = loop
        self._ahead = ahead
        self._before = ahead()
        self._jumps = 0
        self._last = 0.0
        self._jumped_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(PAUSE_SECONDS, self._look)

    def _look(self) -> None:
        before, self._before = self._before, self._ahead()
        jump = self._before - before
        if abs(jump) >= JUMP_SECONDS:
            self._jumps += 1
            self._last, self._jumped_at = jump, self._loop.time()
            log.warning("somebody set the clock %s by %.0f s", "forward" if jump > 0 else "back", abs(jump))
        self.start()

    def report(self) -> status.Clock:
        ago = self._loop.time() - self._jumped_at if self._jumped_at is not None else None
        return status.Clock(jumps=self._jumps, last=self._last, ago=ago)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
