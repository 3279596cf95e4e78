"""Work that nobody waits for: what ends it by mistake is counted and said once, and what is to go on begins again.

Law: it begins again later each time, up to half a minute, so that a lasting defect costs next to nothing. Work that
returns by itself is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from tunrouter.agent.barrier import Barrier

FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 30.0
LASTING_SECONDS: Final = 60.0
"""After so long it was well, and the next time it begins again soon."""


async def supervised(work: Callable[[], Awaitable[None]], barrier: Barrier) -> None:
    loop = asyncio.get_running_loop()
    pause = FIRST_SECONDS
    while True:
        began = loop.time()
        with barrier:
            await work()
            return
        if loop.time() - began >= LASTING_SECONDS:
            pause = FIRST_SECONDS
        await asyncio.sleep(pause)
        pause = min(2 * pause, MOST_SECONDS)


class Tasks:
    """All of the agent's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, barrier: Barrier) -> None:
        self._loop = loop
        self._barrier = barrier
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            with self._barrier:
                task.result()
