"""Who waits for the API server, and who is woken when it is back."""

from __future__ import annotations

import asyncio

from tunrouter.edge.kube.faults import UnreachableError
from tunrouter.edge.kube.reachability import Reachability

LONG = 60.0
SOON = 10.0


def test_who_was_asking_when_the_server_came_back_does_not_wait_for_its_next_return() -> None:
    """A connection that was begun before, and failed only afterwards, as one does that swallows packets."""

    async def scenario() -> None:
        loop, there, seen_away = asyncio.get_running_loop(), False, asyncio.Event()

        async def ask() -> None:
            if not there:
                seen_away.set()
                raise UnreachableError("nobody answers")

        server = Reachability(ask)
        server.failed("nobody answers")
        began = loop.time()
        other = loop.create_task(server.wait(LONG, since=began))
        await asyncio.wait_for(seen_away.wait(), SOON)
        there = True
        await asyncio.wait_for(other, SOON)
        server.failed("it did not accept")
        await asyncio.wait_for(server.wait(LONG, since=began), SOON)
        waiting = loop.create_task(server.wait(LONG, since=loop.time()))
        done, _ = await asyncio.wait([waiting], timeout=2.0)
        assert not done, "who began after its return waits as long as it was told to"
        waiting.cancel()
        await server.close()

    asyncio.run(scenario())
