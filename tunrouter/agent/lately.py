"""What was counted of late: the difference between counters of now and those of one or two minutes ago.

Law: a counter that grew once in a long life is history, one that grows now is a fault. Two copies of all counters are
kept, taken a minute apart, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

PAUSE_SECONDS: Final = 60.0


class Lately:
    """Watches what `count` gives, from `start` to `close`; before that all counts as zero."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: Callable[[], Mapping[str, int]]) -> None:
        self._loop = loop
        self._count = count
        self._older: Mapping[str, int] = {}
        self._old: Mapping[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(PAUSE_SECONDS, self._turn)

    def _turn(self) -> None:
        self._older, self._old = self._old, dict(self._count())
        self.start()

    def report(self) -> dict[str, int]:
        """Only what grew; a counter that began anew is left out until it is above what it was."""
        grown = {name: count - self._older.get(name, 0) for name, count in self._count().items()}
        return {name: more for name, more in grown.items() if more > 0}

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
