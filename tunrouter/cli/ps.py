"""`tunrouter ps` and `tunrouter whois`: who has which address, here or anywhere.

Law: as Weave's `ps`, a line begins with the container and its third word is the address. What could not be asked is
named on stderr, and then the exit code is 1: an answer that is not whole never looks like one that is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import typer

from tunrouter.cli.ipam import some
from tunrouter.cli.patience import patience
from tunrouter.cli.settings import agent, ipv4, one_of
from tunrouter.cli.text import node_name, printable
from tunrouter.edge.api import Lease, Leases, NodeName, PsCall, Whois, WhoisCall
from tunrouter.errors import AgentError

SCHEMA: Final = 1
_FULL_ID: Final = re.compile("[0-9a-f]{64}")
_POD: Final = re.compile(r"[^/]+/([^/]+)")
_SHORT_ID: Final = 12


def ps(containers: Sequence[str], everywhere: bool, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "wide", "json"))
    with patience("asking all nodes" if everywhere else "asking the agent"):
        found = agent(socket).ask(PsCall(everywhere), Leases)
    leases, unknown = select(found.leases, containers)
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, "leases": leases, "missing": found.missing}))
    for lease in leases if output != "json" else ():
        typer.echo(_line(lease, everywhere=everywhere, wide=output == "wide"))
    if found.missing:
        names = some(tuple(_of(node) for node in found.missing))
        raise AgentError(f"no answer from {names}: their addresses are not shown", "see: tunrouter status ipam")
    if unknown:
        fix = "give the start of an id or a whole name" if everywhere else "ask all nodes: tunrouter ps --all"
        raise AgentError(f"no address is held by {some(tuple(unknown))}", fix)


def select(leases: Iterable[Lease], containers: Sequence[str]) -> tuple[list[Lease], list[str]]:
    """Those of `containers`, each a name or the start of an id, all if there are none; and which were not found."""
    held = list(leases)
    if not containers:
        return held, []
    names = {lease.container for lease in held}
    wanted = {given: _called(given, names) for given in containers}
    chosen = set[str]().union(*wanted.values())
    return [lease for lease in held if lease.container in chosen], [given for given in wanted if not wanted[given]]


def _called(given: str, names: set[str]) -> set[str]:
    """By a whole name or id; only if there is none by how it begins."""
    exactly = {name for name in names if given in (name, _id(name))}
    return exactly or {name for name in names if given and (name.startswith(given) or _id(name).startswith(given))}


def _id(name: str) -> str:
    """What its runtime calls a container, whose network stands before it here."""
    pod = _POD.fullmatch(name)
    return pod[1] if pod is not None else name


def _line(lease: Lease, *, everywhere: bool, wide: bool) -> str:
    container = lease.container if wide else _id(lease.container)
    if not wide and _FULL_ID.fullmatch(container):
        container = container[:_SHORT_ID]
    node = f" {node_name(lease.node, lease.nickname)}" if everywhere or wide else ""
    return f"{printable(container):<{_SHORT_ID}} {printable(lease.interface):<4} {printable(lease.address)}/32{node}"


def whois(address: str, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "wide", "json"))
    call = WhoisCall(ipv4("address", address))
    with patience("asking whose it is"):
        found = agent(socket).ask(call, Whois)
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, **msgspec.structs.asdict(found)}))
    else:
        typer.echo(printable(f"{found.address} {_what(found)}"))
    if found.state == "silent":
        raise typer.Exit(1)


def _what(found: Whois) -> str:
    owner = _of(found.owner) if found.owner else "an unknown node"
    lease = found.lease
    match found.state:
        case "held" if lease is not None:
            return f"is held by {lease.container} ({lease.interface}) on {owner}, block {found.block}"
        case "silent":
            return f"lies in the block {found.block} of {owner}, which does not answer"
        case "unowned":
            return "is free: its block has no owner"
        case "outside":
            return "lies outside the range of pods' addresses"
        case "bridge":
            return f"is the bridge of {owner}, block {found.block}"
        case "resting":
            return f"was given back a short while ago on {owner}, block {found.block}"
        case _:
            return f"is {found.state} on {owner}, block {found.block}"


def _of(node: NodeName) -> str:
    return node_name(node.node, node.nickname)
