"""What is to survive a restart, on its way to the disk: the newest wins, and a slow disk holds up nothing but itself.

Law: at most one write is under way and at most one value waits. What failed is tried again with the next change or
after half a minute, whichever is first; what waits at the end is written before the store is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, Generic, TypeVar

PAUSE_SECONDS: Final = 2.0
"""Between the starts of two writes: each waits for the disk to say that it is durable."""
RETRY_SECONDS: Final = 30.0

Value = TypeVar("Value")


class Memory(Generic[Value]):
    """`write` runs on `disk`; `complain` is told on the loop why a write of `what` failed."""

    def __init__(
        self,
        what: str,
        loop: asyncio.AbstractEventLoop,
        disk: Executor,
        write: Callable[[Value], None],
        complain: Callable[[str], None],
    ) -> None:
        self._what = what
        self._loop = loop
        self._disk = disk
        self._write = write
        self._complain = complain
        self._waiting: tuple[Value] | None = None
        self._under_way: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        """When the timer fires: what uvloop gives for something that is due at once has no `when`."""
        self._not_before = 0.0
        self._closed = False

    def remember(self, value: Value) -> None:
        """Soon, unless something newer comes before."""
        self._waiting = (value,)
        self._schedule(self._not_before)

    def _schedule(self, at: float) -> None:
        """Now if it may be; sooner than planned, never later."""
        if self._under_way is not None or self._closed:
            return
        if self._timer is not None:
            if self._due <= at:
                return
            self._timer.cancel()
            self._timer = None
        if at <= self._loop.time():
            self._start()
        else:
            self._due, self._timer = at, self._loop.call_at(at, self._start)

    def _start(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._not_before = self._loop.time() + PAUSE_SECONDS
            self._under_way = self._loop.create_task(self._save(*waiting))

    async def _save(self, value: Value) -> None:
        again = self._not_before
        try:
            await self._loop.run_in_executor(self._disk, self._write, value)
        except Exception as error:  # whatever it is, nobody else waits for it
            self._complain(f"{self._what} are not remembered on disk: {error}")
            if self._waiting is None:
                self._waiting, again = (value,), self._loop.time() + RETRY_SECONDS
        self._under_way = None
        if self._waiting is not None:
            self._schedule(again)

    async def close(self) -> None:
        """Writes what waits, without a pause; once, if the disk refuses."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._under_way is not None:
            await self._under_way
        if self._waiting is not None:
            await self._save(*self._waiting)
