"""Which of the two directions to a peer is dead, as far as it can be known, while there is no direct way to it.

Law: silence proves nothing, and whoever hears nothing cannot tell a dead direction from two. The other end can: it gets
our datagrams and hears, by its own word or by handshakes that the peer begins and never confirms, that none of its own
arrive. It says so by relay. The direct way is tried again every `DIRECT_RETRY_SECONDS`, so what was not seen again for
longer is forgotten.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds, status

NEVER: Final = float("-inf")
REMEMBERED_SECONDS: Final = 1.5 * bounds.DIRECT_RETRY_SECONDS


class Ways:
    def __init__(self) -> None:
        self._hears_at = self._heard_at = self._told_at = NEVER

    def unanswered(self, now: float) -> None:
        """Its datagrams came here directly, and it does not get ours."""
        self._hears_at = now

    def tells(self, now: float) -> bool:
        """Whether the peer is to hear at once what was found out: no more often than it hears heartbeats."""
        if now < self._told_at + bounds.HEARTBEAT_SECONDS:
            return False
        self._told_at = now
        return True

    def told(self, now: float, *, arrives: bool) -> None:
        """It says by relay whether ours come there directly. If they do, its own do not arrive here."""
        self._heard_at = now if arrives else NEVER

    def cleared(self) -> None:
        """Both directions work."""
        self._hears_at = self._heard_at = NEVER

    def fault(self, now: float) -> str:
        """`ONE_WAY_OUT`: ours are lost; `ONE_WAY_IN`: its are; empty: not known, both or neither."""
        hears, heard = (now < at + REMEMBERED_SECONDS for at in (self._hears_at, self._heard_at))
        if hears == heard:
            return ""
        return status.ONE_WAY_OUT if hears else status.ONE_WAY_IN
