"""What happens to a simulated cluster, as a file says it, and what was measured.

    nodes = 200
    seconds = 60
    loss = 0.01
    [[event]]
    at = 10
    kind = "partition"
    groups = 2

Law: a scenario and its seed are the whole of a run: the trace of two runs is the same. What goes wrong in a cluster is
not an error of the run; it stands in the report.
"""

from __future__ import annotations

import resource
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from tunrouter.errors import ConfigError
from tunrouter.sim.cluster import MAX_NODES, Cluster, Member

SETTLE_SECONDS: Final = 180.0
"""How long views may take to agree after the last event."""
HOUR: Final = 3600.0
MAX_SECONDS: Final = 86_400.0


class Happening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event, `at` so many seconds after the start."""

    at: float
    kind: Literal["partition", "heal", "kill", "restart", "join", "restart-storm", "loss"]
    nodes: int = 1
    """How many are killed or join; the dead that are restarted, 0 for all."""
    groups: int = 2
    loss: float = 0.0


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nodes: int = 100
    seed: int = 1
    seconds: float = 60.0
    delay: tuple[float, float] = (1.0, 50.0)
    """One way, in milliseconds: each link has one delay out of this range."""
    loss: float = 0.0
    changes: float = 2.0
    """Of each node in an hour."""
    churn: float = 0.0
    """Nodes a minute that die; each is back after ten seconds."""
    event: tuple[Happening, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    nodes: int
    seed: int
    seconds: float
    trace: str
    """Checksum of all that was sent: the same seed gives the same."""
    changes: int
    reached_median: float
    """Seconds until a change had reached every node, of those that nothing else happened to meanwhile."""
    reached_worst: float
    unreached: int
    """Changes that were not everywhere ten seconds later."""
    bytes_per_second: float
    """Of each node, with IP and UDP headers, over the whole run."""
    datagrams_per_second: float
    settled: float | None
    """Seconds after the end until all views agreed; None: they never did."""
    faults: tuple[str, ...]
    state_kib: float
    """Memory of this process for each node."""


Progress = Callable[[str], None]
LATE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.005


class Run:
    def __init__(self, scenario: Scenario, progress: Progress) -> None:
        self._scenario = scenario
        self._progress = progress
        least, most = scenario.delay
        self.cluster = Cluster(seed=scenario.seed, delay=(least / 1000, most / 1000))
        self._reached: list[float] = []
        self._late = 0
        self._changes = 0

    def run(self) -> Report:
        scenario, cluster = self._scenario, self.cluster
        before = _resident_kib()
        self._progress(f"{scenario.nodes} nodes shake hands")
        cluster.preload(scenario.nodes)
        cluster.network.loss = scenario.loss
        start, sent, datagrams = cluster.clock.now, sum(cluster.network.bytes.values()), cluster.network.datagrams
        for happening in scenario.event:
            cluster.clock.at(start + happening.at, self._happen, happening)
        self._plan(scenario.changes / HOUR, self._change)
        self._plan(scenario.churn / 60, self._die)
        for second in range(1, int(scenario.seconds) + 1):
            cluster.run(1.0)
            self._progress(f"second {second} of {scenario.seconds:.0f}, {len(cluster.alive)} nodes alive")
        spent = cluster.clock.now - start
        per_node = scenario.nodes * max(spent, 1.0)
        sent, datagrams = sum(cluster.network.bytes.values()) - sent, cluster.network.datagrams - datagrams
        self._progress("the end: do all views agree?")
        settled = cluster.until_agreed(SETTLE_SECONDS)
        cluster.run(1.0)
        self._reached.sort()
        return Report(
            nodes=scenario.nodes,
            seed=scenario.seed,
            seconds=scenario.seconds,
            trace=f"{cluster.network.trace:08x}",
            changes=self._changes,
            reached_median=self._reached[len(self._reached) // 2] if self._reached else 0.0,
            reached_worst=self._reached[-1] if self._reached else 0.0,
            unreached=self._late,
            bytes_per_second=sent / per_node,
            datagrams_per_second=datagrams / per_node,
            settled=settled,
            faults=tuple(cluster.faults() if settled is not None else ["the views of the nodes differ"]),
            state_kib=(_resident_kib() - before) / scenario.nodes,
        )

    # --- what goes on all the time -----------------------------------------------------------------------------------
    def _plan(self, rate: float, action: Callable[[], None]) -> None:
        """A Poisson process: as many a second of each node as `rate` says, or of all for deaths."""
        if rate <= 0:
            return
        each = rate * self._scenario.nodes if action == self._change else rate

        def again() -> None:
            action()
            self.cluster.clock.at(self.cluster.clock.now + self.cluster.random.expovariate(each), again)

        self.cluster.clock.at(self.cluster.clock.now + self.cluster.random.expovariate(each), again)

    def _change(self) -> None:
        here = self.cluster.alive
        if not here:
            return
        author = self.cluster.random.choice(here)
        news, start = author.change(), self.cluster.clock.now
        self._changes += 1
        lacking = [member for member in here if member is not author]
        same = frozenset(member.number for member in here)

        def look() -> None:
            nonlocal lacking
            lacking = [member for member in lacking if member.alive and not member.has(news)]
            now = self.cluster.clock.now
            if not lacking:
                if same == {member.number for member in self.cluster.alive}:
                    self._reached.append(now - start)
            elif now - start >= LATE_SECONDS:
                self._late += 1
            else:
                self.cluster.clock.at(now + LOOK_SECONDS, look)

        look()

    def _die(self) -> None:
        here = self.cluster.alive
        if len(here) > 1:
            victim = self.cluster.random.choice(here)
            victim.kill()
            self.cluster.clock.at(self.cluster.clock.now + 10.0, _revive, victim)

    # --- events ------------------------------------------------------------------------------------------------------
    def _happen(self, happening: Happening) -> None:
        cluster = self.cluster
        self._progress(f"{happening.kind}")
        match happening.kind:
            case "partition":
                cluster.partition(happening.groups)
            case "heal":
                cluster.network.side.clear()
            case "kill":
                cluster.kill(happening.nodes)
            case "restart":
                cluster.restart(happening.nodes)
            case "join":
                cluster.join(happening.nodes)
            case "restart-storm":
                cluster.kill(len(cluster.alive))
                cluster.restart(0)
            case "loss":
                cluster.network.loss = happening.loss


def _revive(victim: Member) -> None:
    if not victim.alive:
        victim.boot()


def _resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def read(path: Path) -> Scenario:
    """Raises ConfigError in one line for what is no scenario."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Scenario)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name a scenario file, or leave it out") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}", "see `docs/simulator.md`") from None


