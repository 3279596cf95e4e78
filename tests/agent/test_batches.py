"""Batches: jobs that wait while others are under way go together, and each has its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tunrouter.agent.batches import AT_ONCE, Batches, Done
from tunrouter.errors import HostError


class World:
    """Doubles numbers on a thread that waits for `gate`; negative ones fail, and zero breaks the batch."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = ThreadPoolExecutor(1)
        self.gate = threading.Event()
        self.batches: list[list[int]] = []
        self.doubles = Batches[int, int](loop, self.submit, self.double)

    def submit(self, work: Callable[[], None], then: Callable[[Future[None]], None]) -> None:
        self.thread.submit(work).add_done_callback(lambda done: self.loop.call_soon_threadsafe(then, done))

    def double(self, batch: Sequence[int], done: Done) -> None:
        assert self.gate.wait(5)
        self.batches.append(list(batch))
        for number, value in enumerate(batch):
            if value == 0:
                raise ZeroDivisionError
            done(number, HostError(f"{value}", "") if value < 0 else 2 * value)


def running(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        world = World(asyncio.get_running_loop())
        try:
            await asyncio.wait_for(scenario(world), 5)
        finally:
            world.gate.set()
            world.thread.shutdown()

    asyncio.run(run())


def test_a_lone_job_goes_alone_and_those_that_come_meanwhile_together() -> None:
    async def scenario(world: World) -> None:
        jobs = [asyncio.ensure_future(world.doubles.do(value)) for value in range(1, AT_ONCE + 4)]
        await asyncio.sleep(0)
        world.gate.set()
        assert await asyncio.gather(*jobs) == [2 * value for value in range(1, AT_ONCE + 4)]
        assert [len(batch) for batch in world.batches] == [1, AT_ONCE, 2]

    running(scenario)


def test_one_that_fails_fails_alone() -> None:
    async def scenario(world: World) -> None:
        jobs = [asyncio.ensure_future(world.doubles.do(value)) for value in (1, 2, -3, 4)]
        await asyncio.sleep(0)
        world.gate.set()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [str(result) for result in results] == ["2", "4", "-3", "8"]

    running(scenario)


def test_a_batch_that_breaks_answers_all_that_have_none_and_the_next_goes_on() -> None:
    async def scenario(world: World) -> None:
        jobs = [asyncio.ensure_future(world.doubles.do(value)) for value in (1, 2, 0, 3)]
        await asyncio.sleep(0)
        world.gate.set()
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert results[:2] == [2, 4]
        assert [type(result) for result in results[2:]] == [ZeroDivisionError] * 2
        assert await world.doubles.do(5) == 10

    running(scenario)


def test_who_does_not_wait_any_more_holds_nobody_up() -> None:
    async def scenario(world: World) -> None:
        jobs = [asyncio.ensure_future(world.doubles.do(value)) for value in (1, 2, 3)]
        await asyncio.sleep(0)
        jobs[1].cancel()
        world.gate.set()
        assert await jobs[2] == 6
        with pytest.raises(asyncio.CancelledError):
            await jobs[1]

    running(scenario)
