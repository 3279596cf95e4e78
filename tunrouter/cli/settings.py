"""The configuration as a command needs it, and the way to the agent.

Law: the passwords in the environment are read once and then taken out of it, so no program we start inherits them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from tunrouter.edge.api.client import NPC, SECONDS, Client
from tunrouter.errors import ConfigError

if TYPE_CHECKING:
    from tunrouter.config import Resolved

DEFAULT_RUN_DIR = "/run/tunrouter"
SOCKET_NAME = "tunrouter.sock"
NPC_SOCKET_NAME = "npc.sock"
"""As in the configuration, which is not loaded to ask an agent: it takes as long as the question."""

SLOW_SECONDS = 2 * SECONDS
"""For what needs other nodes: the agent, which gives up earlier, says why."""


def settings(flags: Mapping[str, object], *, again: bool = False, secretive: bool = True) -> Resolved:
    """What flags, environment and file say; raises ConfigError. `again`: as for a reload; `secretive`: with secrets."""
    from tunrouter.config import resolve
    from tunrouter.config.sources import PASSWORD_VARIABLES
    from tunrouter.config.weave import EXTRA_ARGS

    environ = dict(os.environ)
    for variable in (*PASSWORD_VARIABLES, EXTRA_ARGS):  # its flags may hold one, too
        os.environ.pop(variable, None)
    return resolve(flags, environ, again=again, secretive=secretive)


def agent(socket: str | None, seconds: float = SECONDS) -> Client:
    """The agent of `--socket`, else of TUNROUTER_RUN_DIR, else of this host."""
    return Client(_socket(socket, SOCKET_NAME), seconds)


def policing(socket: str | None) -> Client:
    """The policy process of this node, found in the same way."""
    return Client(_socket(socket, NPC_SOCKET_NAME), asked=NPC)


def _socket(given: str | None, name: str) -> Path:
    return Path(given) if given else Path(os.environ.get("TUNROUTER_RUN_DIR") or DEFAULT_RUN_DIR) / name


def ipv4(what: str, text: str) -> str:
    """An address as the agent takes it; a pod's /32 may stand behind it."""
    try:
        return str(IPv4Address(text.removesuffix("/32")))
    except ValueError:
        example = f"{what} 10.32.1.7" if what.startswith("-") else "10.32.1.7"
        raise ConfigError(f"{what}: expected an IPv4 address, got {text!r}", f"for example: {example}") from None


def number(option: str, text: str, least: float, most: float) -> float:
    """The value of an option, within its bounds; raises ConfigError."""
    value = math.nan
    with contextlib.suppress(ValueError):
        value = float(text)
    if not least <= value <= most:
        raise ConfigError(f"{option}: expected a number from {least:g} to {most:g}, got {text!r}")
    return value


def whole(option: str, text: str, most: int = 1_000_000_000) -> int:
    """The same for a whole number, at least 1."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise ConfigError(f"{option}: expected a whole number from 1 to {most}, got {text!r}")
    return int(text)


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is allowed; else a ConfigError with the closest match."""
    if value not in allowed:
        import difflib

        close = difflib.get_close_matches(value, allowed, n=1)
        fix = f"did you mean {close[0]}?" if close else f"give one of {', '.join(allowed)}"
        raise ConfigError(f"{what} {value!r} is not known", fix)
    return value