def check(scenario: Scenario) -> None:
    """Raises ConfigError for a number that makes no sense."""
    least, most = scenario.delay
    rules = (
        (2 <= scenario.nodes <= MAX_NODES, f"nodes are {scenario.nodes}: from 2 to {MAX_NODES}"),
        (1 <= scenario.seconds <= MAX_SECONDS, f"seconds are {scenario.seconds}: from 1 to {MAX_SECONDS:.0f}"),
        (0 < least <= most <= 1000, f"the delay is {least}-{most} ms: from above 0 to 1000, the lower end first"),
        (0 <= scenario.loss < 1, f"the loss is {scenario.loss}: a share from 0 to below 1"),
        (0 <= scenario.changes <= HOUR, f"changes are {scenario.changes}: from 0 to 3600 a node and hour"),
        (0 <= scenario.churn <= 6000, f"churn is {scenario.churn}: from 0 to 6000 nodes a minute"),
        (all(0 <= event.at <= scenario.seconds for event in scenario.event), "an event lies outside the seconds"),
        (all(0 <= event.loss < 1 for event in scenario.event), "an event's loss: a share from 0 to below 1"),
        (all(2 <= event.groups <= scenario.nodes for event in scenario.event), "an event's groups: from 2 to nodes"),
        (all(0 <= event.nodes <= MAX_NODES for event in scenario.event), "an event's nodes: not so many"),
    )
    for holds, words in rules:
        if not holds:
            raise ConfigError(words, "see `tunrouter sim --help` and docs/simulator.md")
