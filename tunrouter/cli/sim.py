"""`tunrouter sim [SCENARIO]`: a cluster of real cores in virtual time, for who plans one.

Law: progress goes to stderr, the report to stdout, as text or JSON and nothing else. Exits 1 if the cluster does not
heal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import typer

from tunrouter.cli.settings import one_of
from tunrouter.errors import ConfigError

if TYPE_CHECKING:
    from tunrouter.sim.scenario import Report, Scenario

SCENARIOS: Final = ("churn", "partition", "restart-storm")
"""Those that the package brings."""
_SHIPPED: Final = Path(__file__).parents[1] / "sim" / "scenarios"


def run(file: str | None, flags: Mapping[str, str | None], output: str) -> None:
    one_of("output", output, ("text", "json"))
    from tunrouter.sim.scenario import Run, check

    scenario = _scenario(file, flags)
    check(scenario)
    report = Run(scenario, _progress()).run()
    if output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        _show(report)
    if report.settled is None or report.faults:
        raise typer.Exit(1)


def _scenario(file: str | None, flags: Mapping[str, str | None]) -> Scenario:
    from tunrouter.sim.scenario import Scenario, read

    base = Scenario() if file is None else read(_SHIPPED / f"{file}.toml" if file in SCENARIOS else Path(file))
    given: dict[str, object] = {
        name: _number(name, text) for name, text in flags.items() if text is not None and name != "delay"
    }
    if (delay := flags.get("delay")) is not None:
        least, dash, most = delay.partition("-")
        given["delay"] = [_number("delay", least), _number("delay", most if dash else least)]
    try:
        return msgspec.convert(msgspec.to_builtins(base) | given, type(base))
    except msgspec.ValidationError as error:
        raise ConfigError(str(error), "see `tunrouter sim --help`") from None


def _number(name: str, text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--{name} {text!r} is no number", "see `tunrouter sim --help`") from None


class _progress:  # noqa: N801 (a function with a memory)
    """One line that is written over on a terminal, a line for each ten seconds elsewhere."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self, words: str) -> None:
        self._said += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{words}")
            sys.stderr.flush()
        elif self._said % 10 == 1 or not words.startswith("second"):
            typer.echo(words, err=True)


def _show(report: Report) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    settled = "never" if report.settled is None else f"{report.settled:.2f} s after the end"
    rows = [
        ("nodes", str(report.nodes)),
        ("virtual time", f"{report.seconds:g} s, seed {report.seed}, trace {report.trace}"),
        ("changes", f"{report.changes}, {report.unreached} not everywhere within 10 s"),
        ("reached all in", f"{report.reached_median:.3f} s (median), {report.reached_worst:.3f} s (worst)"),
        ("each node sends", f"{report.bytes_per_second:.0f} B/s, {report.datagrams_per_second:.1f} datagrams/s"),
        ("views agreed", settled),
        ("state of a node", f"{report.state_kib:.0f} KiB of this process"),
        *(("fault", fault) for fault in report.faults),
    ]
    for head, text in rows:
        typer.echo(f"{head:>16}: {text}")
