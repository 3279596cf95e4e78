"""How large a datagram the path to one peer carries: packetization-layer path MTU discovery (RFC 8899).

Law: the size in use is one that was seen to arrive, except at the start, when the size that pods need is assumed and
tested at once. ICMP is never believed: only probes (padded heartbeats with DF set) that come back, or do not, count.

    need ── 6 probes lost ──> base ── candidates upward, each 3 tries ──> the largest that came back
      ^                                                                              │ every 600 s
      └──────────────────────────── came back ───────────────────────────────────────┘

All sizes are bytes of the whole outer IP packet. While a path carries what pods need nothing larger is looked for: a
pod's MTU is fixed when it is born.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds

CANDIDATES: Final = (1280, 1340, 1400, 1420, 1440, 1460, 1480, 1500, 2000, 4000, 6000, 8000, 8900)
CHECK_SECONDS: Final = 60.0
"""Pause between tests of the size in use on an idle path."""
CHECK_BUSY_SECONDS: Final = 1.0
"""The same while payload is sent, so that a black hole is found before TCP stalls for long."""
SILENT_SECONDS: Final = 1.25
"""A path that carries heartbeats is never silent for so long; on one that is, a lost probe says nothing of sizes."""
NEVER: Final = float("inf")


class PathMtu:
    """The search for one path: `probe` says what to send now, `answered` and `refused` say what became of it."""

    def __init__(self, need: int, now: float, most: int | None = None) -> None:
        """`most` is assumed to arrive where that is less than what pods need; more is tried later."""
        self.need = need
        self.size = need if most is None else min(need, most)
        """The largest outer packet that may be sent now."""
        self.deadline = now
        self._trying = self.size
        """Equal to `size` while that is tested, larger while a better one is searched for."""
        self._lost = 0
        self.holed = False
        """Not even datagrams of the base size arrive."""
        self.missed = False
        """The last probe did not come back: whether a small heartbeat does, now matters."""
        self._outstanding: int | None = None
        self._sent_at = -NEVER
        self._raise_at = NEVER if self.size == need else now + CHECK_BUSY_SECONDS

    def probe(self, now: float, probe_id: int, *, rtt: float, answered_at: float, busy: bool) -> int | None:
        """The size of the probe to send now under `probe_id`, or None.

        `rtt` is in seconds, 0.0 when unknown. `answered_at` is when the peer last answered anything: who is held up, or
        is not reached at all, answers no probe of any size.
        """
        if busy and self._outstanding is None and self._trying == self.size:
            self.deadline = min(self.deadline, self._sent_at + CHECK_BUSY_SECONDS)
        if now < self.deadline:
            return None
        if self._outstanding is not None:
            self._missed(now, answered_at)
        if now >= self._raise_at:
            self._search(now)
        if now < self.deadline:
            return None
        self._outstanding, self._sent_at = probe_id, now
        self.deadline = now + max(bounds.PROBE_SECONDS, 4 * rtt)
        return self._trying

    def answered(self, probe_id: int, now: float) -> None:
        """A probe came back; a late answer to an older one is of no use."""
        if self._outstanding != probe_id:
            return
        self._outstanding, self._lost, self.missed, self.holed = None, 0, False, False
        searching = self._trying > self.size
        self.size = self._trying
        if searching:
            self._search(now)
        else:
            self._settle(now)

    def refused(self, size: int, now: float) -> None:
        """The kernel refused an outer packet of `size` bytes (EMSGSIZE); one larger than is tried says nothing."""
        if size <= self.size:
            self._fall(now)
        elif size <= self._trying:
            self._settle(now)

    def _missed(self, now: float, answered_at: float) -> None:
        self._outstanding, self.missed = None, True
        # A heartbeat follows the first that is lost: from then on there is something to be answered.
        answers = not self._lost or now - answered_at < SILENT_SECONDS
        self._lost = self._lost + 1 if answers else 0
        searching = self._trying > self.size
        if self._lost < bounds.PATH_MTU_PROBES * (1 if searching else 2):
            return
        if searching:
            self._settle(now)
        else:
            self.holed = self.size <= bounds.PATH_MTU_BASE
            self._fall(now)

    def _fall(self, now: float) -> None:
        """What is in use does not arrive: use the base at once and search upward from there."""
        self.size = min(self.size, bounds.PATH_MTU_BASE)
        self._search(now)

    def _search(self, now: float) -> None:
        if self.size >= self.need:
            self._settle(now)
            return
        self._trying = next((c for c in CANDIDATES if self.size < c < self.need), self.need)
        self._outstanding, self._lost = None, 0
        self._raise_at, self.deadline = NEVER, now

    def _settle(self, now: float) -> None:
        self._trying = self.size
        self._outstanding, self._lost = None, 0
        if self.size >= self.need:
            self._raise_at = NEVER
        elif self._raise_at == NEVER:
            self._raise_at = now + bounds.PATH_MTU_RAISE_SECONDS
        self.deadline = now + CHECK_SECONDS
