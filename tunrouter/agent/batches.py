"""Jobs for a thread that are cheaper together: those that come while a batch is under way are the next batch.

Law: a job is answered as soon as it is done, not when its batch is, and one that fails fails alone. A lone job waits
for nobody. What a thread does for the longest batch keeps its other work waiting, so a batch has a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar

AT_ONCE: Final = 16

J = TypeVar("J")
R = TypeVar("R")
Done = Callable[[int, Any], None]
"""Tells the number of a job in its batch, and its result or what it failed with."""
log = logging.getLogger("tunrouter.host")


class Batches(Generic[J, R]):
    """`submit` runs something on the thread and calls back on the loop; `work` does a batch there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        submit: Callable[[Callable[[], None], Callable[[Future[None]], None]], None],
        work: Callable[[Sequence[J], Done], None],
    ) -> None:
        self._loop = loop
        self._submit = submit
        self._work = work
        self._waiting: deque[tuple[J, asyncio.Future[R]]] = deque()
        self._busy = False

    async def do(self, job: J) -> R:
        """Raises what the job failed with."""
        answer: asyncio.Future[R] = self._loop.create_future()
        self._waiting.append((job, answer))
        self._begin()
        return await answer

    def _begin(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        jobs = [job for job, _ in batch]

        def done(number: int, result: R | Exception) -> None:
            self._loop.call_soon_threadsafe(_answer, batch[number][1], result)

        def ended(work: Future[None]) -> None:
            self._busy = False
            error = work.exception()
            waiting = [answer for _, answer in batch if not answer.done()]
            if error is not None:
                for answer in waiting:
                    answer.set_exception(error)
                if not waiting:
                    log.error("pods' work is done, but not what comes after it: %s", error)
            self._begin()

        self._submit(lambda: self._work(jobs, done), ended)


def _answer(answer: asyncio.Future[R], result: R | Exception) -> None:
    if answer.done():
        return  # nobody waits for it any more
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
