"""The configuration as a command needs it, and the way to the agent.

Law: the passwords in the environment are read once and then taken out of it, so no program we start inherits them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunrouter.edge.api.client import Client
from tunrouter.errors import ConfigError

if TYPE_CHECKING:
    from tunrouter.config import Resolved

DEFAULT_RUN_DIR = "/run/tunrouter"
SOCKET_NAME = "tunrouter.sock"
"""As in the configuration, which is not loaded to ask an agent: it takes as long as the question."""


def settings(flags: Mapping[str, object]) -> Resolved:
    """What flags, environment and file say; raises ConfigError."""
    from tunrouter.config import resolve
    from tunrouter.config.sources import PASSWORD_VARIABLES

    environ = dict(os.environ)
    for variable in PASSWORD_VARIABLES:
        os.environ.pop(variable, None)
    return resolve(flags, environ)


def agent(socket: str | None) -> Client:
    """The agent of `--socket`, else of TUNROUTER_RUN_DIR, else of this host."""
    run_dir = Path(os.environ.get("TUNROUTER_RUN_DIR") or DEFAULT_RUN_DIR)
    return Client(Path(socket) if socket else run_dir / SOCKET_NAME)


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is allowed; else a ConfigError with the closest match."""
    if value not in allowed:
        import difflib

        close = difflib.get_close_matches(value, allowed, n=1)
        fix = f"did you mean {close[0]}?" if close else f"give one of {', '.join(allowed)}"
        raise ConfigError(f"{what} {value!r} is not known", fix)
    return value
