"""`tunrouter status`: asks for the snapshot and prints it, or one report of it.

Law: the exit code is 1 while no pod can be added, so that scripts need not read the text.
"""

from __future__ import annotations

import sys
import time
from typing import Final

import msgspec
import typer

from tunrouter.cli import render
from tunrouter.cli.settings import agent, one_of
from tunrouter.cli.text import wants_colour
from tunrouter.core.status import Snapshot
from tunrouter.edge.api import StatusCall

REPORTS: Final = ("connections", "gossip", "ipam", "peers", "routes", "targets")
WATCH_SECONDS: Final = 1.0
CLEAR: Final = "\x1b[2J\x1b[H"
"""The whole screen, and the cursor at its beginning."""


def run(report: str | None, output: str, socket: str | None, *, watch: bool = False) -> None:
    one_of("output", output, ("text", "wide", "json"))
    if report is not None:
        one_of("report", report, REPORTS)
    while True:
        snapshot = agent(socket).ask(StatusCall(), Snapshot)
        if watch and sys.stdout.isatty():
            typer.echo(CLEAR, nl=False)
        _show(snapshot, report, output)
        if not watch:
            break
        time.sleep(WATCH_SECONDS)
    if render.why_no_pod(snapshot) and report is None:
        raise typer.Exit(1)


def _show(snapshot: Snapshot, report: str | None, output: str) -> None:
    if output == "json":
        typer.echo(_json(snapshot, report))
        return
    style = render.Style(wide=output == "wide", colour=wants_colour())
    text = render.report(snapshot, report, style)
    if text:
        typer.echo(text)


def _json(snapshot: Snapshot, report: str | None) -> bytes:
    """The whole snapshot, or one table of it; both name their schema."""
    if report is None:
        return msgspec.json.encode(snapshot)
    return msgspec.json.encode({"schema": snapshot.schema, report: getattr(snapshot, report)})
