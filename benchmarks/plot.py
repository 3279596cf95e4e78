"""A report as a picture: one panel a figure, one bar a contender, whiskers from the lowest round to the highest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.gates import OURS, PLAIN
from benchmarks.report import Column, Report, Stage
from tunrouter.bench.statistics import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_A_ROW: Final = 3
OTHERS_COLOUR: Final = "#b8c4c9"
COLOURS: Final = {OURS: "#1f6f8b", PLAIN: "#8fb7c5"}
SKIPPED: Final = ("-cpu", "-p90", "memory")
"""Ends of figures that the table has and the picture does without."""


def draw(report: Report, path: Path) -> None:
    """Writes a PNG; `tunrouter.bench.plot.check` says beforehand whether that can be done."""
    from matplotlib.figure import Figure

    panels = [
        (stage, column)
        for stage in report.stages
        for column in stage.figures
        if not column.name.endswith(SKIPPED) and stage.samples
    ]
    if not panels:
        return
    rows = -(-len(panels) // PANELS_A_ROW)
    picture = Figure(figsize=(4.6 * PANELS_A_ROW, 2.5 * rows + 0.5), layout="constrained")
    grid = list(picture.subplots(rows, PANELS_A_ROW, squeeze=False).flat)
    for axes, (stage, column) in zip(grid, panels, strict=False):
        panel(axes, stage, column)
    for axes in grid[len(panels):]:  # fmt: skip
        axes.set_visible(False)
    picture.suptitle(f"pod to pod between two hosts; {report.place}; revision {report.revision}")
    picture.savefig(path, dpi=110, format="png")


def panel(axes: Axes, stage: Stage, column: Column) -> None:
    found = [(entrant.name, summary(stage.samples, entrant.name, column.name)) for entrant in stage.entrants]
    shown = [(name, value) for name, value in found if value]
    names = [name for name, _ in shown]
    medians = [value.median for _, value in shown]
    spread = [[value.median - value.min for _, value in shown], [value.max - value.median for _, value in shown]]
    colours = [COLOURS.get(name, OTHERS_COLOUR) for name in names]
    bars = axes.barh(names, medians, xerr=spread, color=colours, error_kw={"elinewidth": 1, "ecolor": "#444"})
    axes.bar_label(bars, labels=[f" {value:,.0f}" for value in medians], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    direction = " (less is better)" if column.better == "lower" else ""
    where = "" if stage.underlay.name == "default" else f"\n{stage.underlay.title.partition(':')[0]}"
    axes.set_title(f"{column.title}, {column.unit}{direction}{where}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
