"""`tunrouter top`: who this node talks to and how much, each second anew.

    PEER                   TX bit/s  RX bit/s    TX p/s  RX p/s      RTT  LOSS   MTU  PATH
    42:8e:e8:c4:52:1b(...)    12.3M      431k     1.15k     620    0.4ms  0.0%  1376  direct

Law: a frame never has more lines or columns than the terminal: columns that find no room are left out, the least
important first, and what is not shown of the peers is counted in the last line. Without a terminal each interval is a
table of its own, or with `-o json` one object on one line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import typer

from tunrouter.cli.rates import Interval, Meter, Row
from tunrouter.cli.settings import agent, number, one_of, whole
from tunrouter.cli.terminal import Terminal
from tunrouter.cli.text import cells, decimal, duration, fit, node_name, printable
from tunrouter.core.status import Snapshot
from tunrouter.edge.api import StatusCall
from tunrouter.edge.api.client import Client
from tunrouter.errors import AgentError, AgentUnreachableError

SORTS: Final = ("rate", "rtt", "loss", "name")
LEAST_INTERVAL: Final = 0.1
MOST_INTERVAL: Final = 3600.0
RETRY_SECONDS: Final = 0.25
"""Pause before an agent that has gone is looked for again."""
GAP: Final = 2
"""Spaces between columns."""
LEAST_NAME: Final = 8
MOST_NAME: Final = 44
UNKNOWN: Final = "-"
WIDE: Final = 160
"""Columns where there is no terminal."""


class Flags(NamedTuple):
    """As they were given."""

    interval: str
    times: str | None
    once: bool
    sort: str
    peers: str | None


class Options(NamedTuple):
    interval: float
    times: int | None
    """Of intervals; None: until Ctrl-C."""
    sort: str
    peers: int | None
    """So many at most; None: all."""


class Column(NamedTuple):
    head: str
    width: int
    rank: int
    """The highest is the first to be left out."""
    cell: Callable[[Row], str]


def _known(value: float | None, text: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else text(value)


COLUMNS: Final = (
    Column("TX bit/s", 8, 0, lambda row: _known(row.sent_bits, decimal)),
    Column("RX bit/s", 8, 0, lambda row: _known(row.received_bits, decimal)),
    Column("TX p/s", 6, 4, lambda row: _known(row.sent_packets, decimal)),
    Column("RX p/s", 6, 4, lambda row: _known(row.received_packets, decimal)),
    Column("RTT", 7, 1, lambda row: _known(row.rtt, duration)),
    Column("LOSS", 6, 3, lambda row: _known(row.loss, "{:.1%}".format)),
    Column("MTU", 5, 5, lambda row: str(row.mtu or UNKNOWN)),
    Column("PATH", 0, 2, lambda row: printable(row.path or row.state)),
)
PATH_WIDTH: Final = 8
"""The least of the last column, which takes what is left."""


def run(flags: Flags, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "json"))
    options = Options(
        number("--interval", flags.interval, LEAST_INTERVAL, MOST_INTERVAL),
        whole("--count", flags.times) if flags.times is not None else 1 if flags.once else None,
        one_of("sort", flags.sort, SORTS),
        whole("--peers", flags.peers) if flags.peers is not None else None,
    )
    client = agent(socket)
    meter = Meter(_ask(client))
    try:
        if output == "text" and sys.stdout.isatty() and options.times != 1:
            _watch(client, meter, options)
        else:
            _print(client, meter, options, output)
    except KeyboardInterrupt:
        return  # how it is meant to end


def _ask(client: Client) -> Snapshot:
    return client.ask(StatusCall(cluster=False), Snapshot)


# --- without a terminal ----------------------------------------------------------------------------------------------
def _print(client: Client, meter: Meter, options: Options, output: str) -> None:
    done, due = 0, time.monotonic()
    while options.times is None or done < options.times:
        now = time.monotonic()
        due = due + options.interval if due + options.interval > now else now + options.interval
        time.sleep(due - now)
        interval = chosen(meter.look(_patiently(client), time.time()), options)
        if output == "json":
            typer.echo(msgspec.json.encode(interval))
        else:
            lines = table(interval, WIDE, len(interval.peers) + 2)
            typer.echo("\n".join(lines if options.times == 1 else [*lines, ""]))
        done += 1


def _patiently(client: Client) -> Snapshot:
    """Waits for an agent that has gone; says so once."""
    told = False
    while True:
        try:
            return _ask(client)
        except (AgentUnreachableError, AgentError) as error:
            if not told:
                typer.echo(f"tunrouter: {printable(error.what)}; waiting for it", err=True)
            told = True
            time.sleep(RETRY_SECONDS)


# --- in a terminal ---------------------------------------------------------------------------------------------------
def _watch(client: Client, meter: Meter, options: Options) -> None:
    shown: Interval | None = None
    trouble, done, due = "the first figures come in a moment", 0, time.monotonic()
    with Terminal() as terminal:
        while True:
            terminal.show(frame(shown, trouble, terminal.size))
            if options.times is not None and done >= options.times:
                return
            if time.monotonic() >= due:
                due = time.monotonic() + options.interval
            if terminal.wait(due - time.monotonic()):
                continue
            try:
                shown = chosen(meter.look(_ask(client), time.time()), options)
                trouble, done = "", done + 1
            except (AgentUnreachableError, AgentError) as error:
                trouble = printable(error.what)


def frame(interval: Interval | None, trouble: str, size: os.terminal_size) -> list[str]:
    """As many lines as the terminal has, at most."""
    lines = [fit(trouble, size.columns).rstrip()] if trouble else []
    if interval is not None:
        lines += table(interval, size.columns, max(1, size.lines - len(lines)))
    return lines[: size.lines]


# --- what is shown ---------------------------------------------------------------------------------------------------
def chosen(interval: Interval, options: Options) -> Interval:
    """The peers in order, as many as were asked for; the sums stay those of all."""
    keys: dict[str, Callable[[Row], float]] = {
        "rate": lambda row: -((row.sent_bits or 0.0) + (row.received_bits or 0.0)),
        "rtt": lambda row: -(row.rtt or 0.0),
        "loss": lambda row: -(row.loss or 0.0),
        "name": lambda row: 0.0,
    }
    key = keys[options.sort]
    rows = sorted(interval.peers, key=lambda row: (key(row), row.nickname or row.peer, row.peer))
    return msgspec.structs.replace(interval, peers=tuple(rows[: options.peers]))


def table(interval: Interval, width: int, height: int) -> list[str]:
    """A line of sums, the heads, and the peers that there is room for."""
    names = [node_name(row.peer, row.nickname) for row in interval.peers]
    columns, name_width = _layout(names, width)
    room = max(0, height - 2)
    hidden = len(names) - room if len(names) > room else 0
    if hidden:
        room, hidden = max(0, room - 1), min(hidden + 1, len(names))
    lines = [summary(interval), _line("PEER", [column.head for column in columns], columns, name_width)]
    for name, row in list(zip(names, interval.peers, strict=True))[:room]:
        lines.append(_line(name, [column.cell(row) for column in columns], columns, name_width))
    if hidden:
        lines.append(f"and {hidden} more")
    return [fit(line, width).rstrip() for line in lines[:height]]


def _layout(names: Sequence[str], width: int) -> tuple[list[Column], int]:
    """The columns that there is room for, and the width of the name."""
    columns = list(COLUMNS)
    while columns and LEAST_NAME + sum(_taken(column) for column in columns) > width:
        least = max(column.rank for column in columns)
        columns = [column for column in columns if column.rank != least]
    room = width - sum(_taken(column) for column in columns)
    longest = max([len("PEER"), *map(cells, names)])
    return columns, max(0, min(longest, MOST_NAME, room))


def _taken(column: Column) -> int:
    return (column.width or PATH_WIDTH) + GAP


def _line(name: str, texts: Sequence[str], columns: Sequence[Column], name_width: int) -> str:
    gap = " " * GAP
    aligned = (f"{text:>{column.width}}" if column.width else text for text, column in zip(texts, columns, strict=True))
    return gap.join([fit(name, name_width), *aligned])


def summary(interval: Interval) -> str:
    return ", ".join(_summary(interval))


def _summary(interval: Interval) -> Iterator[str]:
    connected = sum(row.state == "established" for row in interval.peers)
    yield f"{node_name(interval.node, interval.nickname)}: {connected} connected"
    total = interval.total
    yield f"TX {_known(total.sent_bits, decimal)}bit/s {_known(total.sent_packets, decimal)}p/s"
    yield f"RX {_known(total.received_bits, decimal)}bit/s {_known(total.received_packets, decimal)}p/s"
    reasons = " ".join(sorted(interval.dropped, key=lambda name: -interval.dropped[name]))
    yield f"drops {decimal(interval.drops)}/s" + (f" ({reasons})" if reasons else "")
    if interval.restarted:
        yield "the agent was started anew"
