"""What many sessions cost: one flow while 1, 10, 100, 1,000 are installed: `python -m benchmarks.sessions`.

Law: the worker processes of all counts are there at once and take turns, as contenders do. There are no pods, no
bridge and no packet filter in the way: traffic starts and ends at the TUN, so that the look-up shows as much as it can.
Exit 1: a gate is not met.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Self

from benchmarks import contest, plane, table
from benchmarks.compare import UNDERLAYS, names, positive
from benchmarks.report import Stage
from tunrouter.bench.agent import CLI, PACKAGE, cpu_seconds, family, resident_kib
from tunrouter.bench.contender import End
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import stop, wait_until
from tunrouter.bench.progress import Progress
from tunrouter.bench.scenarios import LARGE, chosen, standard
from tunrouter.bench.statistics import Summary, ratio, summary
from tunrouter.errors import HostError, TunrouterError

COUNTS: Final = (1, 10, 100, 1000)
SCENARIOS: Final = ("tcp-1", "udp-64", "rtt", "memory")
SHARE: Final = 0.95
"""Of one session's throughput, what the most sessions must keep."""
MEMORY_MIB: Final = 60.0
"""Of one worker with the most sessions."""
START_SECONDS: Final = 20.0


@dataclass
class Crowd:
    """Two workers with `count` sessions each, one of which joins them."""

    lab: Lab
    hosts: tuple[Host, Host]
    count: int
    version: str = "one worker a host"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return named(self.count)

    def __enter__(self) -> Self:
        try:
            one, two = self.hosts
            self.processes = [self._spawn(one, two), self._spawn(two, one)]
            wait_until(f"a ping past {self.name}", self._ping, START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def _spawn(self, host: Host, peer: Host) -> subprocess.Popen[bytes]:
        log = host.agent.log.open("ab")
        argv = (CLI[0], "-m", "benchmarks.plane", str(host.number), str(peer.number), peer.address, str(self.count))
        environment = dict(os.environ) | {"PYTHONPATH": str(PACKAGE)}
        with log:
            return host.namespace.spawn(*argv, stdout=log, env=environment)

    def _ping(self) -> bool:
        for host, process in zip(self.hosts, self.processes, strict=True):
            if process.poll() is not None:
                raise HostError(f"the worker of {host.name} ended: {host.agent.last_words()}")
        one, two = self.ends
        argv = ("ping", "-n", "-c", "1", "-W", "0.3", two.address)
        return one.namespace.run(*argv, check=False).returncode == 0

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes:
            stop(process)

    @property
    def ends(self) -> tuple[End, End]:
        one, two = (End(host.namespace, plane.address(host.number)) for host in self.hosts)
        return one, two

    @property
    def workers(self) -> list[int]:
        """Their processes, without those that play control."""
        return [pid for process in self.processes for pid in family(process.pid)[1:]]

    def cpu_seconds(self) -> float | None:
        return sum(cpu_seconds(pid) for pid in self.workers)

    def resident_mib(self) -> float | None:
        return sum(resident_kib(pid) for pid in self.workers) / 1024

    def lose(self, percent: float) -> None:
        self.lab.fabric.lose(percent)


def opener(count: int) -> contest.Opener:
    def open_crowd(lab: Lab, hosts: tuple[Host, Host]) -> AbstractContextManager[Crowd]:
        return Crowd(lab, hosts, count)

    return open_crowd


def named(count: int) -> str:
    return f"{count:,} session{'s' if count > 1 else ''}"


@dataclass(frozen=True)
class Outcome:
    """What the gates are judged by."""

    kept: Summary | None
    """The throughput with the most sessions in units of that with one."""
    memory: Summary | None

    @classmethod
    def of(cls, stage: Stage) -> Outcome:
        one, most = named(COUNTS[0]), named(COUNTS[-1])
        return cls(ratio(stage.samples, most, one, "tcp-1"), summary(stage.samples, most, "memory"))

    @property
    def met(self) -> bool:
        return bool(self.kept and self.kept.median >= SHARE and self.memory and self.memory.median <= MEMORY_MIB)


def render(stage: Stage, outcome: Outcome) -> str:
    crowds = [entrant.name for entrant in stage.entrants]
    rows = [table.figure_row(stage, column, crowds, ()) for column in stage.figures]
    kept = f"{outcome.kept.median:.3f} ({outcome.kept.min:.3f}–{outcome.kept.max:.3f})" if outcome.kept else "n/a"
    memory = f"{outcome.memory.median:.1f} MiB" if outcome.memory else "n/a"
    return (
        table.markdown(("", *crowds), rows)
        + f"\nTCP with {named(COUNTS[-1])} × one: {kept}, gate ≥ {SHARE}; a worker's memory then: {memory}, "
        + f"gate ≤ {MEMORY_MIB:.0f} MiB: {'pass' if outcome.met else 'FAIL'}\n"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.sessions", description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--seconds", type=positive, default=3, help="of each measurement")
    parser.add_argument(
        "--scenario", type=names, metavar="NAME,…", default=SCENARIOS, help=f"of {', '.join(SCENARIOS)}"
    )
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> int:
    if os.geteuid():
        raise HostError("namespaces and TUN devices need root", "sudo make bench-sessions")
    chosen(standard(LARGE), options.scenario)
    stage = Stage(UNDERLAYS[0])
    openers = {named(count): opener(count) for count in COUNTS}
    contest.run(stage, openers, options.scenario, repeat=options.rounds, seconds=options.seconds, progress=Progress(),
                save=lambda: None, required=openers)  # fmt: skip
    outcome = Outcome.of(stage)
    sys.stdout.write(render(stage, outcome))
    return int(not outcome.met)


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    try:
        return measure(options)
    except TunrouterError as error:
        sys.stderr.write(f"bench-sessions: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
