"""`tunrouter attach` and `tunrouter detach`: a network namespace joins or leaves the bridge.

The user names a process (its number), a namespace (`ip netns`), any path to one, or a container of Docker, podman or
nerdctl; the agent gets a path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
import typer

from tunrouter.cli import containers
from tunrouter.cli.ps import select
from tunrouter.cli.settings import agent, ipv4, one_of
from tunrouter.config import values
from tunrouter.edge.api import AttachCall, Attachment, DetachCall, Leases, PsCall
from tunrouter.errors import ConfigError

NAMED: Final = Path("/run/netns")
_SHORT_ID: Final = re.compile("[0-9a-f]{12,63}")


def attach(target: str, ip: str | None, interface: str, output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "json"))
    path, name = find(target)
    call = AttachCall(str(path), name, None if ip is None else ipv4("--ip", ip), _interface(interface))
    if not _exists(path):
        what = f"there is no network namespace {str(path)!r}, and no container of that name"
        raise ConfigError(what, "give a running PID, a name of: ip netns, or a container")
    attachment = agent(socket).ask(call, Attachment)
    if output == "json":
        typer.echo(msgspec.json.encode(attachment))
    else:
        typer.echo(attachment.address.partition("/")[0])


def detach(target: str, interface: str, socket: str | None) -> None:
    """What is gone may be detached too: its address becomes free."""
    client, device = agent(socket), _interface(interface)
    path, name = find(target)
    if _SHORT_ID.fullmatch(name):
        # A container that its runtime has forgotten: its address has its whole id.
        leases, unknown = select(client.ask(PsCall(), Leases).leases, [target])
        names = {lease.container for lease in leases}
        name = names.pop() if not unknown and len(names) == 1 else target
    client.ask(DetachCall(str(path), name, device), object)


def find(target: str) -> tuple[Path, str]:
    """The namespace that the user means, and what it is called here: a container by its whole id."""
    path = namespace(target)
    if _exists(path) or "/" in target:
        return path, target
    container = containers.find(target)
    if container is None:
        return path, target
    if not container.pid:
        raise ConfigError(f"container {target!r} does not run", "start it first")
    return Path("/proc") / str(container.pid) / "ns/net", container.id


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
