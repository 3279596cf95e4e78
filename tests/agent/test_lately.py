"""What grew of late, and the wall clock under a running agent, on loops whose time a test moves."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from tunrouter.agent.lately import Lately
from tunrouter.agent.wallclock import JUMP_SECONDS, WallClock, ahead
from tunrouter.core.status import Clock


class FakeLoop:
    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, Any]] = []
        self.cancelled = 0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, action: Any) -> FakeLoop:
        self._due.append((self.now + seconds, action))
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def fire(self) -> None:
        self.now, action = self._due.pop()
        action()


@pytest.fixture
def loop() -> Any:
    return cast("Any", FakeLoop())


# --- counters --------------------------------------------------------------------------------------------------------
def test_what_grew_in_the_last_minute_or_two(loop: Any) -> None:
    counters = {"old": 5, "new": 1}
    lately = Lately(loop, lambda: counters)
    lately.start()
    assert lately.report() == {"old": 5, "new": 1}, "a young agent has only such"
    loop.fire()
    counters["new"] = 4
    assert lately.report() == {"old": 5, "new": 4}
    loop.fire()
    assert lately.report() == {"new": 3}
    loop.fire()
    assert lately.report() == {}
    lately.close()
    assert loop.cancelled == 1


def test_a_counter_that_begins_anew_is_not_negative(loop: Any) -> None:
    counters = {"drop_tag": 100}
    lately = Lately(loop, lambda: counters)
    lately.start()
    for _ in range(2):
        loop.fire()
    counters["drop_tag"] = 3
    assert lately.report() == {}


# --- the clock -------------------------------------------------------------------------------------------------------
def test_a_jump_is_said_in_the_log_and_remembered(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    offset = [1000.0]
    clock = WallClock(loop, lambda: offset[0])
    clock.start()
    loop.fire()
    assert clock.report() == Clock()
    for jump in (3600.0, -60.0):
        offset[0] += jump
        loop.fire()
    loop.fire()
    assert clock.report() == Clock(jumps=2, last=-60.0, ago=1.0)
    assert [record.message for record in caplog.records] == [
        "somebody set the clock forward by 3600 s",
        "somebody set the clock back by 60 s",
    ]
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    clock.close()
    assert loop.cancelled == 1


def test_a_clock_that_is_slewed_has_not_jumped(loop: Any) -> None:
    offset = [1000.0]
    clock = WallClock(loop, lambda: offset[0])
    clock.start()
    for _ in range(100):
        offset[0] += JUMP_SECONDS / 4
        loop.fire()
    assert clock.report().jumps == 0


def test_the_real_clock_stands_still_against_the_time_since_the_boot() -> None:
    assert ahead() == pytest.approx(ahead(), abs=0.5)
