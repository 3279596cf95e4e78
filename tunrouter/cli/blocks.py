"""`tunrouter rmpeer`, `leave` and `electors`: blocks change hands, and so do those who decide about them.

Law: the agent and the electors decide; the command says what will be or was done, in Weave's words where it had any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import typer

from tunrouter.cli.ipam import electors
from tunrouter.cli.patience import patience
from tunrouter.cli.settings import SLOW_SECONDS, agent, one_of
from tunrouter.cli.text import node_name
from tunrouter.config import values
from tunrouter.core.status import Ipam, Snapshot
from tunrouter.edge.api import LeaveCall, Left, Removed, RmpeerCall, SetElectorsCall, StatusCall
from tunrouter.errors import AgentError, ConfigError

SCHEMA: Final = 1


def rmpeer(peers: Sequence[str], force: bool, dry_run: bool, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "wide", "json"))
    call = RmpeerCall(_names(peers), force, dry_run)
    with patience("looking at the blocks" if dry_run else "taking the blocks over"):
        removed = agent(socket, SLOW_SECONDS).ask(call, tuple[Removed, ...])
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, "dry_run": dry_run, "removed": removed}))
        return
    for one in removed:
        verb = "would be taken over" if dry_run else "taken over"
        typer.echo(f"{one.addresses} IPs {verb} from {node_name(one.node, one.nickname)}")


def leave(force: bool, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "wide", "json"))
    with patience("handing the blocks back"):
        left = agent(socket, SLOW_SECONDS).ask(LeaveCall(force), Left)
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, **msgspec.structs.asdict(left)}))
    else:
        typer.echo(f"{left.addresses} IPs in {left.blocks} block{'' if left.blocks == 1 else 's'} handed back")


def show_electors(chosen: str | None, output: str, socket: str | None) -> None:
    """Those that there are, after `chosen` have become them."""
    one_of("output", output, ("text", "wide", "json"))
    if chosen is not None:
        call = SetElectorsCall(_electors(chosen))
        with patience("copying the registers to the new electors"):
            agent(socket, SLOW_SECONDS).ask(call, object)
    found = _ipam(agent(socket).ask(StatusCall(), Snapshot))
    if output == "json":
        shown = {"cluster": found.cluster, "epoch": found.epoch, "electors": found.electors}
        typer.echo(msgspec.json.encode({"schema": SCHEMA, **shown}))
    else:
        typer.echo("\n".join(electors(found)))


def _ipam(snapshot: Snapshot) -> Ipam:
    found = snapshot.ipam
    if found is None or found.mode == "static":
        raise AgentError("there are no electors: blocks are given by hand here", "start all nodes without --block")
    if not found.cluster:
        raise AgentError(f"there are no electors yet: {found.status}", "see: tunrouter status ipam")
    return found


def _names(peers: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(values.node_name(peer) for peer in peers))
    except values.InvalidValueError as error:
        what = f"expected names of peers, {error.expected}, got {' '.join(peers)!r}"
        raise ConfigError(what, "see: tunrouter status ipam") from None


def _electors(text: str) -> tuple[str, ...]:
    try:
        return values.seed(tuple(text.split(",")))
    except values.InvalidValueError as error:
        fix = "for example: tunrouter electors --set node-a,node-b,node-c"
        raise ConfigError(f"--set: expected {error.expected}, got {text!r}", fix) from None
