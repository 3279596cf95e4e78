"""This checkout beside an older revision of it, in one lab, in turns: `python -m benchmarks.check`, `make bench-check`.

    base    the revision of benchmarks/baseline.json, or --base REV, in a worktree with its own build
    new     this checkout as it is, built in place

Law: exit 1 if a figure is slower (see `pairs`), 0 if all kept their speed; what the rounds cannot decide is said and
does not fail.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import baseline, contest, revisions, table
from benchmarks.compare import UNDERLAYS, names, positive
from benchmarks.pairs import KEPT, ROUNDS, Pair, pair, slower
from benchmarks.report import Stage
from tunrouter.bench.agent import PACKAGE
from tunrouter.bench.contenders.ours import Tunrouter
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.machine import revision
from tunrouter.bench.progress import Progress
from tunrouter.bench.scenarios import LARGE, chosen, standard
from tunrouter.errors import ConfigError, HostError, TunrouterError

BASE: Final = "base"
NEW: Final = "new"
SCENARIOS: Final = ("tcp-1", "tcp-reverse", "loss-1", "udp-64", "udp-1400", "rtt")
READ_ONLY: Final = ("-cpu", "-p90")
"""Ends of figures that are not judged: they say why, not whether."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.check", description=str(__doc__).splitlines()[0])
    parser.add_argument("--base", metavar="REV", help="instead of the baseline's revision")
    parser.add_argument("--rounds", type=positive, default=8, help=f"at least {ROUNDS}")
    parser.add_argument("--seconds", type=positive, default=3, help="of each measurement")
    parser.add_argument("--scenario", type=names, metavar="NAME,…", default=SCENARIOS)
    return parser.parse_args(argv)


def opener(name: str, package: Path) -> contest.Opener:
    def open_tunnel(lab: Lab, hosts: tuple[Host, Host]) -> Tunrouter:
        return Tunrouter(lab, hosts, name=name, package=package)

    return open_tunnel


def measure(base: Path, options: argparse.Namespace, progress: Progress) -> Stage:
    openers = {BASE: opener(BASE, base), NEW: opener(NEW, PACKAGE)}
    stage = Stage(UNDERLAYS[0])
    contest.run(stage, openers, options.scenario, repeat=options.rounds, seconds=options.seconds, progress=progress,
                save=lambda: None, required=openers)  # fmt: skip
    return stage


def render(stage: Stage, pairs: Sequence[Pair]) -> str:
    """One line a figure: the median ratio, and the least and most of the rounds."""
    rows = []
    for each in pairs:
        spread = f"{each.median:.2f} ({min(each.ratios):.2f}–{max(each.ratios):.2f})" if each.ratios else "n/a"
        rows.append((each.column.title, spread, each.word))
    versions = ", ".join(f"{entrant.name} {entrant.version}" for entrant in stage.entrants)
    errors = "".join(
        f"{each.contender}, {each.scenario}, round {each.round}: {each.error}\n" for each in stage.samples if each.error
    )
    return table.markdown(("", f"new : base (≥ {KEPT})", ""), rows) + f"\n{versions}\n{errors}"


def check(options: argparse.Namespace) -> int:
    if os.geteuid():
        raise HostError("namespaces and TUN devices need root", "sudo make bench-check")
    if options.rounds < ROUNDS:
        raise ConfigError(f"{options.rounds} rounds cannot tell a slower revision from chance", f"--rounds {ROUNDS}")
    chosen(standard(LARGE), options.scenario)
    commit = revisions.resolve(options.base or baseline.load().revision)
    progress = Progress()
    progress.say(f"base: {commit[:12]}; new: {revision(PACKAGE)}")
    revisions.build(PACKAGE)
    with revisions.checked_out(commit) as base:
        stage = measure(base, options, progress)
    judged = (each for each in stage.figures if not each.name.endswith(READ_ONLY))
    pairs = [pair(stage.samples, each, new=NEW, base=BASE) for each in judged]
    sys.stdout.write(render(stage, pairs))
    return int(slower(pairs))


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    try:
        return check(options)
    except TunrouterError as error:
        sys.stderr.write(f"bench-check: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
