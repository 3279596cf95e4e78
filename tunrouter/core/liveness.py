"""Whether a peer is there: heartbeats out, anything authentic in.

Law: silence counts from the last thing heard, but never from before the first heartbeat that could have been answered;
so a session that nobody uses is not judged, and one that is used is judged by what comes back. A peer that says it does
not hear us is as good as silent, whatever else comes from it, until it answers or says it hears us again: both ends of
a one-way link agree. A node that was itself held up (its clock jumped ahead between two looks) starts counting anew
instead of accusing others.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds

REMEMBERED: Final = 16
"""Heartbeats whose answer still gives a round trip."""
FADE: Final = 0.99
"""Weight of each heartbeat against the next: the share of loss is that of the last hundred, roughly."""
LEAST_KNOWN: Final = 10
"""Heartbeats that make a share: one of two lost is no half."""


class Loss:
    """Which share of the heartbeats is not answered: an exponentially weighted mean, without the bias of its start.

    Law: a heartbeat counts once, when its answer comes or `DEAD_SECONDS` after it left. Probes of the path's MTU are no
    heartbeats: they may be too large to arrive. Nor does one count whose answer we were not there to hear, or that was
    answered on another path.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, float] = {}
        self._lost = self._all = 0.0
        self._count = 0

    @property
    def share(self) -> float | None:
        """None while it is not known."""
        return self._lost / self._all if self._count >= LEAST_KNOWN else None

    def sent(self, ping_id: int, now: float) -> None:
        self._settle(now)
        self._waiting[ping_id] = now

    def answered(self, ping_id: int) -> None:
        if self._waiting.pop(ping_id, None) is not None:
            self._count_one(lost=0.0)

    def excuse(self, ping_id: int) -> None:
        """What became of it says nothing of this path."""
        self._waiting.pop(ping_id, None)

    def excuse_all(self) -> None:
        self._waiting.clear()

    def renewed(self, now: float) -> None:
        """There are new keys: the peer may have had none any more for what is still under way."""
        self._settle(now)
        self.excuse_all()

    def _settle(self, now: float) -> None:
        while self._waiting:
            oldest = next(iter(self._waiting))
            if now - self._waiting[oldest] < bounds.DEAD_SECONDS:
                break
            del self._waiting[oldest]
            self._count_one(lost=1.0)

    def _count_one(self, lost: float) -> None:
        self._lost = FADE * self._lost + lost
        self._all = FADE * self._all + 1.0
        self._count += 1


class Liveness:
    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.spoke_at = now
        """When the peer's control was last heard: data may flow on while it is held up."""
        self.pinged_at = now
        self.pause = bounds.HEARTBEAT_SECONDS
        self.rtt: float | None = None
        """Smoothed round trip in seconds (RFC 6298's 1/8)."""
        self.loss = Loss()
        """Of the path in use."""
        self._first_unanswered: float | None = None
        self._unheard = False
        self._forgiven_at = float("-inf")
        self.answered_at = float("-inf")
        self._payload_sent_at = 0.0
        self._pings: dict[int, float] = {}
        self._id = 0

    def opened(self, now: float, rtt: float) -> None:
        self.rtt = rtt
        self.loss.renewed(now)
        self._unheard = False
        self.heard(now)

    def unheard(self, now: float) -> None:
        """The peer says it has not heard us for a while: one direction works, the other has as long as a suspect has.

        Unless we were held up: then it is right, and there is nothing wrong with the path. And what was under way
        when it answered us is out of date.
        """
        excused = max(self._forgiven_at + bounds.DEAD_SECONDS, self.answered_at + bounds.HEARTBEAT_SECONDS)
        if not self._unheard and now >= excused:
            self._unheard = True
            self.heard_at = now - bounds.SUSPECT_SECONDS
            self._first_unanswered = self.heard_at + bounds.HEARTBEAT_SECONDS

    @property
    def deaf(self) -> bool:
        """The peer is, as far as it has said: what comes from it is no sign of life."""
        return self._unheard

    def heard_again(self) -> None:
        """It answered, or says it hears us."""
        self._unheard = False

    def heard(self, now: float) -> None:
        if self._unheard:
            return
        self.heard_at = max(self.heard_at, now)
        if self._first_unanswered is not None and now >= self._first_unanswered:  # reports of what was heard come late
            self._first_unanswered = None

    def sent(self, at: float) -> None:
        """Payload left at `at`."""
        self._payload_sent_at = max(self._payload_sent_at, at)

    @property
    def unanswered(self) -> bool:
        """Payload left after the last thing was heard, or a heartbeat waits for its answer."""
        return self._first_unanswered is not None or self._payload_sent_at > self.heard_at

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def probed(self, ping_id: int, now: float) -> None:
        """Something left whose answer gives a round trip, but which may be too large to arrive."""
        self._pings[ping_id] = now
        if len(self._pings) > REMEMBERED:
            del self._pings[next(iter(self._pings))]

    def pinged(self, ping_id: int, now: float, pause: float) -> None:
        """A heartbeat left; the next is due after `pause` seconds."""
        self.probed(ping_id, now)
        self.loss.sent(ping_id, now)
        if self._first_unanswered is None:
            self._first_unanswered = now
        self.pinged_at, self.pause = now, pause

    def answered(self, ping_id: int, now: float) -> None:
        self.loss.answered(ping_id)
        sent_at = self._pings.pop(ping_id, None)
        if sent_at is not None:
            self.answered_at = now
            sample = now - sent_at
            self.rtt = sample if self.rtt is None else self.rtt + (sample - self.rtt) / 8

    def silent_since(self) -> float:
        """Since when a sign of life has been due; infinity while none is."""
        if self._first_unanswered is None:
            return float("inf")
        return max(self.heard_at, self._first_unanswered - bounds.HEARTBEAT_SECONDS)

    def forgive(self, now: float) -> None:
        """We did not look for a while: what came meanwhile is still to be read."""
        self._forgiven_at = now
        self.loss.excuse_all()
        self.heard_at = max(self.heard_at, now - bounds.HEARTBEAT_SECONDS / 2)
