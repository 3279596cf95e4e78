"""What others watch this node by: its loop, counters and clock of late, and metrics and health over HTTP.

Law: it watches and is never in the way. An address that cannot be had is said in the log and in `status`, and tried
again for as long as the agent lives; the network goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from tunrouter.agent.lag import LagProbe
from tunrouter.agent.lately import Lately
from tunrouter.agent.logs import OncePerKey
from tunrouter.agent.wallclock import WallClock
from tunrouter.config import listening
from tunrouter.core.status import Clock, Lag, Snapshot

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
        if self._address:
            serving = self._loop.create_task(self._serve())
            stack.push_async_callback(_end, serving)

    async def _serve(self) -> None:
        """Until it is cancelled."""
        from tunrouter.agent.metrics import families
        from tunrouter.edge.metrics import Server, Source

        server = Server(self._loop, Source(self._collect, families, self._unready))
        host, port = listening(self._address)
        while True:
            try:
                server.listen(host, port)
                break
            except OSError as error:
                self._warn(error)
                await asyncio.sleep(AGAIN_SECONDS)
        self.warnings = ()
        try:
            await asyncio.Event().wait()
        finally:
            await self._loop.run_in_executor(None, server.close)

    def _warn(self, error: OSError) -> None:
        why = os.strerror(error.errno) if error.errno else str(error)
        text = f"no metrics and no health checks: {self._address}: {why}; free it, or give another --metrics-addr"
        self.warnings = (text,)
        self._once.say("error", "metrics", text, time.monotonic())


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
