"""Takes contenders in turns: round by round, every scenario over each of its contenders.

    round 1   tcp-1: A B C   udp-64: A B C   …
    round 2   tcp-1: C B A   udp-64: C B A
    round 3   tcp-1: B C A   …

Law: what drifts on the machine hits all contenders alike, because a round lasts minutes at most and no contender always
goes first; a ratio compares values of the same round. Every value is kept. What fails is kept too, with its reason, and
does not end the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from tunrouter.bench.contender import Contender, Scenario
from tunrouter.errors import TunrouterError

T = TypeVar("T")


@dataclass(frozen=True)
class Match:
    """One scenario and who takes part in it."""

    scenario: Scenario
    contenders: tuple[Contender, ...]


class Sample(msgspec.Struct, frozen=True):
    """One scenario over one contender, once."""

    round: int
    """From 1."""
    scenario: str
    contender: str
    values: dict[str, float]
    """By figure name."""
    seconds: float
    """How long it took in all."""
    error: str = ""
    """Why there are no values."""


def turns(matches: Sequence[Match], rounds: int) -> Iterator[tuple[int, Scenario, Contender]]:
    """The order of a whole run, with the number of the round."""
    for number in range(1, rounds + 1):
        for match in matches:
            for contender in order(match.contenders, number):
                yield number, match.scenario, contender


def order(contenders: Sequence[T], number: int) -> tuple[T, ...]:
    """Odd rounds go forth, even ones back, and each such pair of rounds starts one further on."""
    shift = (number - 1) // 2 % max(len(contenders), 1)
    rotated = (*contenders[shift:], *contenders[:shift])
    return rotated if number % 2 else rotated[::-1]


def take(number: int, scenario: Scenario, contender: Contender, seconds: int) -> Sample:
    """One turn; its failure is a sample without values."""
    started = time.monotonic()
    values: dict[str, float] = {}
    error = ""
    try:
        values = dict(scenario.run(contender, seconds))
    except TunrouterError as failure:
        error = str(failure)
    return Sample(number, scenario.name, contender.name, values, time.monotonic() - started, error)


def run(
    matches: Sequence[Match],
    rounds: int,
    seconds: int,
    watch: Callable[[Sample], None] = lambda _: None,
    *,
    begin: Callable[[int, Scenario, Contender], None] = lambda *_: None,
) -> list[Sample]:
    """All turns, in order; `begin` is told each turn before it is taken, `watch` its sample."""
    samples = []
    for number, scenario, contender in turns(matches, rounds):
        begin(number, scenario, contender)
        sample = take(number, scenario, contender, seconds)
        samples.append(sample)
        watch(sample)
    return samples
