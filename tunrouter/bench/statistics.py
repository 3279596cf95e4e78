"""What the rounds say: medians with their spread, and ratios of values taken in the same round.

Law: no mean and no best run: a median, the extremes, and the median absolute deviation (MAD), which one disturbed round
does not move. A ratio of two contenders is the ratio of their medians; its spread is that of the ratios round by round.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from tunrouter.bench.rounds import Sample


class Summary(msgspec.Struct, frozen=True):
    """Of the values of one figure."""

    median: float
    min: float
    max: float
    mad: float
    """Median of the distances to the median."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Of at least one value."""
        median = statistics.median(values)
        deviation = statistics.median(abs(value - median) for value in values)
        return cls(median, min(values), max(values), deviation)


def by_round(samples: Iterable[Sample], contender: str, figure: str) -> dict[int, float]:
    """A contender's values of a figure, by the number of the round."""
    return {
        sample.round: sample.values[figure]
        for sample in samples
        if sample.contender == contender and figure in sample.values
    }


def summary(samples: Iterable[Sample], contender: str, figure: str) -> Summary | None:
    """None where there is no value."""
    values = list(by_round(samples, contender, figure).values())
    return Summary.of(values) if values else None


def ratio(samples: Sequence[Sample], contender: str, base: str, figure: str) -> Summary | None:
    """The contender's value in units of the base's, over the rounds in which both have one; None: there are none."""
    ours, theirs = by_round(samples, contender, figure), by_round(samples, base, figure)
    both = sorted(number for number in ours.keys() & theirs.keys() if theirs[number])
    if not both:
        return None
    rounds = [ours[number] / theirs[number] for number in both]
    whole = statistics.median(ours[number] for number in both) / statistics.median(theirs[number] for number in both)
    deviation = statistics.median(abs(each - whole) for each in rounds)
    return Summary(whole, min(rounds), max(rounds), deviation)
