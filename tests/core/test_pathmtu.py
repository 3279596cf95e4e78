"""RFC 8899's search on paths of every size, driven as a session drives it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import bounds
from tunrouter.core.pathmtu import CANDIDATES, PathMtu

NEED = 1437


class Path:
    """A path that carries outer packets up to `limit` bytes; answers come back at once."""

    def __init__(self, limit: int, need: int = NEED) -> None:
        self.limit = limit
        self.now = 0.0
        self.ids = 0
        self.silence = 0.0
        self.sent: list[tuple[float, int]] = []
        self.search = PathMtu(need, self.now)

    def run(self, seconds: float, *, busy: bool = False) -> None:
        end = self.now + seconds
        while self.now < end:
            self.ids += 1
            size = self.search.probe(self.now, self.ids, rtt=0.01, answered_at=self.now - self.silence, busy=busy)
            if size is not None:
                self.sent.append((self.now, size))
                if size <= self.limit:
                    self.search.answered(self.ids, self.now)
            self.now += 0.01


def carried(limit: int, need: int = NEED) -> int:
    """The largest size of the search's steps that fits."""
    return max(size for size in (bounds.PATH_MTU_BASE, *CANDIDATES, need) if size <= min(limit, need))


def test_a_path_that_carries_what_is_needed_is_only_checked() -> None:
    path = Path(1500)
    path.run(60)
    assert path.search.size == NEED
    assert {size for _, size in path.sent} == {NEED}
    assert len(path.sent) <= 13


@given(st.integers(bounds.PATH_MTU_BASE, 9100), st.sampled_from((NEED, 1457, 8937)))
def test_the_search_ends_at_the_largest_step_that_arrives(limit: int, need: int) -> None:
    path = Path(limit, need)
    path.run(5)
    assert path.search.size == carried(limit, need)


@pytest.mark.parametrize("busy", [True, False])
def test_a_black_hole_is_found(busy: bool) -> None:
    path = Path(1500)
    path.run(20, busy=busy)
    path.limit, began = 1300, path.now
    while path.search.size > 1300:
        path.run(0.01, busy=busy)
    assert path.now - began < (3 if busy else 75)
    path.run(1, busy=busy)
    assert path.search.size == 1280


def test_a_path_that_grows_is_used_again_after_ten_minutes() -> None:
    path = Path(1300)
    path.run(5)
    assert path.search.size == 1280
    path.limit = 1500
    path.run(bounds.PATH_MTU_RAISE_SECONDS - 10)
    assert path.search.size == 1280
    path.run(20)
    assert path.search.size == NEED


def test_an_interface_that_refuses_is_believed_at_once() -> None:
    path = Path(1300)
    path.run(0.01)
    path.search.refused(NEED, path.now)
    assert path.search.size == bounds.PATH_MTU_BASE
    path.run(3)
    assert path.search.size == 1280


def test_what_was_under_way_when_an_interface_refused_does_not_end_the_search() -> None:
    """Packets of the size before, and what others have relayed: they are larger than what is being tried."""
    path = Path(1300)
    path.run(0.01)
    for _ in range(5):
        path.search.refused(NEED, path.now)
    path.run(0.01)
    path.search.refused(9000, path.now)
    path.run(3)
    assert path.search.size == 1280


def test_a_peer_that_is_silent_altogether_says_nothing_about_sizes() -> None:
    path = Path(1500)
    path.run(20)
    path.limit, path.silence = 0, 100.0
    path.run(10)
    assert path.search.size == NEED


@pytest.mark.parametrize("rtt", [0.0, 0.05, 0.5, 2.0])
def test_a_slow_path_is_not_a_small_one(rtt: float) -> None:
    """Each probe has four round trips to come back, and never less than the pause between heartbeats to a suspect."""
    search = PathMtu(NEED, 0.0)
    assert search.probe(0.0, 1, rtt=rtt, answered_at=0.0, busy=True) == NEED
    assert search.deadline == max(bounds.PROBE_SECONDS, 4 * rtt)
    assert search.probe(search.deadline - 0.01, 2, rtt=rtt, answered_at=0.0, busy=True) is None
    search.answered(1, search.deadline - 0.005)
    assert (search.size, search.missed) == (NEED, False)


def test_a_search_that_found_enough_is_not_begun_again() -> None:
    path = Path(1300)
    path.run(5)
    path.limit = 1500
    path.run(bounds.PATH_MTU_RAISE_SECONDS + 10)
    assert path.search.size == NEED
    path.sent.clear()
    path.limit = 9100
    path.run(2 * bounds.PATH_MTU_RAISE_SECONDS)
    assert {size for _, size in path.sent} == {NEED}


def test_late_and_foreign_answers_are_of_no_use() -> None:
    search = PathMtu(NEED, 0.0)
    for number in range(6):
        assert search.probe(number * 1.0, number, rtt=0.01, answered_at=7.0, busy=False) == NEED
    assert search.probe(6.0, 6, rtt=0.01, answered_at=7.0, busy=False) == 1280
    search.answered(0, 6.1)
    search.answered(99, 6.1)
    assert search.size == bounds.PATH_MTU_BASE


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 30)), max_size=200), st.booleans())
def test_the_deadline_always_moves_on(steps: list[tuple[bool, float]], busy: bool) -> None:
    search, now = PathMtu(NEED, 0.0), 0.0
    for number, (answers, pause) in enumerate(steps):
        now += pause
        if search.probe(now, number, rtt=0.01, answered_at=now, busy=busy) is not None and answers:
            search.answered(number, now)
        assert bounds.PATH_MTU_BASE <= search.size <= NEED
        if search.deadline <= now:
            assert search.probe(now, number + 10_000, rtt=0.01, answered_at=now, busy=busy) is not None
            assert search.deadline > now


def test_where_the_underlay_has_less_than_pods_need_that_is_begun_with_and_more_is_tried_later() -> None:
    """A relay over IPv6: nothing falls to the base, for what is larger was never in use."""
    search, now, probe = PathMtu(1507, 0.0, 1500), 0.0, 0
    sizes: list[int | None] = []
    assert search.size == 1500
    while (now := max(now, search.deadline)) < 500:
        probe += 1
        size = search.probe(now, probe, rtt=0.01, answered_at=now, busy=False)
        sizes.append(size)
        assert search.size == 1500
        if size is not None and size <= 1500:
            search.answered(probe, now + 0.01)
    assert sizes[0] == 1500
    assert sizes.count(1507) == 3, "and not again before ten minutes are over"
