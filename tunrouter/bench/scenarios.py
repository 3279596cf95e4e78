"""What is measured between two pods: TCP in four shapes and under loss, UDP rates, round trips, memory.

Law: see `contender`: the same packets for every contender. docs/benchmarks.md says what each scenario does and what it
does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tunrouter.bench import instruments
from tunrouter.bench.contender import Contender, Figure, Scenario
from tunrouter.bench.instruments import Trial
from tunrouter.bench.search import highest_rate
from tunrouter.errors import ConfigError, HostError

SMALL: Final = 64
LARGE: Final = 1400
TRIAL_SHARE: Final = 5
"""A trial of a search takes this part of a scenario's seconds."""
RESOLUTION: Final = 0.03
COARSE: Final = 0.1
"""For a quick look."""
PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True)
class Tcp:
    """iperf3 for the whole time, with options of its own, on an underlay that loses some frames."""

    name: str
    title: str
    options: tuple[str, ...] = ()
    loss_percent: float = 0.0

    @property
    def figures(self) -> tuple[Figure, ...]:
        rate = Figure(self.name, self.title, "Mbit/s")
        return rate, Figure(f"{self.name}-cpu", f"{self.title}: CPU per GB", "s/GB", "lower")

    def run(self, contender: Contender, seconds: int) -> dict[str, float]:
        if self.loss_percent:
            contender.lose(self.loss_percent)
        try:
            before = contender.cpu_seconds()
            stream = instruments.tcp(*contender.ends, *self.options, seconds=seconds)
            after = contender.cpu_seconds()
        finally:
            if self.loss_percent:
                contender.lose(0)
        values = {self.name: stream.mbits}
        if before is not None and after is not None:
            values[f"{self.name}-cpu"] = (after - before) / (stream.bytes / 1e9)
        return values


@dataclass(frozen=True)
class UdpRate:
    """The highest rate of datagrams of one size at which less than 0.5 % are lost."""

    name: str
    payload: int
    resolution: float

    @property
    def title(self) -> str:
        return f"UDP, {self.payload:,}-byte datagrams"

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (Figure(self.name, self.title, "packets/s"),)

    def run(self, contender: Contender, seconds: int) -> dict[str, float]:
        sender, receiver = contender.ends
        if self.payload > instruments.largest_payload(sender):
            raise HostError(f"{self.payload} bytes do not fit {contender.name}'s MTU of {instruments.mtu(sender)}")

        def trial(rate: float) -> Trial:
            return instruments.send_datagrams(
                sender, receiver, size=self.payload, rate=rate, seconds=seconds / TRIAL_SHARE
            )

        return {self.name: highest_rate(trial, resolution=self.resolution).delivered}


@dataclass(frozen=True)
class RoundTrip:
    """A 64-byte datagram and its echo, one in flight, on a connection that carries nothing else."""

    name: str = "rtt"
    title: str = "round trip"

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(Figure(f"{self.name}-p{rank}", f"{self.title}, p{rank}", "µs", "lower") for rank in PERCENTILES)

    def run(self, contender: Contender, seconds: int) -> dict[str, float]:
        times = instruments.round_trips(*contender.ends, size=SMALL, seconds=seconds)
        return {
            figure.name: percentile(times, rank) / 1e3 for figure, rank in zip(self.figures, PERCENTILES, strict=True)
        }


@dataclass(frozen=True)
class Memory:
    """Resident memory of the processes that carry the traffic, after what came before in the round."""

    name: str = "memory"
    title: str = "resident memory"

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (Figure(self.name, f"{self.title}, each host", "MiB", "lower"),)

    def run(self, contender: Contender, seconds: int) -> dict[str, float]:
        resident = contender.resident_mib()
        return {} if resident is None else {self.name: resident / len(contender.ends)}


def percentile(ascending: Sequence[int], rank: int) -> int:
    """The smallest value that `rank` percent do not exceed (nearest rank)."""
    return ascending[max(0, -(-len(ascending) * rank // 100) - 1)]


def fitting_payload(contenders: Iterable[Contender], wanted: int = LARGE) -> int:
    """`wanted`, or the most that travels in one piece over every one of the contenders."""
    return min((wanted, *(instruments.largest_payload(end) for contender in contenders for end in contender.ends)))


def standard(large: int, *, quick: bool = False) -> tuple[Scenario, ...]:
    """All scenarios in the order of the tables; `large` is the longer payload, as `fitting_payload` gives it."""
    resolution = COARSE if quick else RESOLUTION
    return (
        Tcp("tcp-1", "TCP, one stream"),
        Tcp("tcp-4", "TCP, four streams", ("--parallel", "4")),
        Tcp("tcp-reverse", "TCP, one stream back", ("--reverse",)),
        Tcp("tcp-both", "TCP, one stream each way, together", ("--bidir",)),
        Tcp("loss-0.1", "TCP, one stream, 0.1 % loss", loss_percent=0.1),
        Tcp("loss-1", "TCP, one stream, 1 % loss", loss_percent=1.0),
        UdpRate("udp-64", SMALL, resolution),
        UdpRate("udp-1400", large, resolution),
        RoundTrip(),
        Memory(),
    )


def chosen(scenarios: Sequence[Scenario], names: Sequence[str]) -> tuple[Scenario, ...]:
    """Those with these names, in the tables' order; all if none is named."""
    known = [scenario.name for scenario in scenarios]
    for name in names:
        if name not in known:
            raise ConfigError(f"scenario {name!r} is not known", f"choose from {', '.join(known)}")
    return tuple(scenario for scenario in scenarios if not names or scenario.name in names)
