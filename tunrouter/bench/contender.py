"""The contract of a benchmark: who runs, what is measured, and in which units.

    contender   two pods' ends and whatever joins them: tunrouter, a rival, or nothing but cables
    scenario    a way to send traffic from one end to the other, and the figures that come out of it

Law: a scenario knows nothing of a contender but this page, so that every contender gets the same packets in the same
way; a contender knows nothing of scenarios. Either raises a TunrouterError for what cannot be had or measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from tunrouter.bench.namespaces import Namespace

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class End:
    """Where traffic starts and ends: a pod. `namespace` may be entered, `address` is what the other end sends to."""

    namespace: Namespace
    address: str


class Contender(Protocol):
    """Made by a context or factory of its own; ready to carry traffic when a scenario sees it, until `close`."""

    @property
    def name(self) -> str:
        """As in the tables' heads: `tunrouter`, `wireguard-go`, `veth`. Unique in a run."""

    @property
    def version(self) -> str:
        """Of the program that does the work, with what a reader must know besides, as `0.1.0 (kernel c)`."""

    @property
    def ends(self) -> tuple[End, End]:
        """The first end is the client of every scenario. Their `eth0` has the MTU that the contender chose for pods."""

    def cpu_seconds(self) -> float | None:
        """Processor time of all its processes on both hosts since they started; None: it has none, the kernel works."""

    def resident_mib(self) -> float | None:
        """Resident memory of the same processes; None as above."""

    def lose(self, percent: float) -> None:
        """From now on the underlay drops this share of the frames of either direction at random; 0 ends it."""

    def close(self) -> None:
        """Ends its processes; what is in namespaces goes with its lab. May be called twice."""


@dataclass(frozen=True)
class Figure:
    """One number that a scenario yields in every round."""

    name: str
    """Unique among all scenarios: `tcp-1`, `rtt-p99`."""
    title: str
    unit: str
    better: Better = "higher"


class Scenario(Protocol):
    @property
    def name(self) -> str:
        """As it is chosen on the command line: `tcp-1`, `rtt`."""

    @property
    def title(self) -> str:
        """What it does, in half a line."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The first is the one the scenario is about."""

    def run(self, contender: Contender, seconds: int) -> Mapping[str, float]:
        """Measures once, for about `seconds`; values by figure name. What this contender lacks is left out."""
