"""Where peers are: the data plane is told whose handshakes never wait, and the disk whom to try first in the next life.

Law: only direct endpoints count, and what has not changed is not told again.
"""

from __future__ import annotations

from collections.abc import Collection

from tunrouter.core import bounds, seam
from tunrouter.core.outbox import Outbox, Remember
from tunrouter.core.session import Session
from tunrouter.core.targets import Targets


class Contacts:
    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._known: frozenset[str] = frozenset()
        self.remembered: tuple[seam.Endpoint, ...] = ()
        """What the disk has."""

    def publish(self, sessions: Collection[Session], targets: Targets) -> None:
        here = [s.endpoint for s in sessions if s.endpoint is not None and not s.relayed]
        wanted = [target.endpoint for target in targets if target.endpoint is not None]
        known = frozenset(address for address, _ in here + wanted)
        if known != self._known:
            self._known = known
            self._out.put(seam.Known(tuple(sorted(known)[: bounds.MAX_KNOWN])))
        lasting = tuple(sorted({s.endpoint for s in sessions if s.current and s.endpoint and not s.relayed}))
        if lasting and lasting != self.remembered:
            self.remembered = lasting
            self._out.put(Remember(lasting[: bounds.MAX_TARGETS]))
