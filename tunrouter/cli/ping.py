"""`tunrouter ping`: round trips through the tunnel to another node, and the path they take.

Law: what scripts know of ping(8) stays: its options, its two last lines, and its exit codes (0 answered, 1 not at all,
2 something else is wrong). One heartbeat is under way at a time, so whoever waits for a lost one sends later, not more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Final

import msgspec
import typer

from tunrouter.cli.settings import agent, number, one_of, whole
from tunrouter.cli.text import node_name, printable
from tunrouter.edge.api import PingCall, Pinged
from tunrouter.errors import AgentError

SCHEMA: Final = 1
LEAST_PAUSE: Final = 0.02
MOST_PAUSE: Final = 3600.0
MOST_WAIT: Final = 10.0
"""As long as the agent waits."""
OTHER: Final = 2
"""The exit code of ping(8) for all but answers and their lack."""


class Tally(msgspec.Struct):
    """Of all that were sent; in seconds."""

    sent: int = 0
    answered: int = 0
    least: float = math.inf
    most: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, rtt: float | None) -> None:
        self.sent += 1
        if rtt is not None:
            self.answered += 1
            self.least, self.most = min(self.least, rtt), max(self.most, rtt)
            self.total, self.squares = self.total + rtt, self.squares + rtt * rtt

    @property
    def loss(self) -> float:
        return 1.0 - self.answered / self.sent if self.sent else 0.0

    @property
    def trips(self) -> Trips | None:
        if not self.answered:
            return None
        mean = self.total / self.answered
        deviation = math.sqrt(max(0.0, self.squares / self.answered - mean * mean))
        return Trips(min=self.least, avg=mean, max=self.most, mdev=deviation)


class Trips(msgspec.Struct, frozen=True):
    """Round trips in seconds."""

    min: float
    avg: float
    max: float
    mdev: float


def run(peer: str, count: str | None, interval: str, wait: str, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "json"))
    limit = whole("--count", count) if count is not None else None
    pause = number("--interval", interval, LEAST_PAUSE, MOST_PAUSE)
    call, client = PingCall(peer, number("--wait", wait, LEAST_PAUSE, MOST_WAIT)), agent(socket)
    tally, last, began = Tally(), None, time.monotonic()
    try:
        while limit is None or tally.sent < limit:
            due = time.monotonic() + pause
            pinged = client.ask(call, Pinged)
            if output == "text" and last is None:
                typer.echo(_head(peer, pinged))
            last = pinged
            tally.add(pinged.rtt)
            if output == "text":
                typer.echo(_line(tally.sent, pinged))
            if tally.sent != limit:
                time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        pass  # as ping(8): what is known is said
    except AgentError as error:
        error.exit_code = OTHER
        raise
    finally:
        if last is not None:
            _sum_up(peer, tally, last, time.monotonic() - began, output)
    raise typer.Exit(0 if tally.answered else 1)


def _head(peer: str, pinged: Pinged) -> str:
    sealed = "encrypted" if pinged.encrypted else "not encrypted"
    where = f" at {pinged.address}" if pinged.address else ""
    return printable(f"PING {peer}: node {node_name(pinged.peer, pinged.nickname)}{where}, {sealed}")


def _line(sequence: int, pinged: Pinged) -> str:
    name = pinged.nickname or pinged.peer
    if pinged.rtt is None:
        return printable(f"no answer from {name}: seq={sequence} ({pinged.reason})")
    return printable(f"answer from {name}: seq={sequence} time={_ms(pinged.rtt)} ms mtu={pinged.mtu} {_path(pinged)}")


def _path(pinged: Pinged) -> str:
    if pinged.path == "direct":
        return "direct"
    relays = ", ".join(relay.nickname or relay.node for relay in pinged.via)
    return f"{_hops(pinged)} hops, relayed by {relays}" if relays else "relayed"


def _hops(pinged: Pinged) -> int:
    return len(pinged.via) + 1


def _sum_up(peer: str, tally: Tally, last: Pinged, seconds: float, output: str) -> None:
    trips = tally.trips
    if output == "json":
        typer.echo(msgspec.json.encode(_report(peer, tally, last, seconds)))
        return
    typer.echo(f"\n--- {printable(peer)} ping statistics ---")
    counts = f"{tally.sent} packets transmitted, {tally.answered} received"
    typer.echo(f"{counts}, {tally.loss * 100:.6g}% packet loss, time {seconds * 1000:.0f}ms")
    if trips is not None:
        typer.echo(f"rtt min/avg/max/mdev = {_all((trips.min, trips.avg, trips.max, trips.mdev))} ms")


def _report(peer: str, tally: Tally, last: Pinged, seconds: float) -> dict[str, object]:
    """The path is that of the last one."""
    return {
        "schema": SCHEMA,
        "target": peer,
        **msgspec.structs.asdict(last),
        "hops": _hops(last) if last.path else 0,
        "sent": tally.sent,
        "answered": tally.answered,
        "loss": tally.loss,
        "rtt": tally.trips,
        "seconds": seconds,
    }


def _all(times: Iterable[float]) -> str:
    return "/".join(map(_ms, times))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"
