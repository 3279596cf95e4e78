"""Rates of the traffic with each peer, from one snapshot to the next.

Law: the data plane tells its sums once a second while they grow, and the snapshot says how old they are; so a rate is
what was told between two such moments, not between two snapshots, where it would swing between nothing and double.
An agent that was started anew counts its peers' traffic from nothing, while its workers may have gone on with their
counters: what goes back begins at nothing. Of a peer that was not there before, nothing is known yet.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from tunrouter.agent.counted import DROPPED
from tunrouter.core.bounds import REPORT_SECONDS
from tunrouter.core.status import Connection, Snapshot

SCHEMA: Final = 1
LATE_SECONDS: Final = 0.6
"""How much later than expected sums may come, before it is taken for silence."""
LEAST_SECONDS: Final = 0.05
"""No rate is of less: it would be one of chance."""
MAX_GONE: Final = 10_000
"""Peers that went and whose sums are remembered, should they come back."""
BITS: Final = 8


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """In a second; none of them while they are not known."""

    sent_bits: float | None = None
    received_bits: float | None = None
    sent_packets: float | None = None
    received_packets: float | None = None


class Row(Rates, frozen=True, kw_only=True):
    """One peer that is connected, or was a moment ago."""

    peer: str
    nickname: str
    address: str
    state: str
    path: str
    """`direct`, `relay through X`, or empty while it is not connected."""
    rtt: float | None
    """Seconds."""
    loss: float | None
    """Share of the heartbeats."""
    mtu: int
    """The largest inner packet; 0 while it is not known."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between two looks."""

    schema: int = SCHEMA
    node: str
    nickname: str
    time: float
    """Of the second look, in seconds since 1970."""
    seconds: float
    """From one look to the other."""
    restarted: bool
    """The agent was started in between."""
    drops: float
    """Packets and datagrams that this node dropped in a second, of whatever peer."""
    dropped: dict[str, float]
    """Why: those counters that grew, in a second."""
    total: Rates
    """Of all peers together, as far as they are known."""
    peers: tuple[Row, ...]


class Sums(NamedTuple):
    at: float
    """On the agent's clock, which begins with it."""
    values: tuple[int, int, int, int]


NOTHING: Final = Sums(0.0, (0, 0, 0, 0))
_UNKNOWN: Final = Rates()
_SILENT: Final = Rates(sent_bits=0.0, received_bits=0.0, sent_packets=0.0, received_packets=0.0)


class Meter:
    """Looks at one snapshot after the other."""

    def __init__(self, first: Snapshot) -> None:
        self._last = first
        self._sums: dict[str, Sums] = {}
        self._rates: dict[str, Rates] = {}
        for connection in _peers(first):
            self._sums[connection.peer] = _sums(connection, first.uptime)

    def look(self, snapshot: Snapshot, time: float) -> Interval:
        """`time` is in seconds since 1970."""
        before, restarted = self._last, _life(snapshot) != _life(self._last)
        if restarted:
            self._sums = {connection.peer: NOTHING for connection in _peers(snapshot)}
            self._rates.clear()
        seconds = snapshot.uptime - before.uptime
        if restarted:  # by the wall clock, which may have been set
            seconds = max(snapshot.uptime, seconds + snapshot.started - before.started)
        seconds = max(seconds, LEAST_SECONDS)
        rows = tuple(self._row(connection, snapshot.uptime, seconds) for connection in _peers(snapshot))
        dropped = _grown(before.counters, snapshot.counters, seconds)
        self._last = snapshot
        self._forget({row.peer for row in rows})
        return Interval(
            node=snapshot.name,
            nickname=snapshot.nickname,
            time=time,
            seconds=seconds,
            restarted=restarted,
            drops=sum(dropped.values()),
            dropped=dropped,
            total=_together(rows),
            peers=rows,
        )

    def _row(self, connection: Connection, now: float, seconds: float) -> Row:
        rates = self._rate(connection, now, seconds)
        self._rates[connection.peer] = rates
        return Row(
            peer=connection.peer,
            nickname=connection.nickname,
            address=connection.address,
            state=connection.state,
            path=connection.path if connection.state == "established" else "",
            rtt=connection.rtt,
            loss=connection.loss,
            mtu=connection.mtu,
            **msgspec.structs.asdict(rates),
        )

    def _rate(self, connection: Connection, now: float, seconds: float) -> Rates:
        last, new = self._sums.get(connection.peer), _sums(connection, now)
        self._sums[connection.peer] = new
        if last is None or any(after < before for before, after in zip(last.values, new.values, strict=True)):
            return _UNKNOWN
        if new.values == last.values:
            self._sums[connection.peer] = last
            silent = now - last.at > REPORT_SECONDS + LATE_SECONDS
            return _SILENT if silent else self._rates.get(connection.peer, _UNKNOWN)
        # Sums that did not grow for long have been those of the look before, less what it could not know yet.
        since = max(last.at, now - seconds - REPORT_SECONDS, 0.0)
        return _rates(last.values, new.values, max(new.at - since, LEAST_SECONDS))

    def _forget(self, here: set[str]) -> None:
        """Rates of those that are gone; their sums only when they are too many."""
        self._rates = {peer: rates for peer, rates in self._rates.items() if peer in here}
        gone = [peer for peer in self._sums if peer not in here]
        for peer in gone[: max(0, len(gone) - MAX_GONE)]:
            del self._sums[peer]


def _peers(snapshot: Snapshot) -> list[Connection]:
    return [connection for connection in snapshot.connections if connection.peer]


def _sums(connection: Connection, now: float) -> Sums:
    values = (
        connection.sent_bytes,
        connection.received_bytes,
        connection.sent_packets,
        connection.received_packets,
    )
    return Sums(now - connection.counted if connection.counted is not None else 0.0, values)


def _rates(before: tuple[int, ...], after: tuple[int, ...], seconds: float) -> Rates:
    sent, received, sent_packets, received_packets = (
        (new - old) / seconds for old, new in zip(before, after, strict=True)
    )
    return Rates(
        sent_bits=BITS * sent,
        received_bits=BITS * received,
        sent_packets=sent_packets,
        received_packets=received_packets,
    )


def _together(rows: tuple[Row, ...]) -> Rates:
    return Rates(
        sent_bits=sum(row.sent_bits or 0.0 for row in rows),
        received_bits=sum(row.received_bits or 0.0 for row in rows),
        sent_packets=sum(row.sent_packets or 0.0 for row in rows),
        received_packets=sum(row.received_packets or 0.0 for row in rows),
    )


def _grown(before: dict[str, int], after: dict[str, int], seconds: float) -> dict[str, float]:
    grown = {}
    for name in sorted(DROPPED):
        old, new = before.get(name, 0), after.get(name, 0)
        grown[name] = (new - old if new >= old else new) / seconds
    return {name: rate for name, rate in grown.items() if rate}


def _life(snapshot: Snapshot) -> tuple[str, int]:
    return snapshot.id, snapshot.incarnation
