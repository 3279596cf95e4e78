"""A slower revision is told from chance, in both directions of a figure."""

from __future__ import annotations

from math import nan

import pytest

from benchmarks.pairs import chance, pair, slower
from tests.benchmarks.reports import Values, column, stage


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ((1.0, 1.02, 0.97, 0.96, 1.1), "kept"),
        ((0.9, 0.93, 0.94, 0.91, 0.92), "slower"),
        ((0.9, 0.93, 0.94, 1.2, 1.1), "unclear"),
        ((0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.3), "slower"),
        ((0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.3, 1.3), "unclear"),
        ((0.5, 0.5, 0.5, 0.5), "unclear"),
        ((), "not measured"),
    ],
)
def test_the_word_follows_from_the_median_and_the_sign_test(ratios: tuple[float, ...], word: str) -> None:
    values: Values = {"base": {"tcp-1": [100.0] * len(ratios)}, "new": {"tcp-1": [100.0 * ratio for ratio in ratios]}}
    found = pair(stage(values, column("tcp-1")).samples, column("tcp-1"), new="new", base="base")
    assert found.word == word
    assert slower([found]) == (word in {"slower", "not measured"})


def test_a_longer_round_trip_is_slower() -> None:
    figure = column("rtt-p50", lower=True)
    values: Values = {"base": {"rtt-p50": [100.0] * 5}, "new": {"rtt-p50": [110.0] * 5}}
    found = pair(stage(values, figure).samples, figure, new="new", base="base")
    assert found.median == pytest.approx(1 / 1.1)
    assert found.word == "slower"


def test_values_of_the_same_round_are_paired() -> None:
    values: Values = {"base": {"tcp-1": [100.0, nan, 400.0]}, "new": {"tcp-1": [100.0, 200.0, 400.0]}}
    found = pair(stage(values, column("tcp-1")).samples, column("tcp-1"), new="new", base="base")
    assert found.ratios == (1.0, 1.0)


def test_chance_is_the_binomial_tail() -> None:
    assert chance(5, 5) == 1 / 32
    assert chance(0, 7) == 1
    assert chance(7, 8) == pytest.approx(9 / 256)
