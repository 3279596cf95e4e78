"""The configuration's way from the command to the agent: a sealed memory file, inherited over exec.

With it goes what was given on the command line and in the environment: a reload resolves that again with the files of
then. Law: it holds the secrets, so it exists only in memory, cannot change once written (F_SEAL_*), and is closed when
read.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tunrouter.config import weave
from tunrouter.config.model import Config
from tunrouter.config.resolve import Resolved, resolve
from tunrouter.config.secrets import CREDENTIALS_VARIABLE
from tunrouter.config.sources import Read, read_file
from tunrouter.errors import ConfigError

SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MAX_BYTES: Final = 1 << 20
VARIABLES: Final = ("TUNROUTER_", "WEAVE_", "IPALLOC_", CREDENTIALS_VARIABLE, *weave.VARIABLES)
"""How the names begin of all variables that say something to us."""


class Given(msgspec.Struct, frozen=True):
    """Flags and variables of the command: whatever of a configuration is in no file."""

    flags: dict[str, Any] = {}
    environ: dict[str, str] = {}

    @classmethod
    def of(cls, flags: Mapping[str, object], environ: Mapping[str, str]) -> Given:
        """To be called before anybody takes the passwords out of `environ`."""
        ours = {name: value for name, value in environ.items() if name.startswith(VARIABLES)}
        return cls({name: value for name, value in flags.items() if value is not None}, ours)

    def resolve(self, read: Read = read_file) -> Resolved:
        """What an agent would start with now; raises ConfigError."""
        return resolve(self.flags, self.environ, read, again=True)

    def remarks(self, config: Config) -> tuple[str, ...]:
        """What was given and changes nothing, a line each; raises ConfigError."""
        return weave.hear(self.environ, kubernetes=config.kubernetes).remarks

    def __repr__(self) -> str:
        return f"Given({len(self.flags)} flags, {len(self.environ)} variables)"


class _Sealed(msgspec.Struct, frozen=True):
    config: Config
    given: Given


def hand_over(config: Config, given: Given) -> int:
    """A descriptor that the next program inherits; its number goes on that program's command line."""
    fd = os.memfd_create("tunrouter-config", os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(msgspec.msgpack.encode(_Sealed(config, given)))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


def read_handed_over(fd: int) -> tuple[Config, Given]:
    """What is behind `fd`, which is closed; raises ConfigError for any other descriptor."""
    failure = ConfigError(f"descriptor {fd} holds no configuration", "start the agent with: tunrouter up")
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) != SEALS:
            raise failure
        data = os.pread(fd, MAX_BYTES, 0)
        os.close(fd)
        sealed = msgspec.msgpack.decode(data, type=_Sealed)
    except (OSError, ValueError, OverflowError, msgspec.MsgspecError):
        raise failure from None
    return sealed.config, sealed.given
