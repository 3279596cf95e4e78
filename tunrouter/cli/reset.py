"""`tunrouter reset`: stops the agent and the policy process if told to, then removes what it set up on this host.

The node's identity, its state and the network of container runtimes stay, unless they are to be purged. What was
exposed is hidden: nothing else would say so to the next agent.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import typer

from tunrouter.cli.settings import agent, settings
from tunrouter.config import Config
from tunrouter.errors import AgentUnreachableError, HostError

STOP_SECONDS: Final = 15.0


def run(flags: Mapping[str, object], force: bool, purge: bool, socket: str | None) -> None:
    if os.geteuid() != 0:
        raise HostError("reset needs root", "run as root: sudo tunrouter reset")
    config = settings(flags).config
    _stop("the agent", socket or str(config.socket), force)
    # It would put its rules back.
    _stop("weave-npc", str(config.npc_socket), force)
    from tunrouter import host
    from tunrouter.agent.exposure import forget
    from tunrouter.agent.inheritance import end_all

    end_all(Path(config.run_dir))
    for answers in (config.socket, config.npc_socket):
        for path in (answers, answers.with_suffix(".lock")):
            path.unlink(missing_ok=True)
    removed = host.reset(config.bridge, config.tun, config.port) + forget(Path(config.state_dir))
    if purge:
        removed += _purge(config)
    for line in removed or ["nothing to remove"]:
        typer.echo(line)


def _purge(config: Config) -> list[str]:
    """First of all no runtime asks us any more."""
    from tunrouter.cli.cni import directories
    from tunrouter.edge import runtimes, store

    taken = [f"file {path}" for path in runtimes.uninstall(directories(config))]
    return taken + store.erase(Path(config.state_dir), config.notes, [config.socket])


def _stop(who: str, socket: str, force: bool) -> None:
    try:
        pid = agent(socket).pid()
    except AgentUnreachableError:
        return
    if not force:
        raise HostError(f"{who} is running (pid {pid})", "stop it first, or run: tunrouter reset --force")
    typer.echo(f"stopping {who} (pid {pid})")
    _terminate(who, pid)


def _terminate(who: str, pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGINT)  # for good: nobody is to go on
        # A pidfd becomes readable when its process ends.
        if not select.select([descriptor], [], [], STOP_SECONDS)[0]:
            raise HostError(f"{who} (pid {pid}) does not stop", f"look at its log, or run: kill -9 {pid}")
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
