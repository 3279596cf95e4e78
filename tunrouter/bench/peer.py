"""`tunrouter bench PEER`: what the tunnel between two live hosts carries, measured between the hosts themselves.

    this process ── kernel ── TUN ── agent ── the real underlay ── the peer's agent ── TUN ── kernel ── responder

Law: each measurement has a responder of its own, so none outlives its measurement by more than its own bounds. What
prevents the first connection ends the run; what merely fails later is kept in the report, with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

import msgspec

from tunrouter.bench.agent import PACKAGE, cpu_seconds
from tunrouter.bench.contender import Figure
from tunrouter.bench.link import Link, Responder
from tunrouter.bench.machine import Machine, revision
from tunrouter.bench.progress import Progress
from tunrouter.bench.report import SCHEMA, Failure, Row, failures
from tunrouter.bench.rounds import Sample
from tunrouter.bench.scenarios import COARSE, LARGE, PERCENTILES, RESOLUTION, SMALL, TRIAL_SHARE, percentile
from tunrouter.bench.search import highest_rate
from tunrouter.bench.statistics import by_round, summary
from tunrouter.core.status import Snapshot
from tunrouter.edge.api import BenchCall, BenchOffer, StatusCall
from tunrouter.edge.api.client import Client
from tunrouter.errors import ConfigError, HostError, TunrouterError

MOST_SECONDS: Final = 20
"""Of a measurement: a search for a rate takes several times that, and must fit a responder's life."""
NAMES: Final = ("tcp-1", "tcp-4", "tcp-reverse", "tcp-both", "udp-64", "udp-1400", "rtt")


@dataclass(frozen=True)
class Options:
    peer: str
    scenarios: tuple[str, ...] = ()
    rounds: int = 1
    seconds: int = 3
    quick: bool = False

    def check(self) -> None:
        for name in self.scenarios:
            if name not in NAMES:
                raise ConfigError(f"scenario {name!r} is not one of a live peer", f"choose from {', '.join(NAMES)}")
        if self.seconds > MOST_SECONDS:
            what = f"--seconds {self.seconds} is too long beside a live network"
            raise ConfigError(what, f"give at most {MOST_SECONDS}, and more --rounds")


class Side(msgspec.Struct, frozen=True):
    name: str
    nickname: str
    id: str
    kernel: str
    workers: int


class Path(msgspec.Struct, frozen=True):
    """Between the two, as this host's agent sees it."""

    endpoint: str
    path: str
    mtu: int
    """The largest inner packet."""
    encryption: bool


class Settings(msgspec.Struct, frozen=True):
    rounds: int
    seconds: int
    large_payload: int
    """Bytes of `udp-1400`'s datagrams: 1,400, or what fits the path in one piece."""


class PeerReport(msgspec.Struct, frozen=True):
    kind: Literal["tunrouter bench PEER"]
    schema: int
    started: str
    elapsed: float
    version: str
    revision: str
    machine: Machine
    """This one."""
    local: Side
    peer: Side
    path: Path
    settings: Settings
    figures: list[Row]
    failures: list[Failure]


CpuSeconds = Callable[[], float | None]
"""Processor time of this host's agent and workers; None where it cannot be seen."""


