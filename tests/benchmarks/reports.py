"""Made-up measurements for the tests of what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.report import Column, Entrant, Report, Stage, Underlay
from tunrouter.bench.machine import Machine
from tunrouter.bench.rounds import Sample

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""By contender and figure, one a round; NaN: that turn failed."""
MACHINE = Machine("Linux 6.18 x86_64", "a processor", 2, 4096, "cubic", "3.11", "3.12")


def column(name: str, *, lower: bool = False, unit: str = "Mbit/s") -> Column:
    return Column(name, f"title of {name}", unit, "lower" if lower else "higher", name.partition("-p")[0])


def stage(values: Values, *columns: Column, underlay: str = "default",
          absent: Mapping[str, str] | None = None) -> Stage:  # fmt: skip
    scenario = {each.name: each.scenario for each in columns}
    samples = [
        Sample(at + 1, scenario[figure], contender, {figure: value} if value == value else {}, 1.0,
               "" if value == value else "it broke")
        for contender, figures in values.items()
        for figure, series in figures.items()
        for at, value in enumerate(series)
    ]  # fmt: skip
    entrants = [Entrant(name, f"version of {name}", 1400, 1460) for name in values]
    return Stage(Underlay(underlay, f"the {underlay} underlay"), list(columns), entrants, dict(absent or {}), samples)


def report(*stages: Stage) -> Report:
    return Report(MACHINE, "abc123", "2026-11-24T00:00:00+00:00", "python -m benchmarks.compare", 3, 1, 1, list(stages))
