"""Heartbeats that somebody waits for, as `tunrouter ping` does, and their answers.

Law: to the peer such a heartbeat is like any other, so one of any version answers it. Here it accuses nobody: it is in
no share of loss and no smoothed round trip, and a lost one is no silence. At most `MAX_ECHOES` are awaited; whoever
waits for an older one waits in vain.
"""

from __future__ import annotations

from tunrouter.core import bounds
from tunrouter.core.outbox import Echo, Outbox
from tunrouter.core.session import Session


class Echoes:
    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._awaited: dict[tuple[int, int], tuple[int, float]] = {}
        """For each node and id the ticket, and when it left."""

    def send(self, session: Session, ticket: int, now: float) -> None:
        """On the path in use, with the keys in use."""
        ping_id = session.live.next_id()
        self._awaited[session.node, ping_id] = ticket, now
        if len(self._awaited) > bounds.MAX_ECHOES:
            del self._awaited[next(iter(self._awaited))]
        session.say(session.heartbeat(ping_id, now))

    def on_pong(self, node: int, ping_id: int, now: float, *, relayed: bool) -> None:
        """`relayed`: one of the two ways went by relay."""
        awaited = self._awaited.pop((node, ping_id), None)
        if awaited is not None:
            ticket, sent_at = awaited
            self._out.put(Echo(ticket, now - sent_at, relayed))
