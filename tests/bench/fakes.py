"""Contenders and scenarios that measure nothing, so that the rounds around them can be tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunrouter.bench.contender import Contender, End, Figure
from tunrouter.bench.namespaces import Namespace
from tunrouter.errors import HostError


@dataclass
class FakeContender:
    name: str
    version: str = "1"
    losses: list[float] = field(default_factory=list)

    @property
    def ends(self) -> tuple[End, End]:
        one, two = (End(Namespace(f"{self.name}-{number}"), f"10.0.0.{number}") for number in (1, 2))
        return one, two

    def cpu_seconds(self) -> float | None:
        return None

    def resident_mib(self) -> float | None:
        return 90.0

    def lose(self, percent: float) -> None:
        self.losses.append(percent)

    def close(self) -> None:
        pass


@dataclass
class FakeScenario:
    """Yields, for each contender, the next of its values; one that is None fails."""

    name: str
    values: dict[str, list[float | None]]
    title: str = "a fake"
    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (Figure(self.name, self.title, "things"),)

    def run(self, contender: Contender, seconds: int) -> Mapping[str, float]:
        self.asked.append((contender.name, seconds))
        value = self.values[contender.name].pop(0)
        if value is None:
            raise HostError("it broke")
        return {self.name: value}
