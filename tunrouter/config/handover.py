"""The configuration's way from the command to the agent: a sealed memory file, inherited over exec.

Law: it holds the secrets, so it exists only in memory, cannot change once written (F_SEAL_*), and is closed when read.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

import msgspec

from tunrouter.config.model import Config
from tunrouter.errors import ConfigError

SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MAX_BYTES: Final = 1 << 20


def hand_over(config: Config) -> int:
    """A descriptor that the next program inherits; its number goes on that program's command line."""
    fd = os.memfd_create("tunrouter-config", os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(msgspec.msgpack.encode(config))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


def read_handed_over(fd: int) -> Config:
    """The configuration behind `fd`, which is closed; raises ConfigError for any other descriptor."""
    failure = ConfigError(f"descriptor {fd} holds no configuration", "start the agent with: tunrouter up")
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) != SEALS:
            raise failure
        data = os.pread(fd, MAX_BYTES, 0)
        os.close(fd)
        return msgspec.msgpack.decode(data, type=Config)
    except (OSError, ValueError, OverflowError, msgspec.MsgspecError):
        raise failure from None
