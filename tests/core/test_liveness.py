"""Since when a peer has been silent: what starts the count, what ends it, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import bounds
from tunrouter.core.liveness import FADE, LEAST_KNOWN, REMEMBERED, Liveness

NEVER = float("inf")


def pinged(heard_at: float, *times: float) -> Liveness:
    """Heard at one time, heartbeats out at others."""
    live = Liveness(heard_at)
    for at in times:
        live.pinged(live.next_id(), at, bounds.HEARTBEAT_SECONDS)
    return live


def test_who_was_not_asked_is_not_silent() -> None:
    assert Liveness(0.0).silent_since() == NEVER


def test_silence_never_counts_from_before_the_first_heartbeat_that_could_be_answered() -> None:
    live = pinged(0.0, 100.0)
    assert live.silent_since() == 100.0 - bounds.HEARTBEAT_SECONDS
    live.pinged(live.next_id(), 101.0, bounds.HEARTBEAT_SECONDS)
    assert live.silent_since() == 100.0 - bounds.HEARTBEAT_SECONDS, "the first heartbeat counts, not the last"


def test_silence_counts_from_what_was_heard_last() -> None:
    live = pinged(99.5, 100.0)
    assert live.silent_since() == 99.5


def test_what_is_heard_ends_the_silence_and_older_news_does_not_turn_the_clock_back() -> None:
    live = pinged(99.5, 100.0)
    live.heard(100.2)
    assert live.silent_since() == NEVER
    live.heard(50.0)
    assert live.heard_at == 100.2


def test_a_probe_that_may_be_too_large_accuses_nobody() -> None:
    live = Liveness(0.0)
    live.probed(live.next_id(), 100.0)
    assert live.silent_since() == NEVER
    assert not live.unanswered


@pytest.mark.parametrize(
    ("sent", "heard", "unanswered"), [(10.0, 10.0, False), (11.0, 10.0, True), (11.0, 11.0, False)]
)
def test_payload_after_the_last_word_wants_an_answer(sent: float, heard: float, unanswered: bool) -> None:
    live = Liveness(5.0)
    live.sent(sent)
    live.sent(6.0)  # reports of two sessions come in any order
    live.heard(heard)
    assert live.unanswered == unanswered


@pytest.mark.parametrize("answered", [True, False])
def test_a_heartbeat_that_is_out_wants_an_answer(answered: bool) -> None:
    live = pinged(0.0, 1.0)
    if answered:
        live.heard(1.1)
    assert live.unanswered != answered


def test_who_was_held_up_itself_starts_counting_anew() -> None:
    live = pinged(0.0, 0.1)
    live.forgive(60.0)
    assert 60.0 - bounds.HEARTBEAT_SECONDS <= live.silent_since() < 60.0
    assert live.unanswered, "it is only given time: what is out is still to be answered"


def test_forgiving_takes_nothing_back_that_was_heard() -> None:
    live = pinged(59.9, 59.95)
    live.forgive(60.0)
    assert live.silent_since() == 59.9


def test_the_round_trip_is_smoothed_by_an_eighth() -> None:
    live = Liveness(0.0)
    for sent_at, took in ((1.0, 0.08), (2.0, 0.16)):
        number = live.next_id()
        live.pinged(number, sent_at, 1.0)
        live.answered(number, sent_at + took)
    assert live.rtt == pytest.approx(0.08 + (0.16 - 0.08) / 8)
    live.opened(3.0, 0.5)
    assert live.rtt == 0.5, "a handshake measures the path as it is now"


def test_an_answer_counts_once_and_only_to_what_was_asked() -> None:
    live = Liveness(0.0)
    number = live.next_id()
    live.pinged(number, 1.0, 1.0)
    live.answered(number + 1, 1.5)
    assert live.rtt is None
    live.answered(number, 1.5)
    live.answered(number, 9.0)
    assert live.rtt == 0.5


def beats(live: Liveness, answered: list[bool], start: float = 0.0) -> float:
    """A heartbeat a second, each answered after 20 ms or never; when the last answer would have been late."""
    now = start
    for comes in answered:
        number = live.next_id()
        live.pinged(number, now, bounds.HEARTBEAT_SECONDS)
        if comes:
            live.answered(number, now + 0.02)
        now += 1.0
    return now + bounds.DEAD_SECONDS


def test_loss_is_the_share_of_heartbeats_that_nobody_answered() -> None:
    live = Liveness(0.0)
    end = beats(live, [number % 5 != 0 for number in range(500)])
    live.pinged(live.next_id(), end, 1.0)
    assert live.loss.share == pytest.approx(0.2, abs=0.01)


def test_loss_follows_what_the_path_is_like_now() -> None:
    live = Liveness(0.0)
    end = beats(live, [True] * 300)
    assert live.loss.share == 0.0
    end = beats(live, [False] * 100, end)
    live.pinged(live.next_id(), end, 1.0)
    assert live.loss.share == pytest.approx(1 - FADE**100, abs=0.03), "a hundred heartbeats are two thirds of it"
    beats(live, [True] * 500, end)
    assert (live.loss.share or 1.0) < 0.01


def test_few_heartbeats_tell_no_loss() -> None:
    live = Liveness(0.0)
    end = beats(live, [True] * (LEAST_KNOWN - 1))
    assert live.loss.share is None
    beats(live, [True], end)
    assert live.loss.share == 0.0


def test_a_heartbeat_is_lost_only_once_its_answer_would_be_too_late() -> None:
    live = Liveness(0.0)
    end = beats(live, [True] * 20)
    late = live.next_id()
    live.pinged(late, end, 1.0)
    live.pinged(live.next_id(), end + bounds.DEAD_SECONDS - 0.01, 1.0)
    assert live.loss.share == 0.0
    live.answered(late, end + bounds.DEAD_SECONDS - 0.01)
    live.answered(late, end + bounds.DEAD_SECONDS - 0.005)
    live.pinged(live.next_id(), end + bounds.DEAD_SECONDS + 0.01, 1.0)
    assert live.loss.share == 0.0
    live.pinged(live.next_id(), end + 3 * bounds.DEAD_SECONDS, 1.0)
    assert live.loss.share == pytest.approx(2 / 23, abs=0.01)


def test_what_could_not_be_answered_is_no_loss() -> None:
    live = Liveness(0.0)
    end = beats(live, [True] * 20)
    for at in (end, end + 1.0, end + 2.0):
        live.probed(live.next_id(), at)
    stray = live.next_id()
    live.pinged(stray, end + 3.0, 1.0)
    live.loss.excuse(stray)
    live.pinged(live.next_id(), end + 4.0, 1.0)
    live.forgive(end + 60.0)
    live.pinged(live.next_id(), end + 60.0, 1.0)
    assert live.loss.share == 0.0


@given(st.integers(1, 100))
def test_answers_of_the_newest_heartbeats_count_and_memory_is_bounded(count: int) -> None:
    live = Liveness(0.0)
    numbers = [live.next_id() for _ in range(count)]
    assert len(set(numbers)) == count
    for number in numbers:
        live.pinged(number, 1.0, 1.0)
    for number in numbers[:-REMEMBERED]:
        live.answered(number, 2.0)
    assert live.rtt is None
    live.answered(numbers[-REMEMBERED:][0], 3.0)
    assert live.rtt == 2.0
