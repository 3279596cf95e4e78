"""Every contender, every scenario, every underlay, and the gates: `python -m benchmarks.compare`, `make bench-compare`.

    --only tunrouter,wireguard-go --scenario tcp-1 --rounds 7      a part of it

Law: the raw values are saved after every turn, so a run that is cut off loses nothing; a whole run renews
`results/compare.*`, a part of one `results/part.*`, unless told otherwise. Exit 1: a gate that was measured is not met.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import baseline, contest, plot, table
from benchmarks.gates import OURS, Verdict, judge
from benchmarks.report import Report, Stage, Underlay
from tunrouter.bench import plot as drawing
from tunrouter.bench.agent import PACKAGE
from tunrouter.bench.fabric import Offloads
from tunrouter.bench.machine import Machine, revision
from tunrouter.bench.progress import Progress
from tunrouter.bench.scenarios import LARGE, chosen, standard
from tunrouter.errors import ConfigError, HostError, TunrouterError

RESULTS: Final = Path(__file__).parent / "results"
UNDERLAYS: Final = (
    Underlay("default", "MTU 1500, offloads off: real datagrams of at most the MTU"),
    Underlay("gro", "MTU 1500, GRO on at the receiving host, as real cards have it", offloads="gro"),
    Underlay("offloads", "MTU 1500, all offloads on: super-packets cross the underlay whole", offloads="on"),
    Underlay("mtu-9000", "MTU 9000, offloads off", mtu=9000),
)
SCENARIOS: Final[dict[str, tuple[str, ...]]] = {"gro": ("tcp-1",), "offloads": ("tcp-1",), "mtu-9000": ("tcp-1",)}
"""On underlays other than the default one, where all of them are measured."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.compare", description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=positive, default=3, help="of each measurement")
    parser.add_argument("--only", type=names, metavar="NAME,…", help=f"of {', '.join(contest.CONTENDERS)}")
    parser.add_argument("--scenario", type=names, metavar="NAME,…", help="of those of `tunrouter bench`")
    parser.add_argument("--offloads", choices=("off", "gro", "on"), help="one underlay with these, instead of all")
    parser.add_argument("--mtu", type=positive, help="one underlay of this MTU, instead of all")
    parser.add_argument("--output", type=Path, metavar="STEM", help="where .json, .md and .png are written")
    parser.add_argument("--set-baseline", action="store_true", help="later revisions are compared with this one")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def entrants(only: Sequence[str] | None) -> dict[str, contest.Opener]:
    """The contenders of these names; all if none is named. tunrouter is always one."""
    for name in only or ():
        if name not in contest.CONTENDERS:
            raise ConfigError(f"{name!r} is no contender", f"choose from {', '.join(contest.CONTENDERS)}")
    return {name: opener for name, opener in contest.CONTENDERS.items() if not only or name in only or name == OURS}


def underlays(offloads: Offloads | None, mtu: int | None) -> tuple[Underlay, ...]:
    """All; or the one with these properties, under its known name if it has one."""
    if offloads is None and mtu is None:
        return UNDERLAYS
    wanted: tuple[Offloads, int] = (offloads or "off", mtu or 1500)
    known = tuple(each for each in UNDERLAYS if (each.offloads, each.mtu) == wanted)
    return known or (Underlay(f"{wanted[0]}-{wanted[1]}", f"MTU {wanted[1]}, offloads {wanted[0]}", *wanted),)


def scenarios(underlay: Underlay, wanted: Sequence[str] | None, *, alone: bool) -> tuple[str, ...]:
    """What is measured on this underlay; empty: everything. An underlay asked for alone gets what was asked for."""
    usual = () if alone else SCENARIOS.get(underlay.name, ())
    return tuple(name for name in wanted if not usual or name in usual) if wanted else usual


def plan(options: argparse.Namespace) -> list[tuple[Underlay, tuple[str, ...]]]:
    """The stages of a run with their scenarios."""
    wanted = underlays(options.offloads, options.mtu)
    alone = len(wanted) == 1
    stages = [(each, scenarios(each, options.scenario, alone=alone)) for each in wanted]
    return [(each, found) for each, found in stages if found or not options.scenario]


def whole(options: argparse.Namespace) -> bool:
    return not (options.only or options.scenario or options.offloads or options.mtu)


def run(options: argparse.Namespace, argv: Sequence[str], stem: Path, progress: Progress) -> Report:
    """All stages one after the other; saved after every turn, table and picture after every stage."""
    openers = entrants(options.only)
    command = shlex.join(["python", "-m", "benchmarks.compare", *argv])
    started = datetime.now(UTC).isoformat(timespec="seconds")
    report = Report(Machine.here(), revision(PACKAGE), started, command, options.rounds, options.seconds)
    for underlay, wanted in plan(options):
        progress.say(underlay.title)
        stage = Stage(underlay)
        report.stages.append(stage)
        try:
            contest.run(stage, openers, wanted, repeat=options.rounds, seconds=options.seconds, progress=progress,
                        save=lambda: report.save(stem.with_suffix(".json")))  # fmt: skip
        finally:
            write(report, stem)
    return report


def write(report: Report, stem: Path) -> list[Verdict]:
    """The table and the picture of what there is."""
    verdicts = judge(report.stages)
    stem.with_suffix(".md").write_text(table.render(report, verdicts))
    plot.draw(report, stem.with_suffix(".png"))
    return verdicts


def compare(options: argparse.Namespace, argv: Sequence[str]) -> int:
    if os.geteuid():
        raise HostError("namespaces and TUN devices need root", "sudo make bench-compare")
    chosen(standard(LARGE), options.scenario or ())
    entrants(options.only)
    commit = baseline.clean_commit(PACKAGE) if options.set_baseline else ""
    stem = options.output or RESULTS / ("compare" if whole(options) else "part")
    stem.parent.mkdir(parents=True, exist_ok=True)
    drawing.check(stem.with_suffix(".png"))
    report = run(options, argv, stem, Progress())
    verdicts = judge(report.stages)
    sys.stdout.write(table.render(report, verdicts))
    if commit:
        baseline.write(baseline.Baseline.of(report, verdicts, commit))
    return int(any(each.failed for each in verdicts))


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    try:
        return compare(options, argv)
    except TunrouterError as error:
        sys.stderr.write(f"bench-compare: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
