"""How long who asks by the API is kept waiting: for the agent's start, and for the work.

Law: how the agent is doing is told at once, everything else waits for the first seconds to be over. What takes longer
than anything that is not stuck is given up, and its caller hears so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tunrouter.edge import api
from tunrouter.errors import AgentError

START_SECONDS: Final = 5.0
"""A call that comes while the agent starts waits so long for it."""
CALL_SECONDS: Final = 30.0
"""For the work of one API call: generous, so that only what is stuck meets it."""


class Calls:
    def __init__(self, obey: Callable[[api.Call], Awaitable[Any]]) -> None:
        self._obey = obey
        self.serving = asyncio.Event()
        """The agent has started."""

    async def answer(self, call: api.Call) -> Any:
        """Raises AgentError, and what the work raises."""
        try:
            async with asyncio.timeout(CALL_SECONDS) as bound:
                await self._begun(call)
                return await self._obey(call)
        except TimeoutError:
            if not bound.expired():
                raise
            raise AgentError(
                f"this was not done within {CALL_SECONDS:g} s", "see the agent's log, then try again"
            ) from None

    async def _begun(self, call: api.Call) -> None:
        status_of_cni = isinstance(call, api.CniCall) and call.environment.get("CNI_COMMAND") == "STATUS"
        if not isinstance(call, api.StatusCall) and not status_of_cni:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.serving.wait(), START_SECONDS)
