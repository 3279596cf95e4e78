"""Which cluster this is, as a number: from the UID of a namespace that is never deleted.

Law: it is asked for until it is answered, ever more seldom. Once the API has failed to say it, what the disk says is
good enough until then: a node that was here before does not wait for a right that somebody took away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from tunrouter.agent.kubernetes.reports import SYSTEM
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.objects import NAMESPACES
from tunrouter.edge.kube.reflector import backoff
from tunrouter.errors import ClusterError

log: Final = logging.getLogger("tunrouter.kubernetes")


class Identity:
    def __init__(self) -> None:
        self.why = ""
        """Why the API has not said it; empty before it was asked, too."""
        self.since = 0.0
        """By the loop's clock, when it first failed."""
        self._said = 0

    def known(self, before: int) -> int:
        """What the API says, or once it has failed to, what was `before`; 0: not known."""
        return self._said or (before if self.why else 0)

    async def find(self, client: Client, told: Callable[[], None]) -> None:
        """Returns when the API has said it, and `told` has been called."""
        loop, failures = asyncio.get_running_loop(), 0
        while not self._said:
            begun = loop.time()
            try:
                system = await client.get(NAMESPACES, SYSTEM)
            except ClusterError as error:
                self._lost(error, begun)
                await client.reachability.wait(backoff(error, failures), begun)
                failures += 1
            else:
                self._said = int.from_bytes(blake2b(system.metadata.uid.encode(), digest_size=8).digest(), "big")
                self.why = ""
                told()

    def _lost(self, error: ClusterError, now: float) -> None:
        if not self.why:
            self.since = now
            log.warning("the API does not say which cluster this is: %s", error)
        self.why = f"the API does not say which cluster this is: {error}"
