"""SIGHUP: the configuration is read again, from the sources that it had at the start.

Law: all or nothing. What cannot be read or had, or is wrong, is refused in one line and everything stays as it was.
Peers, secrets, the log level and where metrics and health are served change at once, and no session is touched; what
else is different is named, for it needs a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from tunrouter.agent import membership
from tunrouter.agent.service import Service
from tunrouter.config import Config, Given
from tunrouter.core import keys
from tunrouter.errors import TunrouterError

LIVE: Final = ("peers", "secrets", "log_level", "metrics_addr", "health_addr")
log = logging.getLogger("tunrouter")

Adopt = Callable[[Config, keys.KeyRing | None], Awaitable[None]]
"""Makes a running agent what the configuration says, or raises TunrouterError; the ring is None if it stays."""


class Reload:
    def __init__(self, given: Given, service: Service) -> None:
        self._given = given
        self._service = service
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """As often as one likes: what is asked during a reload, or before the agent is ready, is one more reload."""
        self._asked.set()

    async def keep(self, config: Config, adopt: Adopt) -> None:
        """Reloads whenever that is asked; `config` is what the agent was started with."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._service.reloading()
            refusal = ""
            try:
                config = await self._reload(config, adopt)
            except TunrouterError as error:
                refusal = str(error)
                log.error("the new configuration is refused and the old one stays: %s", refusal)  # noqa: TRY400
            except Exception as error:  # whatever it is, the next reload may do better
                refusal = f"internal error: {error!r}"
                log.error("the new configuration could not be read and the old one stays: %s", refusal)  # noqa: TRY400
            self._service.reloaded(refusal)

    async def _reload(self, old: Config, adopt: Adopt) -> Config:
        """The configuration in force afterwards."""
        loop = asyncio.get_running_loop()
        wanted = (await loop.run_in_executor(None, self._given.resolve)).config
        new = live(old, wanted)
        ring = await loop.run_in_executor(None, membership.derive, new) if new.secrets != old.secrets else None
        await adopt(new, ring)
        changed = differences(old, new)
        log.info("the configuration was read again; changed: %s", ", ".join(changed) or "nothing")
        if late := differences(new, wanted):
            log.warning("only a restart changes: %s", ", ".join(late))
        return new


def live(old: Config, wanted: Config) -> Config:
    """`old` with what may change in a running agent. Nodes with and without encryption never mix, so that may not."""
    names = [name for name in LIVE if name != "secrets" or bool(old.secrets) == bool(wanted.secrets)]
    return msgspec.structs.replace(old, **{name: getattr(wanted, name) for name in names})


def differences(one: Config, other: Config) -> list[str]:
    """Names of the keys that differ, as the file has them."""
    found = [name for name in Config.__struct_fields__ if getattr(one, name) != getattr(other, name)]
    return ["password" if name == "secrets" else name for name in found]
