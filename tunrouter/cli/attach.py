"""`tunrouter attach` and `tunrouter detach`: a network namespace joins or leaves the bridge.

The user names a process (its number), a namespace (`ip netns`), or any path to one; the agent gets a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import typer

from tunrouter.cli.settings import agent, ipv4, one_of
from tunrouter.config import values
from tunrouter.edge.api import AttachCall, Attachment, DetachCall
from tunrouter.errors import ConfigError

NAMED: Final = Path("/run/netns")


def attach(target: str, ip: str | None, interface: str, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "json"))
    path = namespace(target)
    call = AttachCall(str(path), target, None if ip is None else ipv4("--ip", ip), _interface(interface))
    if not _exists(path):
        raise ConfigError(f"there is no network namespace {str(path)!r}", "give a running PID or a name of: ip netns")
    attachment = agent(socket).ask(call, Attachment)
    if output == "json":
        typer.echo(msgspec.json.encode(attachment))
    else:
        typer.echo(attachment.address.partition("/")[0])


def detach(target: str, interface: str, socket: str | None) -> None:
    """What is gone may be detached too: its address becomes free."""
    agent(socket).ask(DetachCall(str(namespace(target)), target, _interface(interface)), object)


def namespace(target: str) -> Path:
    """Where the kernel shows the namespace that the user names."""
    if target.isascii() and target.isdigit():
        return Path("/proc") / target / "ns/net"
    if "/" in target:
        return Path(target).absolute()
    if target in ("", ".", "..") or not target.isprintable():
        raise ConfigError(f"{target!r} names no network namespace", "give a running PID or a name of: ip netns")
    return NAMED / target


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        # Not ours to look at; the agent may.
        return True
    except (OSError, ValueError):
        return False


def _interface(name: str) -> str:
    try:
        return values.interface(name)
    except values.InvalidValueError as error:
        raise ConfigError(f"--interface: expected {error.expected}, got {name!r}", "give --interface eth0") from None
