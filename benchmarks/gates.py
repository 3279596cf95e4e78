"""What tunrouter promises, as ratios within one run: the bound that must hold, and the aim beyond it.

Law: a gate is judged by the ratio of medians; where one side has no value it is not met, and says why. One that not
even its ceiling meets, which nothing can be better than, is out of reach on this machine: neither met nor failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.report import Stage
from tunrouter.bench.contender import Better
from tunrouter.bench.statistics import Summary, ratio, summary

OURS: Final = "tunrouter"
PLAIN: Final = "tunrouter-plain"
WIREGUARD: Final = "wireguard-go"
VETH: Final = "veth"


@dataclass(frozen=True)
class Gate:
    title: str
    figure: str
    against: str
    bound: float
    aim: float | None = None
    better: Better = "higher"
    underlay: str = "default"
    contender: str = OURS
    ceiling: str = ""
    """The contender that nothing of this figure can be better than, if there is one."""

    @property
    def key(self) -> str:
        """Unique among the gates; what a stored ratio is found by."""
        return f"{self.underlay}/{self.figure}/{self.contender}/{self.against}"

    def met(self, value: float) -> bool:
        return value >= self.bound if self.better == "higher" else value <= self.bound

    def write(self, value: float | None) -> str:
        """A bound of this gate, for a table."""
        return "" if value is None else f"{'≥' if self.better == 'higher' else '≤'} {value:g}"


GATES: Final = (
    Gate("TCP, one stream", "tcp-1", WIREGUARD, 2.3, 3.0),
    Gate("TCP, one stream", "tcp-1", VETH, 0.45, 0.63),
    Gate("UDP 64 B packet rate", "udp-64", WIREGUARD, 2.7, 3.3),
    Gate("UDP 1,400 B packet rate", "udp-1400", WIREGUARD, 1.9, 2.2),
    Gate("round trip p50", "rtt-p50", WIREGUARD, 0.65, 0.5, better="lower"),
    Gate("round trip p99", "rtt-p99", WIREGUARD, 0.8, 0.5, better="lower"),
    Gate("TCP at 0.1 % loss", "loss-0.1", WIREGUARD, 1.6, 1.9),
    Gate("TCP at 1 % loss", "loss-1", WIREGUARD, 1.6, 1.9),
    Gate("TCP, GRO on at the receiving host", "tcp-1", WIREGUARD, 1.25, 1.7, underlay="gro"),
    Gate("TCP, all offloads on", "tcp-1", WIREGUARD, 1.15, 1.6, underlay="offloads"),
    Gate("TCP, MTU 9000", "tcp-1", WIREGUARD, 1.2, 1.5, underlay="mtu-9000"),
    Gate("TCP, encryption off", "tcp-1", OURS, 1.3, contender=PLAIN, ceiling=VETH),
)


@dataclass(frozen=True)
class Verdict:
    gate: Gate
    ratio: Summary | None
    reason: str = ""
    """Why there is no ratio, or why it does not count."""
    out_of_reach: bool = False

    @property
    def failed(self) -> bool:
        return self.ratio is not None and not self.met and not self.out_of_reach

    @property
    def met(self) -> bool:
        return self.ratio is not None and self.gate.met(self.ratio.median)

    @property
    def word(self) -> str:
        if self.ratio is None:
            return "not measured"
        if not self.met:
            return f"out of reach: {self.reason}" if self.out_of_reach else "FAIL"
        reached = self.gate.aim is not None and (
            self.ratio.median >= self.gate.aim if self.gate.better == "higher" else self.ratio.median <= self.gate.aim
        )
        return "pass, aim reached" if reached else "pass"


def judge(stages: Sequence[Stage], gates: Sequence[Gate] = GATES) -> list[Verdict]:
    """Every gate, in their order."""
    by_name = {stage.underlay.name: stage for stage in stages}
    return [_judge(gate, by_name.get(gate.underlay)) for gate in gates]


def _judge(gate: Gate, stage: Stage | None) -> Verdict:
    if stage is None:
        return Verdict(gate, None, f"the underlay {gate.underlay!r} was not in this run")
    found = ratio(stage.samples, gate.contender, gate.against, gate.figure)
    if found:
        return _within_reach(Verdict(gate, found), stage)
    missing = next(name for name in (gate.contender, gate.against, "")
                   if not name or summary(stage.samples, name, gate.figure) is None)  # fmt: skip
    return Verdict(gate, None, stage.reason(missing, gate.figure) if missing else "no round has both values")


def _within_reach(verdict: Verdict, stage: Stage) -> Verdict:
    gate = verdict.gate
    top = ratio(stage.samples, gate.ceiling, gate.against, gate.figure) if gate.ceiling else None
    if top is None or gate.met(top.median):
        return verdict
    return replace(verdict, out_of_reach=True, reason=f"{gate.ceiling} itself is {top.median:.2f} × {gate.against}")
