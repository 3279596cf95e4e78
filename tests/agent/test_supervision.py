"""Work that nobody waits for: a defect ends none of it in silence."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from tunrouter.agent import supervision
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.supervision import Tasks, supervised


def test_it_begins_again_later_each_time_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(supervision, "MOST_SECONDS", 0.08)
    barrier, began = Barrier(logging.getLogger("test")), list[float]()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        async def work() -> None:
            began.append(loop.time())
            if len(began) < 6:
                raise OSError(24, "Too many open files")

        await supervised(work, barrier)

    asyncio.run(scenario())
    pauses = [after - before for before, after in itertools.pairwise(began)]
    assert all(pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.08, 0.08), strict=True))
    assert barrier.errors == 5
    assert len(caplog.records) == 1
    assert "Too many open files" in caplog.text


def test_what_it_is_cancelled_for_it_does() -> None:
    async def scenario() -> None:
        task = asyncio.ensure_future(supervised(asyncio.Event().wait, Barrier(logging.getLogger("test"))))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_task_that_fails_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    barrier = Barrier(logging.getLogger("test"))

    async def scenario() -> None:
        tasks = Tasks(asyncio.get_running_loop(), barrier)

        async def fails() -> None:
            raise ValueError("year 10000 is out of range")

        async def lasts() -> None:
            await asyncio.Event().wait()

        tasks.spawn(fails())
        tasks.spawn(lasts())
        await asyncio.sleep(0.01)
        tasks.cancel()
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert barrier.errors == 1
    assert "year 10000 is out of range" in caplog.text
