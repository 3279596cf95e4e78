"""Rows as a picture: a panel for each unit, a bar for each figure and contender, whiskers from the least to the most.

Law: axes begin at 0, and what is better is said on each panel. matplotlib is an extra, asked for before a run begins.
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunrouter.bench.report import Row
from tunrouter.errors import ConfigError, HostError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH: Final = 9.0
BAR_HEIGHT: Final = 0.3
PANEL_HEIGHT: Final = 0.7
"""Inches, as matplotlib has them."""
TITLE_COLUMNS: Final = 100
COLOURS: Final = ("#2b6cb0", "#dd6b20", "#718096", "#2f855a", "#b83280", "#d69e2e", "#319795")


def check(file: Path) -> None:
    """Whether a picture can be drawn there in the end; ConfigError or HostError if not."""
    if file.suffix.lower() != ".png":
        raise ConfigError(f"{str(file)!r} is no name of a PNG file", "let it end in .png")
    if not file.parent.is_dir():
        raise ConfigError(f"there is no directory {file.parent}", "create it, or choose another")
    if importlib.util.find_spec("matplotlib") is None:
        raise HostError("a plot needs matplotlib, which is not installed", "pip install 'tunrouter[bench]'")


def draw(rows: Sequence[Row], title: str, file: Path) -> None:
    """Writes the PNG; rows of one unit share a panel."""
    from matplotlib.figure import Figure

    panels = _panels(rows)
    contenders = list(dict.fromkeys(row.contender for row in rows))
    bars = [len(panel) for panel in panels]
    height = PANEL_HEIGHT * len(panels) + BAR_HEIGHT * sum(bars)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, TITLE_COLUMNS), fontsize="small")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": bars})
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _panel(axes, panel, contenders)
    if len(contenders) > 1:
        _legend(grid[0, 0], contenders)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise HostError(f"cannot write {file}: {error.strerror}", "choose another file") from None


def _panels(rows: Sequence[Row]) -> list[list[Row]]:
    units = dict.fromkeys(row.unit for row in rows)
    return [[row for row in rows if row.unit == unit] for unit in units]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _panel(axes: Axes, rows: Sequence[Row], contenders: Sequence[str]) -> None:
    places = range(len(rows))
    medians = [row.summary.median for row in rows]
    below = [row.summary.median - row.summary.min for row in rows]
    above = [row.summary.max - row.summary.median for row in rows]
    colours = [_colour(contenders.index(row.contender)) for row in rows]
    axes.barh(places, medians, xerr=[below, above], color=colours, ecolor="#1a202c", capsize=2, height=0.7)
    axes.set_yticks(places, [row.title for row in rows], fontsize="small")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{rows[0].unit} ({rows[0].better} is better)", fontsize="small")
    axes.bar_label(axes.containers[-1], fmt="{:,.4g}", fontsize="x-small", padding=3)  # type: ignore[arg-type]
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, contenders: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=_colour(at), label=name) for at, name in enumerate(contenders)]
    axes.legend(handles=patches, fontsize="x-small", loc="best")
