"""What others watch this node by: its loop, counters and clock of late, and metrics and health over HTTP.

Law: it watches and is never in the way. An address that cannot be had is said in the log and in `status`, and tried
again for as long as the agent lives; the network goes on. A running agent moves only to one that can be had.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from tunrouter.agent.lag import LagProbe
from tunrouter.agent.lately import Lately
from tunrouter.agent.logs import OncePerKey
from tunrouter.agent.wallclock import WallClock
from tunrouter.config import listening
from tunrouter.core.status import Clock, Lag, Snapshot
from tunrouter.errors import HostError

if TYPE_CHECKING:
    from tunrouter.edge.metrics import Server

AGAIN_SECONDS: Final = 2.0
"""Between attempts to have the address."""


class Monitoring:
    """`collect`, `unready` and `count` are called on the loop; the first may raise TunrouterError."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        once: OncePerKey,
        collect: Callable[[], Snapshot],
        unready: Callable[[], str],
        count: Callable[[], Mapping[str, int]],
    ) -> None:
        """Without an address nothing is served."""
        self._loop = loop
        self._address = address
        self._once = once
        self._collect = collect
        self._unready = unready
        self._probe = LagProbe(loop)
        self._server: Server[Snapshot] | None = None
        self._trying: asyncio.Task[None] | None = None
        """While the address cannot be had."""
        self._lately = Lately(loop, count)
        self._clock = WallClock(loop)
        self.warnings: tuple[str, ...] = ()

    @property
    def lag(self) -> Lag:
        return self._probe.report()

    @property
    def lately(self) -> dict[str, int]:
        return self._lately.report()

    @property
    def clock(self) -> Clock:
        return self._clock.report()

    def start(self, stack: contextlib.AsyncExitStack) -> None:
        for watch in (self._probe, self._lately, self._clock):
            watch.start()
            stack.callback(watch.close)
        stack.push_async_callback(self._close)
        if self._address:
            self._trying = self._loop.create_task(self._try())

    async def move(self, address: str) -> None:
        """Serves there and nowhere else, without an address nowhere. Raises HostError, then everything is as it was."""
        if address == self._address:
            return
        server = self._make() if address else None
        if server is not None:
            await self._listen_instead(server, address)
        await self._close()
        self._address, self._server, self.warnings = address, server, ()

    async def _listen_instead(self, server: Server[Snapshot], address: str) -> None:
        """As `move`. A port is not had twice, not even where one of two addresses is all of them."""
        host, port = listening(address)
        if self._server is not None and port == listening(self._address)[1]:
            await self._close()
        try:
            server.listen(host, port)
        except OSError as error:
            if self._server is None and self._trying is None and self._address:
                self._trying = self._loop.create_task(self._try())
            raise HostError(
                f"no metrics at {address}: {_why(error)}", "free it, or give another metrics_addr"
            ) from None

    def _make(self) -> Server[Snapshot]:
        from tunrouter.agent.metrics import families
        from tunrouter.edge.metrics import Server, Source

        return Server(self._loop, Source(self._collect, families, self._unready))

    async def _try(self) -> None:
        """Until somebody listens there, which may be at once."""
        server = self._make()
        host, port = listening(self._address)
        while True:
            try:
                server.listen(host, port)
                break
            except OSError as error:
                self._warn(error)
                await asyncio.sleep(AGAIN_SECONDS)
        self._server, self._trying, self.warnings = server, None, ()

    async def _close(self) -> None:
        """Nobody is served, and nothing tries to."""
        trying, self._trying = self._trying, None
        if trying is not None:
            trying.cancel()
            await asyncio.wait([trying])
        server, self._server = self._server, None
        if server is not None:
            await self._loop.run_in_executor(None, server.close)

    def _warn(self, error: OSError) -> None:
        text = (
            f"no metrics and no health checks: {self._address}: {_why(error)}; free it, or give another --metrics-addr"
        )
        self.warnings = (text,)
        self._once.say("error", "metrics", text, time.monotonic())


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
