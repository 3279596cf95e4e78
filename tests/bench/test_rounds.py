"""The order of turns, that every value is kept, and what the rounds say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.fakes import FakeContender, FakeScenario
from tunrouter.bench import rounds
from tunrouter.bench.report import failures, rows
from tunrouter.bench.rounds import Match, Sample, order
from tunrouter.bench.statistics import Summary, by_round, ratio, summary

A, B, C = (FakeContender(name) for name in ("tunrouter", "b", "c"))


def test_a_round_takes_every_scenario_over_each_of_its_contenders() -> None:
    both = FakeScenario("both", {"tunrouter": [1, 2], "b": [3, 4]})
    alone = FakeScenario("alone", {"tunrouter": [5, 6]})
    seen: list[str] = []
    begun: list[tuple[int, str, str]] = []
    samples = rounds.run(
        [Match(both, (A, B)), Match(alone, (A,))], 2, 7,
        lambda sample: seen.append(sample.scenario),
        begin=lambda number, scenario, contender: begun.append((number, scenario.name, contender.name)),
    )  # fmt: skip
    taken = [(sample.round, sample.scenario, sample.contender) for sample in samples]
    assert taken == begun == [
        (1, "both", "tunrouter"), (1, "both", "b"), (1, "alone", "tunrouter"),
        (2, "both", "b"), (2, "both", "tunrouter"), (2, "alone", "tunrouter"),
    ]  # fmt: skip
    assert seen == [sample.scenario for sample in samples]
    assert {seconds for _, seconds in both.asked} == {7}
    assert by_round(samples, "tunrouter", "both") == {1: 1, 2: 2}


@given(st.integers(1, 8))
def test_no_contender_is_favoured_by_its_place(count: int) -> None:
    contenders = tuple(range(count))
    orders = [order(contenders, number) for number in range(1, 2 * count + 1)]
    assert all(sorted(each) == list(contenders) for each in orders)
    for place in range(count):
        assert sorted(each[place] for each in orders) == sorted([*contenders, *contenders])


def test_what_fails_is_kept_with_its_reason_and_the_run_goes_on() -> None:
    scenario = FakeScenario("s", {"tunrouter": [4, None, 8], "b": [2, 2, None]})
    matches = [Match(scenario, (A, B))]
    samples = rounds.run(matches, 3, 1)
    assert len(samples) == 6
    assert [(f.round, f.contender, f.reason) for f in failures(samples)] == [
        (2, "tunrouter", "it broke"),
        (3, "b", "it broke"),
    ]
    ours, theirs = rows(matches, samples)
    assert (ours.contender, ours.values, ours.ratio) == ("tunrouter", [4, 8], None)
    assert theirs.values == [2, 2]
    assert theirs.ratio == Summary(0.5, 0.5, 0.5, 0.0), "of the only round in which both have a value"


def test_a_figure_without_a_value_has_no_row() -> None:
    matches = [Match(FakeScenario("s", {"c": [None]}), (C,))]
    assert rows(matches, rounds.run(matches, 1, 1)) == []


def test_a_programming_error_ends_the_run() -> None:
    with pytest.raises(KeyError):
        rounds.run([Match(FakeScenario("s", {}), (A,))], 1, 1)


def samples(contender: str, *values: float) -> list[Sample]:
    return [Sample(number, "s", contender, {"f": value}, 1.0) for number, value in enumerate(values, 1)]


def test_a_summary_is_the_median_the_extremes_and_the_mad() -> None:
    assert Summary.of([5.0]) == Summary(5, 5, 5, 0)
    assert Summary.of([1, 2, 3, 4, 100]) == Summary(3, 1, 100, 1)
    assert summary(samples("a", 3, 1), "a", "f") == Summary(2, 1, 3, 1)
    assert summary(samples("a", 3, 1), "b", "f") is None


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds() -> None:
    both = samples("a", 20, 30, 40) + samples("b", 10, 10, 20)
    assert ratio(both, "a", "b", "f") == Summary(3.0, 2.0, 3.0, 1.0)
    assert ratio(both, "a", "absent", "f") is None


def test_a_ratio_to_nothing_is_none() -> None:
    assert ratio(samples("a", 20) + samples("b", 0), "a", "b", "f") is None
