"""In the place of the policy process: it remembers what it is told, and answers as a test wants it to."""

from __future__ import annotations

import asyncio

from tunrouter.edge.api.policing import Container, ContainersCall, EnforceCall, Heard, PolicyCall
from tunrouter.errors import TunrouterError


class Npc:
    def __init__(self) -> None:
        self.lists: list[tuple[Container, ...]] = []
        self.asked: list[EnforceCall] = []
        self.order: list[str] = []
        """Of both, as they ended."""
        self.refusal: TunrouterError | None = None
        """What an EnforceCall is answered with."""
        self.heard: Heard | None = Heard()
        """What a list is answered with."""
        self.hangs = asyncio.Event()
        """While it is set nothing is answered."""
        self.hanging = 0

    @property
    def last(self) -> dict[str, Container]:
        """The newest list, by address."""
        return {one.address: one for one in self.lists[-1]} if self.lists else {}

    async def __call__(self, call: PolicyCall) -> Heard | None:
        self.hanging += 1
        while self.hangs.is_set():
            await asyncio.sleep(0.01)
        self.hanging -= 1
        if isinstance(call, ContainersCall):
            self.lists.append(call.containers)
            self.order.append("list")
        elif isinstance(call, EnforceCall):
            self.asked.append(call)
            self.order.append(call.container.name)
        if isinstance(call, EnforceCall) and self.refusal is not None:
            raise self.refusal
        return self.heard if isinstance(call, ContainersCall) else None
