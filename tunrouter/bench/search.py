"""The highest rate that passes, in the manner of RFC 2544 (26.1): up until a trial fails, then bisection.

Law: the trials are short, so one that fails, or whose sender could not offer what it was asked for, is tried again
before it counts, since a busy machine may hold up anybody; and what is returned was delivered in a trial that passed,
never interpolated.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Final

from tunrouter.bench.instruments import Trial
from tunrouter.errors import HostError

LOSS: Final = 0.005
START: Final = 16_000.0
LOWEST: Final = 100.0
KEPT_UP: Final = 0.95
"""A sender that twice cannot offer this share of what it was asked for has come to its own end."""


def highest_rate(trial: Callable[[float], Trial], *, resolution: float, start: float = START) -> Trial:
    """The passing trial with the most delivered; two rates in the ratio of 1 + `resolution` are not told apart."""
    best: Trial | None = None
    low, high = 0.0, float("inf")
    rate = start
    while high > low * (1 + resolution):
        attempt = _passing(trial, rate)
        if attempt and (best is None or attempt.delivered > best.delivered):
            best = attempt
        if attempt and _kept_up(attempt):
            low = rate
        else:
            high = rate
            low = max(low, attempt.delivered if attempt else 0.0)
        if high < LOWEST:
            raise HostError(f"more than {LOSS:.1%} of the datagrams are lost at any rate")
        rate = _between(low, high)
    assert best
    return best


def _between(low: float, high: float) -> float:
    if high == float("inf"):
        return low * 2
    return sqrt(low * high) if low else high / 2


def _passing(trial: Callable[[float], Trial], rate: float) -> Trial | None:
    """Of two trials at `rate` the one that passed, the more delivered if both did; the second only if it is needed."""
    passed: list[Trial] = []
    for _ in range(2):
        attempt = trial(rate)
        if attempt.lost < LOSS:
            passed.append(attempt)
            if _kept_up(attempt):
                break
    return max(passed, key=lambda attempt: attempt.delivered, default=None)


def _kept_up(attempt: Trial) -> bool:
    return attempt.offered >= attempt.asked * KEPT_UP