class Scenario(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def figures(self) -> tuple[Figure, ...]: ...

    def run(self, link: Link, cpu: CpuSeconds, seconds: int) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Tcp:
    name: str
    title: str
    up: int = 0
    down: int = 0

    @property
    def figures(self) -> tuple[Figure, ...]:
        rate = Figure(self.name, self.title, "Mbit/s")
        return rate, Figure(f"{self.name}-cpu", f"{self.title}: CPU per GB, this host", "s/GB", "lower")

    def run(self, link: Link, cpu: CpuSeconds, seconds: int) -> Mapping[str, float]:
        before = cpu()
        there, here = link.streams(up=self.up, down=self.down, seconds=seconds)
        after = cpu()
        count = there.bytes + here.bytes
        if not count:
            raise HostError("nothing arrived")
        values = {self.name: there.mbits + here.mbits}
        if before is not None and after is not None:
            values[f"{self.name}-cpu"] = (after - before) / (count / 1e9)
        return values


@dataclass(frozen=True)
class UdpRate:
    name: str
    payload: int
    resolution: float

    @property
    def title(self) -> str:
        return f"UDP, {self.payload:,}-byte datagrams"

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (Figure(self.name, self.title, "packets/s"),)

    def run(self, link: Link, cpu: CpuSeconds, seconds: int) -> Mapping[str, float]:
        best = highest_rate(
            lambda rate: link.trial(self.payload, rate, seconds / TRIAL_SHARE), resolution=self.resolution
        )
        return {self.name: best.delivered}


@dataclass(frozen=True)
class RoundTrip:
    name: str = "rtt"
    title: str = "round trip"

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(Figure(f"{self.name}-p{rank}", f"{self.title}, p{rank}", "µs", "lower") for rank in PERCENTILES)

    def run(self, link: Link, cpu: CpuSeconds, seconds: int) -> Mapping[str, float]:
        times = link.round_trips(SMALL, seconds)
        return {f"{self.name}-p{rank}": percentile(times, rank) / 1e3 for rank in PERCENTILES}


def standard(large: int, *, quick: bool) -> tuple[Scenario, ...]:
    resolution = COARSE if quick else RESOLUTION
    return (
        Tcp("tcp-1", "TCP, one stream", up=1),
        Tcp("tcp-4", "TCP, four streams", up=4),
        Tcp("tcp-reverse", "TCP, one stream back", down=1),
        Tcp("tcp-both", "TCP, one stream each way, together", up=1, down=1),
        UdpRate("udp-64", SMALL, resolution),
        UdpRate("udp-1400", large, resolution),
        RoundTrip(),
    )


class Peer:
    """The way to a live peer's responders, through this host's agent."""

    def __init__(self, agent: Client, wanted: str) -> None:
        self._agent = agent
        self._wanted = wanted
        self._device = ""
        self.name = wanted

    def measurable(self) -> tuple[Snapshot, BenchOffer, int]:
        """What both agents say, and the largest payload in one piece; raises what prevents every measurement."""
        snapshot = self._agent.ask(StatusCall(), Snapshot)
        self._device = snapshot.host.tun
        offer = self._offer()
        self.name = offer.nickname or offer.peer
        with self._link(offer) as link:
            return snapshot, offer, min(link.largest_payload, offer.mtu - 28)

    def link(self) -> Link:
        return self._link(self._offer())

    def _offer(self) -> BenchOffer:
        return self._agent.ask(BenchCall(self._wanted), BenchOffer)

    def _link(self, offer: BenchOffer) -> Link:
        where = Responder(self.name, offer.address, offer.tcp, offer.udp, bytes.fromhex(offer.token), self._device)
        return Link(where)

    def cpu_seconds(self) -> float | None:
        snapshot = self._agent.ask(StatusCall(), Snapshot)
        pids = [self._agent.pid(), *(worker.pid for worker in snapshot.workers if worker.pid)]
        try:
            return sum(cpu_seconds(pid) for pid in pids)
        except (FileNotFoundError, ProcessLookupError):
            return None  # it runs where we do not see its processes


def run(options: Options, agent: Client, progress: Progress) -> PeerReport:
    options.check()
    started, clock = datetime.now(UTC), time.monotonic()
    peer = Peer(agent, options.peer)
    snapshot, offer, fitting = peer.measurable()
    payload = min(LARGE, fitting)
    scenarios = [
        scenario
        for scenario in standard(payload, quick=options.quick)
        if not options.scenarios or scenario.name in options.scenarios
    ]
    progress.say(f"{snapshot.nickname} to {peer.name} at {offer.endpoint}")
    samples = list(_samples(peer, scenarios, options, progress))
    return PeerReport(
        kind="tunrouter bench PEER",
        schema=SCHEMA,
        started=started.isoformat(timespec="seconds"),
        elapsed=round(time.monotonic() - clock, 1),
        version=snapshot.version,
        revision=revision(PACKAGE),
        machine=Machine.here(iperf3=False),
        local=Side(snapshot.name, snapshot.nickname, snapshot.id, snapshot.kernel, len(snapshot.workers)),
        peer=Side(offer.peer, offer.nickname, offer.id, offer.kernel, offer.workers),
        path=Path(offer.endpoint, offer.path, offer.mtu, offer.encrypted),
        settings=Settings(options.rounds, options.seconds, payload),
        figures=_rows(scenarios, samples, peer.name),
        failures=failures(samples),
    )


def _samples(peer: Peer, scenarios: Sequence[Scenario], options: Options, progress: Progress) -> Iterator[Sample]:
    turns = [(number, scenario, peer) for number in range(1, options.rounds + 1) for scenario in scenarios]
    with progress.over(turns, options.seconds):
        for number, scenario, _ in turns:
            progress.begin(number, scenario, peer)
            sample = _take(number, scenario, peer, options.seconds)
            progress.done(sample)
            yield sample


def _take(number: int, scenario: Scenario, peer: Peer, seconds: int) -> Sample:
    started = time.monotonic()
    values: dict[str, float] = {}
    error = ""
    try:
        with peer.link() as link:
            values = dict(scenario.run(link, peer.cpu_seconds, seconds))
    except TunrouterError as failure:
        error = str(failure)
    return Sample(number, scenario.name, peer.name, values, time.monotonic() - started, error)


def _rows(scenarios: Sequence[Scenario], samples: Sequence[Sample], peer: str) -> list[Row]:
    rows = []
    for scenario in scenarios:
        for figure in scenario.figures:
            whole = summary(samples, peer, figure.name)
            if whole is not None:
                values = [value for _, value in sorted(by_round(samples, peer, figure.name).items())]
                rows.append(
                    Row(scenario.name, figure.name, figure.title, peer, figure.unit, figure.better, values, whole, None)
                )
    return rows
