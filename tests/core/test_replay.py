"""The replay window against a slow reference, and at its edges."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import bounds
from tunrouter.core.replay import ReplayWindow

WINDOW = bounds.REPLAY_WINDOW
LIMIT = bounds.REJECT_MESSAGES


class SlowWindow:
    """The rule itself: a set of what was seen, and the newest of it."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.newest = -1

    def check_and_advance(self, counter: int) -> bool:
        if counter >= LIMIT or counter < self.newest - WINDOW or counter in self.seen:
            return False
        self.seen.add(counter)
        self.newest = max(self.newest, counter)
        return True


def advanced(*counters: int) -> ReplayWindow:
    window = ReplayWindow()
    for counter in counters:
        assert window.check_and_advance(counter)
    return window


# Steps relative to the newest counter: mostly near, often at an edge of a word or the window, sometimes far.
edges = st.sampled_from([0, 1, 63, 64, 65, WINDOW - 64, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 63, WINDOW + 64])
steps = st.one_of(st.integers(-100, 100), st.integers(-2 * WINDOW, 2 * WINDOW), edges, edges.map(lambda step: -step))


@given(start=st.sampled_from([0, 1, 63, 64, 10**6, 2**32 - 5, LIMIT - 3 * WINDOW]), steps=st.lists(steps, max_size=200))
def test_agrees_with_the_slow_reference(start: int, steps: list[int]) -> None:
    window, reference = ReplayWindow(), SlowWindow()
    for step in [start, *(0 for _ in steps[:1]), *steps]:
        counter = max(0, max(reference.newest, 0) + step)
        assert window.check_and_advance(counter) == reference.check_and_advance(counter), counter


def test_agrees_with_the_slow_reference_on_a_long_shuffled_stream() -> None:
    random = Random(6479)
    window, reference = ReplayWindow(), SlowWindow()
    for position in range(60_000):
        counter = max(0, position + random.randrange(-WINDOW - 200, 100))
        assert window.check_and_advance(counter) == reference.check_and_advance(counter), (position, counter)
    assert len(reference.seen) > 20_000


@pytest.mark.parametrize("newest", [WINDOW, WINDOW + 1, WINDOW + 63, WINDOW + 64, 10**9, 10**9 + 63])
def test_the_oldest_usable_counter(newest: int) -> None:
    assert advanced(newest).check_and_advance(newest - WINDOW + 1)
    assert advanced(newest).check_and_advance(newest - WINDOW)
    if newest > WINDOW:
        assert not advanced(newest).check_and_advance(newest - WINDOW - 1)


def test_each_counter_is_accepted_once() -> None:
    window = ReplayWindow()
    for counter in (0, 1, 9, 8, 7, 63, 64, 65, 128, 8191, 8192):
        assert window.check_and_advance(counter)
        assert not window.check_and_advance(counter)


def test_a_full_window_is_full() -> None:
    window = advanced(*range(3 * WINDOW))
    assert not any(window.check_and_advance(counter) for counter in range(3 * WINDOW))


@pytest.mark.parametrize("jump", [64, 127 * 64, 128 * 64 - 1, 128 * 64, 129 * 64, 10**6, LIMIT - 1])
def test_a_jump_forgets_what_the_ring_held_before(jump: int) -> None:
    window = advanced(*range(64), jump)
    for counter in range(max(64, jump - WINDOW), min(jump, jump - WINDOW + 9000)):
        assert window.check_and_advance(counter)


def test_the_last_counters_of_a_key() -> None:
    assert advanced(LIMIT - 2).check_and_advance(LIMIT - 1)
    assert not advanced(0).check_and_advance(LIMIT)
    assert not advanced(0).check_and_advance(LIMIT + 1)
    assert not advanced(0).check_and_advance(2**64 - 1)


def test_a_counter_beyond_the_limit_moves_nothing() -> None:
    window = advanced(5)
    assert not window.check_and_advance(LIMIT)
    assert window.check_and_advance(4)
    assert window.check_and_advance(6)
