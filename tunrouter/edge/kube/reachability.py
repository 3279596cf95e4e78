"""Whether the API server is there, and when it is back: who waits out an outage is woken, and need not ask often.

Law: nobody asks a server that is away but this one prober, by a question that costs it next to nothing (`/readyz`),
every few seconds. Only a server seen away and then seen back wakes the others: one that is ready and yet fails some
requests does not, so their backoff stays theirs.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from typing import Final

from tunrouter.edge.kube.faults import UnreachableError

FIRST_SECONDS: Final = 1.0
MOST_SECONDS: Final = 3.0


def jittered(seconds: float) -> float:
    """Half of it up to all: nodes that lost the server at once do not come back at once."""
    return seconds * (0.5 + int.from_bytes(os.urandom(4), "big") / (1 << 33))


class Reachability:
    """Of one server. `ask` asks whether it is ready and raises UnreachableError if not."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._back = asyncio.Event()
        self._back_at = -math.inf
        self._prober: asyncio.Task[None] | None = None
        self.away_since: float | None = None
        """By the loop's clock; none while it answers."""
        self.why = ""

    def failed(self, why: str) -> None:
        """A request was not answered as it should be."""
        loop = asyncio.get_running_loop()
        if self.away_since is None:
            self.away_since = loop.time()
        self.why = why
        if self._prober is None or self._prober.done():
            self._prober = loop.create_task(self._probe())

    def answered(self) -> None:
        self.away_since = None
        self.why = ""

    async def wait(self, seconds: float, begun: float = math.inf) -> None:
        """For so long, or until the server is back. What failed had `begun` at this time by the loop's clock: if the
        server has come back since, there is nothing to wait for.
        """
        if begun > self._back_at:
            try:
                async with asyncio.timeout(seconds):
                    await self._back.wait()
            except TimeoutError:
                return
        await asyncio.sleep(jittered(FIRST_SECONDS))

    async def close(self) -> None:
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)

    async def _probe(self) -> None:
        away, pause = False, FIRST_SECONDS
        while True:
            await asyncio.sleep(jittered(pause))
            try:
                await self._ask()
            except UnreachableError as error:
                away, self.why = True, str(error)
                pause = min(pause * 2, MOST_SECONDS)
                continue
            if away:
                self._back_at = asyncio.get_running_loop().time()
                self._back.set()
                self._back = asyncio.Event()
            return
