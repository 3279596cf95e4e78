"""The configuration as a command needs it, and the way to the agent.

Law: the passwords in the environment are read once and then taken out of it, so no program we start inherits them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from tunrouter.config import Resolved, resolve
from tunrouter.config.model import SOCKET_NAME
from tunrouter.config.sources import PASSWORD_VARIABLES
from tunrouter.edge.api.client import Client
from tunrouter.errors import ConfigError

DEFAULT_RUN_DIR = "/run/tunrouter"


def settings(flags: Mapping[str, object]) -> Resolved:
    """What flags, environment and file say; raises ConfigError."""
    environ = dict(os.environ)
    for variable in PASSWORD_VARIABLES:
        os.environ.pop(variable, None)
    return resolve(flags, environ)


def agent(socket: Path | None) -> Client:
    """The agent of `--socket`, else of TUNROUTER_RUN_DIR, else of this host."""
    return Client(socket or Path(os.environ.get("TUNROUTER_RUN_DIR") or DEFAULT_RUN_DIR) / SOCKET_NAME)


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is allowed; else a ConfigError with the closest match."""
    if value not in allowed:
        close = difflib.get_close_matches(value, allowed, n=1)
        fix = f"did you mean {close[0]}?" if close else f"give one of {', '.join(allowed)}"
        raise ConfigError(f"{what} {value!r} is not known", fix)
    return value
