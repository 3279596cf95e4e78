"""`tunrouter doctor`: what would stop traffic on this host, by the agent's facts or else the configuration's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Final

import msgspec
import typer

from tunrouter.agent.plan import underlay_wish
from tunrouter.cli.settings import agent, one_of, settings
from tunrouter.cli.text import paint, printable, wants_colour
from tunrouter.config import Config, values
from tunrouter.core.status import Snapshot
from tunrouter.doctor import Finding, Known, diagnose, told
from tunrouter.edge.api import StatusCall
from tunrouter.errors import AgentError, AgentSilentError, AgentUnreachableError, HostError

SCHEMA: Final = 1
ANSWER_SECONDS: Final = 3.0
"""Less than other commands have: of an agent that hangs the host has to tell."""
SILENT_FIX: Final = "see its log and top; if it stands still, restart it: pods' established connections stay"
LEVEL_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def run(flags: Mapping[str, object], output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "wide", "json"))
    if os.geteuid() != 0:
        raise HostError("doctor needs root", "run as root: sudo tunrouter doctor")
    config = settings(flags).config
    heard = _ask(socket or str(config.socket))
    known = of_agent(heard, config) if isinstance(heard, Snapshot) else of_configuration(config)
    if isinstance(heard, Finding):
        known = msgspec.structs.replace(known, running=True)
    findings = [*([heard] if isinstance(heard, Finding) else []), *diagnose(known)]
    findings += told(heard) if isinstance(heard, Snapshot) else []
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, "agent": known.running, "findings": findings}))
    else:
        typer.echo("\n".join(lines(findings, running=known.running, colour=wants_colour())))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def _ask(socket: str) -> Snapshot | Finding | None:
    """None without an agent; a finding if there is one that does not tell how it is."""
    try:
        return agent(socket, ANSWER_SECONDS).ask(StatusCall(), Snapshot)
    except AgentSilentError as error:
        return Finding("agent", "fail", f"{error.what}, though it is there", SILENT_FIX)
    except AgentUnreachableError:
        return None
    except AgentError as error:
        return Finding("agent", "fail", error.what, error.fix)


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


def of_configuration(config: Config) -> Known:
    return Known(
        range=IPv4Network(config.range),
        bridge=config.bridge,
        tun=config.tun,
        port=config.port,
        peers=_addresses(config.peers),
        host=config.host,
        wish=underlay_wish(config),
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
