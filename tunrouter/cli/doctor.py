"""`tunrouter doctor`: what would stop traffic on this host, by the agent's facts or else the configuration's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Final

import msgspec
import typer

from tunrouter.cli.ipam import some
from tunrouter.cli.settings import agent, one_of, settings
from tunrouter.cli.text import paint, printable, wants_colour
from tunrouter.config import Config, values
from tunrouter.core.status import READY, UNREACHABLE, WAITING, Ipam, Snapshot
from tunrouter.doctor import Finding, Known, diagnose
from tunrouter.edge.api import StatusCall
from tunrouter.errors import AgentUnreachableError, HostError

SCHEMA: Final = 1
ADDRESS_FIXES: Final = {
    WAITING: "remove containers or dead nodes, or give the network a larger --range",
    UNREACHABLE: "if those nodes are gone for good: tunrouter rmpeer PEER",
}
LEVEL_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def run(flags: Mapping[str, object], output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "wide", "json"))
    if os.geteuid() != 0:
        raise HostError("doctor needs root", "run as root: sudo tunrouter doctor")
    config = settings(flags).config
    snapshot = _ask(socket or str(config.socket))
    known = of_agent(snapshot, config) if snapshot else of_configuration(config)
    findings = diagnose(known) + (addresses(snapshot.ipam) if snapshot else [])
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, "agent": known.running, "findings": findings}))
    else:
        typer.echo("\n".join(lines(findings, running=known.running, colour=wants_colour())))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def _ask(socket: str) -> Snapshot | None:
    """None without an agent."""
    try:
        return agent(socket).ask(StatusCall(), Snapshot)
    except AgentUnreachableError:
        return None


def of_agent(snapshot: Snapshot, config: Config) -> Known:
    """Where the agent does not say it, what one would be started with."""
    return msgspec.structs.replace(
        of_configuration(config),
        range=IPv4Network(snapshot.range),
        bridge=snapshot.host.bridge,
        tun=snapshot.host.tun,
        port=snapshot.port,
        peers=_addresses(connection.address for connection in snapshot.connections),
        running=True,
    )


def addresses(found: Ipam | None) -> list[Finding]:
    """What the agent itself knows to be wrong with its addresses."""
    if found is None:
        return []
    if found.fenced:
        what = f"{some(found.fenced)}: the block is another node's now, so traffic is dropped"
        return [Finding("addresses", "fail", what, "start those containers anew: they get other addresses")]
    if found.status in ADDRESS_FIXES:
        return [Finding("addresses", "fail", found.status, ADDRESS_FIXES[found.status])]
    if found.status != READY:
        what = f"{found.status}; until then no new block can be had, and {found.free} addresses are free here"
        return [Finding("addresses", "warn", what, "see: tunrouter status ipam")]
    return [Finding("addresses", "ok", f"{found.used} used, {found.free} free in {found.blocks_own} blocks here")]


def of_configuration(config: Config) -> Known:
    return Known(
        range=IPv4Network(config.range),
        bridge=config.bridge,
        tun=config.tun,
        port=config.port,
        peers=_addresses(config.peers),
        host=config.host,
        cni_bin_dir=config.cni_bin_dir,
        cni_conf_dir=config.cni_conf_dir,
    )


def _addresses(peers: Iterable[str]) -> tuple[str, ...]:
    """Those given as addresses: a name that does not resolve now says nothing of this host."""
    found = (values.peer_address(peer) for peer in peers)
    return tuple(dict.fromkeys(str(address) for address in found if address))


def lines(findings: Sequence[Finding], *, running: bool, colour: bool) -> list[str]:
    shown = [] if running else ["no agent answers here: checking what one would find", ""]
    for finding in findings:
        level = paint(f"{finding.level:<4}", LEVEL_COLOURS[finding.level], on=colour)
        shown.append(f"{level}  {finding.check:<13} {printable(finding.text)}")
        if finding.fix:
            shown.append(f"{'':<19} -> {printable(finding.fix)}")
    levels = [finding.level for finding in findings]
    summary = ", ".join(f"{levels.count(level)} {level}" for level in LEVEL_COLOURS if level in levels)
    return [*shown, "", f"doctor: {summary}"]
