"""A report as Markdown: who took part, the gates, and every figure's median with its spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.gates import OURS, VETH, WIREGUARD, Verdict
from benchmarks.report import Column, Report, Stage
from tunrouter.bench.statistics import Summary, ratio, summary

BASES = (WIREGUARD, VETH)
"""Whom our figures are divided by."""


def render(report: Report, verdicts: Sequence[Verdict]) -> str:
    """The whole page."""
    parts = [header(report), gates(verdicts)]
    parts += [stage_section(stage) for stage in report.stages]
    return "\n".join(parts)


def header(report: Report) -> str:
    rounds = f"{report.rounds} round{'s' if report.rounds > 1 else ''} of {report.seconds} s"
    return (
        f"{report.started}, revision {report.revision}; {report.place}.\n"
        f"{rounds}, contenders in turns; medians, in brackets the lowest and the highest round. "
        f"To repeat it: `{report.command}`.\n"
    )


def gates(verdicts: Iterable[Verdict]) -> str:
    """A ratio's spread is that of the ratios round by round."""
    rows = [
        (
            f"{each.gate.title}, × {each.gate.against}",
            f"{each.ratio.median:.2f} ({each.ratio.min:.2f}–{each.ratio.max:.2f})" if each.ratio else each.reason,
            each.gate.write(each.gate.bound),
            each.gate.write(each.gate.aim),
            each.word,
        )
        for each in verdicts
    ]
    return "## Gates\n\n" + markdown(("", "measured", "gate", "aim", ""), rows)


def stage_section(stage: Stage) -> str:
    names = [entrant.name for entrant in stage.entrants]
    bases = [base for base in BASES if base in names and OURS in names]
    heads = ["", *names, *(f"{OURS} × {base}" for base in bases)]
    empty = ("",) * len(bases)
    rows: list[tuple[str, ...]] = [
        ("pods' MTU", *(f"{entrant.mtu:,}" for entrant in stage.entrants), *empty),
        ("longest frame on the underlay", *(f"{entrant.largest_frame:,}" for entrant in stage.entrants), *empty),
    ]
    rows += [figure_row(stage, column, names, bases) for column in stage.figures]
    versions = ", ".join(f"{entrant.name} {entrant.version}" for entrant in stage.entrants)
    absent = "".join(f"Left out: {name}: {reason}.\n\n" for name, reason in stage.absent.items())
    return f"## {stage.underlay.title}\n\n{markdown(heads, rows)}\n{versions}.\n\n{absent}"


def figure_row(stage: Stage, column: Column, names: Sequence[str], bases: Sequence[str]) -> tuple[str, ...]:
    cells = (cell(summary(stage.samples, name, column.name)) for name in names)
    ratios = (ratio(stage.samples, OURS, base, column.name) for base in bases)
    return f"{column.title}, {column.unit}", *cells, *(f"{each.median:.2f}" if each else "n/a" for each in ratios)


def cell(value: Summary | None) -> str:
    """n/a: the contender has none, as processor time where no process does the work, or did not manage it."""
    return f"{number(value.median)} ({number(value.min)}–{number(value.max)})" if value else "n/a"


def number(value: float) -> str:
    """Three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
