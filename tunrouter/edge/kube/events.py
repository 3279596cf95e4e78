"""Events at this node's object, or at another: what `kubectl describe` and `kubectl get events` tell of the network.

Law: said once while it lasts, however often it is found; again after an hour. So many are remembered, so many said in a
minute; what is too much is in the log all the same. An Event that cannot be made is not worth a retry.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from datetime import UTC, datetime
from typing import Final

from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.objects import EVENTS, Event, EventSource, Metadata, ObjectReference
from tunrouter.errors import ClusterError

COMPONENT: Final = "weave-net"
NAMESPACE: Final = "default"
"""Where Events of what has no namespace stand."""
AGAIN_SECONDS: Final = 3600.0
REMEMBERED: Final = 256
MINUTE: Final = 60.0
PER_MINUTE: Final = 5
TEXT: Final = 1024
"""The API takes no longer message."""
log = logging.getLogger("tunrouter.kubernetes")


class Events:
    """At most so many (`most`) in so many seconds (`within`)."""

    def __init__(self, client: Client, node: str, *, most: int = PER_MINUTE, within: float = MINUTE) -> None:
        self._client = client
        self._node = node
        self._within = within
        self._said: dict[tuple[str, str, ObjectReference | None], float] = {}
        self._lately: deque[float] = deque(maxlen=most)

    async def say(
        self, reason: str, message: str, *, warning: bool = True, about: ObjectReference | None = None
    ) -> bool:
        """`reason` is one word in camel case; without `about` it is about the node. Whether it was said."""
        now = time.monotonic()
        if not self._is_news((reason, message, about), now):
            return False
        # kubectl looks for Events of a Node by its name in the place of a UID.
        about = about or ObjectReference(kind="Node", name=self._node, uid=self._node)
        at = datetime.now(UTC).replace(microsecond=0)
        event = Event(
            metadata=Metadata(name=f"{about.name[:200]}.{os.urandom(8).hex()}", namespace=about.namespace or NAMESPACE),
            involved_object=about,
            reason=reason,
            message=message[:TEXT],
            type="Warning" if warning else "Normal",
            source=EventSource(component=COMPONENT, host=self._node),
            first_timestamp=at,
            last_timestamp=at,
            count=1,
            reporting_component=COMPONENT,
            reporting_instance=self._node,
        )
        try:
            await self._client.create(EVENTS, event)
        except ClusterError as error:
            log.debug("no Event: %s", error)
        return True

    def forget(self) -> None:
        """What was said is no longer so: if it comes again it is news."""
        self._said.clear()

    def _is_news(self, what: tuple[str, str, ObjectReference | None], now: float) -> bool:
        if now - self._said.get(what, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return False
        if len(self._lately) == self._lately.maxlen and now - self._lately[0] < self._within:
            return False
        self._lately.append(now)
        self._said.pop(what, None)
        self._said[what] = now
        while len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
        return True
