"""The result of `tunrouter bench` as one value; `-o json` prints it, the table and the plot draw it.

Law: fields are only added, and `schema` grows when one changes its meaning; docs/benchmarks.md explains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from tunrouter.bench.contender import Better, Figure
from tunrouter.bench.fabric import Offloads
from tunrouter.bench.machine import Machine
from tunrouter.bench.rounds import Match, Sample
from tunrouter.bench.statistics import Summary, by_round, ratio, summary

SCHEMA: Final = 1
TUNROUTER: Final = "tunrouter"
"""The contender that the others' ratios refer to."""


class Product(msgspec.Struct, frozen=True):
    version: str
    revision: str
    """git's name of it; empty when it does not run from a checkout."""
    kernel: str
    """Of the data plane, as `tunrouter status` names it."""
    tun_offloads: tuple[str, ...]
    """What its TUN device leaves to be done late."""
    workers: int
    """Asked for; 0: as many as the agent starts by itself."""


class Settings(msgspec.Struct, frozen=True):
    rounds: int
    seconds: int
    mtu: int
    """Of the underlay."""
    offloads: Offloads
    """Of the underlay's cards."""
    encryption: bool
    large_payload: int
    """Bytes of `udp-1400`'s datagrams: 1,400, or what fits the pods' MTU in one piece."""


class Variant(msgspec.Struct, frozen=True):
    """One of the tunnels that were measured, and what its underlay was seen to carry."""

    name: str
    version: str
    encryption: bool
    mtu: int
    pod_mtu: int
    offloads: Offloads
    largest_frame: int
    """IP bytes of the largest frame that left a host, in a capture of a TCP stream through this tunnel."""


class Row(msgspec.Struct, frozen=True):
    """One figure of one contender."""

    scenario: str
    figure: str
    title: str
    contender: str
    unit: str
    better: Better
    values: list[float]
    """One a round, in their order, without the rounds that failed."""
    summary: Summary
    ratio: Summary | None
    """To `tunrouter`'s values of the same rounds."""


class Failure(msgspec.Struct, frozen=True):
    round: int
    scenario: str
    contender: str
    reason: str


class Report(msgspec.Struct, frozen=True):
    kind: Literal["tunrouter bench"]
    schema: int
    started: str
    """ISO 8601, UTC."""
    elapsed: float
    """Seconds, with setting up and tearing down."""
    tunrouter: Product
    machine: Machine
    settings: Settings
    variants: list[Variant]
    figures: list[Row]
    failures: list[Failure]


def rows(matches: Sequence[Match], samples: Sequence[Sample]) -> list[Row]:
    """Every figure that has a value, in the order of the scenarios and their contenders."""
    return [
        row
        for match in matches
        for figure in match.scenario.figures
        for contender in match.contenders
        if (row := _row(match.scenario.name, figure, contender.name, samples))
    ]


def _row(scenario: str, figure: Figure, contender: str, samples: Sequence[Sample]) -> Row | None:
    whole = summary(samples, contender, figure.name)
    if whole is None:
        return None
    values = [value for _, value in sorted(by_round(samples, contender, figure.name).items())]
    relative = None if contender == TUNROUTER else ratio(samples, contender, TUNROUTER, figure.name)
    return Row(scenario, figure.name, figure.title, contender, figure.unit, figure.better, values, whole, relative)


def failures(samples: Sequence[Sample]) -> list[Failure]:
    return [Failure(each.round, each.scenario, each.contender, each.error) for each in samples if each.error]
