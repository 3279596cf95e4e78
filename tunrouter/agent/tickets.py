"""Questions about addresses on their way through the node, and their answers on the way back to who asked.

Law: each question has a number of its own and is answered once; who does not wait any more is answered all the same, to
nobody. A refusal becomes an error in the node's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import count
from typing import TypeVar

from tunrouter.core.outbox import Refusal
from tunrouter.core.requests import Allocate, Claim, Release, Request
from tunrouter.errors import AgentError

R = TypeVar("R")


class Tickets:
    """`ask` hands a request to the node, on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[Request], None]) -> None:
        self._loop = loop
        self._ask = ask
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[object]] = {}

    async def ask(self, make: Callable[[int], Request], kind: type[R]) -> R:
        """`make` is given the number. Raises AgentError for what the node refuses."""
        number = next(self._numbers)
        future = self._waiting[number] = self._loop.create_future()
        try:
            self._ask(make(number))
            result = await future
        finally:
            del self._waiting[number]
        if isinstance(result, Refusal):
            raise AgentError(result.what, result.fix)
        assert isinstance(result, kind)
        return result

    def answered(self, number: int, result: object) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(result)

    # --- as attachments want it --------------------------------------------------------------------------------------
    async def allocate(self, container: str, interface: str, wanted: IPv4Address | None, pod: str = "") -> IPv4Address:
        return await self.ask(lambda number: Allocate(number, container, interface, wanted, pod), IPv4Address)

    async def release(self, container: str, interface: str) -> None:
        await self.ask(lambda number: Release(number, container, interface), tuple)

    async def claim(self, container: str, interface: str, address: IPv4Address) -> bool:
        return await self.ask(lambda number: Claim(number, container, interface, address), bool)
