"""One session's way around: when its datagrams also go by relay, when they only do, and when the direct way is tried.

Law: a direct way that is in doubt at either end is backed up at once: the same sealed datagrams also go by relay, and
the replay window removes the twin. It is given up when nothing came on it for as long as a dead peer has, while the
peer was heard; so a peer that is dead is never taken for one whose direct way is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from tunrouter.core import bounds, seam
from tunrouter.core.hops import Hops
from tunrouter.core.outbox import Outbox

NEVER: Final = float("inf")


class Detours:
    def __init__(self, node: int, hops: Hops, out: Outbox) -> None:
        self._node = node
        self._hops = hops
        self._out = out
        self.backed = 0
        """The keys that are sealed for both ways, 0 for none."""
        self._doubted_since = NEVER
        self.doubted_until = NEVER
        """The other end is in doubt about the direct way; NEVER: it is not."""
        self.retry_at = NEVER
        self._pause = bounds.DIRECT_FIRST_SECONDS

    @property
    def possible(self) -> bool:
        """A way leads around."""
        return self._hops.lead(self._node)

    def doubted(self, now: float) -> None:
        """The other end says by relay that it does not hear us.

        Copies that come by relay say nothing alone: two ends would go on doubting because the other one does.
        """
        if self.doubted_until == NEVER:
            self._doubted_since = now
        self.doubted_until = now + bounds.DEAD_SECONDS

    def proved(self) -> None:
        """A handshake went the direct way and came back: there is no reason for doubts from before it."""
        self.doubted_until = NEVER

    def back_up(self, base: int, standing: Collection[int], now: float, *, suspect: bool) -> None:
        """The keys in use are under `base`, 0 if there are none or they are relayed anyway."""
        if now >= self.doubted_until:
            self.doubted_until = NEVER
        wanted = suspect or self.doubted_until != NEVER
        backed = base if wanted and self.possible else 0
        if backed == self.backed:
            return
        if self.backed in standing:
            self._out.put(seam.Backup(self.backed, on=False))
        if backed:
            self._out.put(seam.Backup(backed, on=True))
        self.backed = backed

    def due(self, now: float, heard_at: float, spoke_at: float, *, dead: bool) -> bool:
        """Whether the direct way is to be given up.

        `heard_at` is when something last came on it, and `spoke_at` when the peer's control was heard at all.
        """
        given_up = dead or now >= max(heard_at, self._doubted_since) + bounds.DEAD_SECONDS
        return given_up and now - spoke_at < bounds.SUSPECT_SECONDS and self.possible

    def begin(self, now: float) -> None:
        """It goes by relay from now on."""
        self.doubted_until = NEVER
        self._pause = bounds.DIRECT_FIRST_SECONDS
        self.retry_at = now + self._pause

    def retries(self, now: float) -> bool:
        """Whether it is time to try the direct way again."""
        if now < self.retry_at:
            return False
        self._pause = min(2 * self._pause, bounds.DIRECT_RETRY_SECONDS)
        self.retry_at = now + self._pause
        return True
