"""Whether one revision is slower than another: the ratios of their values, round by round, and what chance would do.

Law: both were measured in the same rounds. A figure is `slower` only if the median of the ratios is below the bound and
so many rounds lie below it that a fair coin would do it in less than one of twenty runs (the sign test); a median below
the bound with fewer such rounds is `unclear`, and more rounds decide.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Final, Literal

from benchmarks.report import Column
from tunrouter.bench.rounds import Sample
from tunrouter.bench.statistics import by_round

KEPT: Final = 0.95
"""The share of its performance that a revision must keep."""
CHANCE: Final = 0.05
ROUNDS: Final = 5
"""Fewer can never rule out chance."""
Word = Literal["kept", "slower", "unclear", "not measured"]


@dataclass(frozen=True)
class Pair:
    """One figure of two revisions. Ratios are performance, new : base, so that less is worse whatever is measured."""

    column: Column
    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def word(self) -> Word:
        if not self.ratios:
            return "not measured"
        if self.median >= KEPT:
            return "kept"
        below = sum(ratio < KEPT for ratio in self.ratios)
        return "slower" if chance(below, len(self.ratios)) < CHANCE else "unclear"


def chance(below: int, rounds: int) -> float:
    """How likely a fair coin shows heads at least `below` times in `rounds`."""
    return sum(comb(rounds, heads) for heads in range(below, rounds + 1)) / float(2**rounds)


def pair(samples: Sequence[Sample], column: Column, *, new: str, base: str) -> Pair:
    ours, theirs = by_round(samples, new, column.name), by_round(samples, base, column.name)
    both = sorted(number for number in ours.keys() & theirs.keys() if ours[number] and theirs[number])
    ratios = (ours[number] / theirs[number] for number in both)
    return Pair(column, tuple(1 / each if column.better == "lower" else each for each in ratios))


def slower(pairs: Sequence[Pair]) -> bool:
    """Whether anything became slower, or could not be measured at all."""
    return any(each.word in {"slower", "not measured"} for each in pairs)
