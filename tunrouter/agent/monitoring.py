"""What others watch this node by: its loop, counters and clock of late, and metrics and health over HTTP.

Law: it watches and is never in the way: the network goes on without it. Metrics are served where everybody may ask
(with health), health alone also at a second address, for a kubelet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tunrouter.agent.lag import LagProbe
from tunrouter.agent.lately import Lately
from tunrouter.agent.wallclock import WallClock
from tunrouter.core.status import Clock, Lag, Snapshot
from tunrouter.daemon.logs import OncePerKey
from tunrouter.daemon.serving import Serving
from tunrouter.errors import HostError

if TYPE_CHECKING:
    from tunrouter.edge.metrics import Server


class Monitoring:
    """`collect`, `unready` and `count` are called on the loop; the first may raise TunrouterError."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        metrics: str,
        health: str,
        once: OncePerKey,
        collect: Callable[[], Snapshot],
        unready: Callable[[], str],
        count: Callable[[], Mapping[str, int]],
    ) -> None:
        """At an empty address nothing is served."""
        self._loop = loop
        self._collect = collect
        self._unready = unready
        self._probe = LagProbe(loop)
        what = "metrics and no health checks"
        self._metrics = Serving(loop, metrics, once, lambda: self._make(metrics=True), what, "metrics_addr")
        self._health = Serving(loop, health, once, lambda: self._make(metrics=False), "health checks", "health_addr")
        self._lately = Lately(loop, count)
        self._clock = WallClock(loop)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._metrics.warnings + self._health.warnings

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
        for place in (self._metrics, self._health):
            place.start()
            stack.push_async_callback(place.close)

    async def move(self, metrics: str, health: str) -> None:
        """Serves there and nowhere else. Raises HostError, then everything is as it was."""
        before = self._metrics.address
        await self._metrics.move(metrics)
        try:
            await self._health.move(health)
        except HostError:
            await self._metrics.move(before)
            raise

    def _make(self, *, metrics: bool) -> Server[Snapshot]:
        from tunrouter.agent.metrics import families
        from tunrouter.edge.metrics import Server, Source

        return Server(self._loop, Source(self._collect if metrics else None, families, self._unready))
