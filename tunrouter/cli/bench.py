"""`tunrouter bench [PEER]`: a lab on this machine, or the path to a live peer, measured.

Law: progress goes to stderr, the result to stdout, as text or JSON and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import typer

from tunrouter.cli.settings import agent, one_of
from tunrouter.cli.text import printable
from tunrouter.errors import ConfigError, HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunrouter.bench.peer import PeerReport, Side
    from tunrouter.bench.report import Failure, Report, Row
    from tunrouter.bench.statistics import Summary

ROUNDS: Final = 5
SECONDS: Final = 3
QUICK: Final = 1
"""Rounds and seconds of a quick look."""
MOST: Final = 1000
MTUS: Final = ("1500", "9000")
OFFLOADS: Final = ("off", "gro", "on")
PEER_HEADS: Final = ("scenario", "median", "least to most", "unit")
HEADS: Final = ("scenario", "tunnel", "median", "least to most", "unit", "× tunrouter")


@dataclass(frozen=True)
class Flags:
    """As they were given; None: not at all."""

    scenarios: tuple[str, ...]
    rounds: str | None
    seconds: str | None
    quick: bool
    mtu: str
    offloads: str
    workers: str | None
    no_encryption: bool
    output: str
    plot: str | None


def run(flags: Flags, socket: str | None = None) -> None:
    if socket is not None:
        raise ConfigError("--socket is for a live peer, the lab has agents of its own", "name a PEER, or leave it out")
    one_of("output", flags.output, ("text", "json"))
    one_of("mtu", flags.mtu, MTUS)
    one_of("offloads", flags.offloads, OFFLOADS)
    from tunrouter.bench import plot, suite
    from tunrouter.bench.progress import Progress

    options = suite.Options(
        scenarios=tuple(name for given in flags.scenarios for name in given.split(",")),
        rounds=_count("rounds", flags.rounds, QUICK if flags.quick else ROUNDS),
        seconds=_count("seconds", flags.seconds, QUICK if flags.quick else SECONDS),
        quick=flags.quick,
        mtu=int(flags.mtu),
        offloads=flags.offloads,  # type: ignore[arg-type]  # one_of has checked it
        workers=_count("workers", flags.workers, 0),
        encryption=not flags.no_encryption,
    )
    options.check()
    picture = Path(flags.plot) if flags.plot else None
    if picture:
        plot.check(picture)
    report = suite.run(options, Progress())
    if flags.output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        _show(report)
    if picture and report.figures:
        plot.draw(report.figures, _title(report), picture)
    _refuse_failures(report.failures)


def run_peer(peer: str, flags: Flags, socket: str | None) -> None:
    one_of("output", flags.output, ("text", "json"))
    lab_only = {
        "--mtu": flags.mtu != MTUS[0],
        "--offloads": flags.offloads != OFFLOADS[0],
        "--workers": flags.workers is not None,
        "--no-encryption": flags.no_encryption,
        "--plot": flags.plot is not None,
    }
    for option, given in lab_only.items():
        if given:
            raise ConfigError(f"{option} is for the lab, a live peer is measured as it is", f"leave {option} out")
    from tunrouter.bench import peer as live
    from tunrouter.bench.progress import Progress

    options = live.Options(
        peer=peer,
        scenarios=tuple(name for given in flags.scenarios for name in given.split(",")),
        rounds=_count("rounds", flags.rounds, 1),
        seconds=_count("seconds", flags.seconds, QUICK if flags.quick else SECONDS),
        quick=flags.quick,
    )
    report = live.run(options, agent(socket), Progress())
    if flags.output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        _show_peer(report)
    _refuse_failures(report.failures)


def _refuse_failures(failures: Sequence[Failure]) -> None:
    if failures:
        first, count = failures[0], len(failures)
        what = (
            f"{count} measurement{'s' if count > 1 else ''} failed, the first: {first.scenario} over {first.contender}"
        )
        raise HostError(f"{what}: {first.reason}")


def _count(option: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise ConfigError(f"--{option} {text!r} is no number from 1 to {MOST}", f"for example: --{option} 5")
    return int(text)


def _show(report: Report) -> None:
    from rich.console import Console

    from tunrouter.bench.screen import Screen

    screen = Screen(Console(highlight=False))
    screen.say(_title(report))
    for variant in report.variants:
        sealed = "encrypted" if variant.encryption else "not encrypted"
        screen.say(
            f"{variant.name}: {sealed}, underlay MTU {variant.mtu}, pods {variant.pod_mtu}, "
            f"largest frame seen {variant.largest_frame:,} bytes"
        )
    rounds = report.settings.rounds
    title = f"{rounds} round{'s' if rounds > 1 else ''} of {report.settings.seconds} s, {report.elapsed:.0f} s in all:"
    screen.table(title, HEADS, [_cells(row) for row in report.figures])


def _show_peer(report: PeerReport) -> None:
    from rich.console import Console

    from tunrouter.bench.screen import Screen

    screen = Screen(Console(highlight=False))
    path, settings = report.path, report.settings
    screen.say(f"{_side(report.local)} to {_side(report.peer)}")
    sealed = "encrypted" if path.encryption else "not encrypted"
    screen.say(f"{printable(path.endpoint)}, {printable(path.path)}, {sealed}, path MTU {path.mtu}")
    rounds = settings.rounds
    title = f"{rounds} round{'s' if rounds > 1 else ''} of {settings.seconds} s, {report.elapsed:.0f} s in all:"
    screen.table(title, PEER_HEADS, [_peer_cells(row, spread=rounds > 1) for row in report.figures])


def _side(side: Side) -> str:
    name = f"{side.name}({side.nickname})" if side.nickname else side.name
    return printable(f"{name}, kernel {side.kernel}, {side.workers} worker{'s' if side.workers > 1 else ''}")


def _peer_cells(row: Row, *, spread: bool) -> tuple[str, ...]:
    extremes = f"{_number(row.summary.min)} to {_number(row.summary.max)}" if spread else ""
    return row.title, _number(row.summary.median), extremes, row.unit


def _title(report: Report) -> str:
    product, settings, machine = report.tunrouter, report.settings, report.machine
    revision = f" {product.revision}" if product.revision else ""
    return (
        f"tunrouter {product.version}{revision}, kernel {product.kernel}; underlay MTU {settings.mtu}, "
        f"offloads {settings.offloads}; {machine.cpus} × {machine.cpu}, {machine.system}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    spread = f"{_number(row.summary.min)} to {_number(row.summary.max)}"
    return row.title, row.contender, _number(row.summary.median), spread, row.unit, _ratio(row.ratio)


def _ratio(ratio: Summary | None) -> str:
    return f"{ratio.median:.2f}" if ratio else ""


def _number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
