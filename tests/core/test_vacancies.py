"""Which block is claimed: never held before held, held long ago before lately, and lately not at all."""

from __future__ import annotations

from typing import cast

from tunrouter.core import bounds
from tunrouter.core.registry import Registry
from tunrouter.core.vacancies import choose

NOW = 10_000.0
LONG_AGO = NOW - bounds.LATELY_HELD_SECONDS


class Left:
    def __init__(self, times: dict[int, float]) -> None:
        self._times = times

    def left_at(self, place: int) -> float | None:
        return self._times.get(place)


def chosen(left: dict[int, float], taken: set[int] | None = None, start: int = 0) -> tuple[int | None, bool, str]:
    return choose(cast("Registry", Left(left)), taken or set(), 4, start, NOW)


def test_the_first_from_the_start_on_that_is_free() -> None:
    assert chosen({}, {2, 3}, start=2) == (0, False, "")


def test_one_that_never_was_held_comes_first() -> None:
    assert chosen({0: 0.0, 1: 0.0}) == (2, False, "")


def test_then_the_one_that_was_lost_longest_ago() -> None:
    assert chosen({0: LONG_AGO, 1: LONG_AGO - 1, 2: NOW, 3: NOW}) == (1, True, "")


def test_one_that_was_lost_lately_is_left_alone() -> None:
    place, _, why = chosen({0: LONG_AGO + 1, 1: NOW}, {2, 3})
    assert place is None
    assert "2 were given up less than 15 minutes ago" in why


def test_all_are_taken() -> None:
    assert chosen({}, {0, 1, 2, 3}) == (None, False, "")
