"""The lag probe: what is late is sorted by how late it was, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from tunrouter.agent import lag
from tunrouter.agent.lag import PAUSE_SECONDS, LagProbe
from tunrouter.core.status import LAG_SECONDS


class FakeLoop:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[Any] = []
        self.cancelled = 0

    def call_later(self, seconds: float, action: Any) -> FakeLoop:
        self.due.append(action)
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def look(self, late: float) -> None:
        """The timer fires so much later than planned."""
        self.now += PAUSE_SECONDS + late
        self.due.pop()()


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def probe_in(loop: FakeLoop) -> LagProbe:
    probe = LagProbe(cast("asyncio.AbstractEventLoop", loop), lambda: loop.now)
    probe.start()
    return probe


def test_looks_are_counted_by_their_lateness(loop: FakeLoop) -> None:
    probe = probe_in(loop)
    for late in (0.0, 0.0005, 0.003, 0.3, 60.0):
        loop.look(late)
    report = probe.report()
    assert report.looks == 5
    assert report.seconds == pytest.approx(60.3035)
    within = dict(zip(LAG_SECONDS, report.within, strict=True))
    assert (within[0.001], within[0.005], within[0.25], within[0.5], within[2.5]) == (2, 3, 3, 4, 4)


def test_a_timer_that_fires_early_was_on_time(loop: FakeLoop) -> None:
    probe = probe_in(loop)
    loop.look(-0.001)
    assert (probe.report().seconds, probe.report().within[0]) == (0.0, 1)


def test_after_the_end_nobody_looks(loop: FakeLoop) -> None:
    probe = probe_in(loop)
    loop.look(0.0)
    probe.close()
    assert (len(loop.due), loop.cancelled) == (1, 1)


def test_a_loop_that_is_held_up_is_seen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "PAUSE_SECONDS", 0.01)

    async def scenario() -> None:
        probe = LagProbe(asyncio.get_running_loop())
        probe.start()
        before = time.monotonic()
        while time.monotonic() - before < 0.2:
            pass  # what a step of control that takes long does
        while not probe.report().looks:
            await asyncio.sleep(0.001)
        probe.close()
        assert probe.report().within[LAG_SECONDS.index(0.1)] == 0

    asyncio.run(asyncio.wait_for(scenario(), 10))
