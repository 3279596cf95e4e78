"""`tunrouter connect` and `tunrouter forget`: the targets of a running agent."""

from __future__ import annotations

from collections.abc import Sequence

from tunrouter.cli.settings import agent
from tunrouter.config import values
from tunrouter.edge.api import ConnectCall, ForgetCall
from tunrouter.errors import ConfigError


def connect(peers: Sequence[str], replace: bool, socket: str | None) -> None:
    agent(socket).ask(ConnectCall(_checked(peers), replace), object)


def forget(peers: Sequence[str], socket: str | None) -> None:
    agent(socket).ask(ForgetCall(_checked(peers)), object)


def _checked(peers: Sequence[str]) -> tuple[str, ...]:
    try:
        return values.peers(tuple(peers))
    except values.InvalidValueError as error:
        raise ConfigError(f"expected {error.expected}, got {' '.join(peers)!r}", "for example: 192.0.2.7") from None
