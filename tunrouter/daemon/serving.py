"""One address where something is served over HTTP, for as long as the process lives.

Law: an address that cannot be had is said in the log and by `warnings`, and tried again; a server that serves moves
only to an address that can be had.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tunrouter.config import listening
from tunrouter.daemon.logs import OncePerKey
from tunrouter.errors import HostError

if TYPE_CHECKING:
    from tunrouter.edge.metrics import Server

AGAIN_SECONDS: Final = 2.0
"""Between attempts to have the address."""


class Serving:
    """Without an address nothing is served. `what` is served, as the configuration's `key` says."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        once: OncePerKey,
        make: Callable[[], Server[Any]],
        what: str,
        key: str,
    ) -> None:
        self.address = address
        self._loop = loop
        self._once = once
        self._make = make
        self._what = what
        self._key = key
        self._server: Server[Any] | None = None
        self._trying: asyncio.Task[None] | None = None
        """While the address cannot be had."""
        self.warnings: tuple[str, ...] = ()

    def start(self) -> None:
        if self.address:
            self._trying = self._loop.create_task(self._try())

    async def move(self, address: str) -> None:
        """Serves there and nowhere else, without an address nowhere. Raises HostError, then everything is as it was."""
        if address == self.address:
            return
        server = self._make() if address else None
        if server is not None:
            await self._listen_instead(server, address)
        await self.close()
        self.address, self._server, self.warnings = address, server, ()

    async def close(self) -> None:
        """Nobody is served, and nothing tries to."""
        trying, self._trying = self._trying, None
        if trying is not None:
            trying.cancel()
            await asyncio.wait([trying])
        server, self._server = self._server, None
        if server is not None:
            await self._loop.run_in_executor(None, server.close)

    async def _listen_instead(self, server: Server[Any], address: str) -> None:
        """As `move`. A port is not had twice, not even where one of two addresses is all of them."""
        host, port = listening(address)
        if self._server is not None and port == listening(self.address)[1]:
            await self.close()
        try:
            server.listen(host, port)
        except OSError as error:
            if self._server is None and self._trying is None and self.address:
                self._trying = self._loop.create_task(self._try())
            fix = f"free it, or give another {self._key}"
            raise HostError(f"no {self._what} at {address}: {_why(error)}", fix) from None

    async def _try(self) -> None:
        """Until somebody listens there, which may be at once."""
        server = self._make()
        host, port = listening(self.address)
        while True:
            try:
                server.listen(host, port)
                break
            except OSError as error:
                self._warn(error)
                await asyncio.sleep(AGAIN_SECONDS)
        self._server, self._trying, self.warnings = server, None, ()

    def _warn(self, error: OSError) -> None:
        option = f"--{self._key.replace('_', '-')}"
        text = f"no {self._what}: {self.address}: {_why(error)}; free it, or give another {option}"
        self.warnings = (text,)
        self._once.say("error", "metrics", text, time.monotonic())


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
