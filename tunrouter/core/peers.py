"""All sessions of a node: one a peer, found by node id and by receiver index, made when wanted and forgotten when not.

Law: there are at most `MAX_PEERS`; where there is no room, the closed one that nobody keeps and rests longest goes.
Their lanes are bounded, too, and the peer chooses how many: who has most gives way to who has fewer.
An address is one node's: who is heard there by a handshake takes it from those that are not there any more.
"""

from __future__ import annotations

from collections.abc import Callable

from tunrouter.core import bounds, seam, wire
from tunrouter.core.dial import Dials, Opened
from tunrouter.core.hops import Hops
from tunrouter.core.keyslot import Registry
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox
from tunrouter.core.session import Session
from tunrouter.core.states import Event, State
from tunrouter.core.targets import Targets

Fire = Callable[[Session, Event, float], None]
"""Lets something happen to a session."""


class Peers:
    """`fire` is told what happens to sessions here, `gone` which node's is forgotten."""

    def __init__(
        self, local: Local, mesh: Mesh, hops: Hops, out: Outbox, fire: Fire, gone: Callable[[int], None]
    ) -> None:
        self.sessions: dict[int, Session] = {}
        self.by_base: Registry[Session] = Registry()
        """For every receiver index base the session that knows its keys."""
        self.dials = Dials(local, out, self._carry, self._replaced)
        self.targets = Targets(self.sessions, self.dials)
        self._local = local
        self._mesh = mesh
        self._hops = hops
        self._out = out
        self._fire = fire
        self._gone = gone

    # --- what handshakes ask -----------------------------------------------------------------------------------------
    def _carry(self, endpoint: seam.Endpoint, datagram: bytes) -> bool:
        for session in self.sessions.values():
            if endpoint not in (session.endpoint, session.home) or session.current is None or session.backed_up:
                continue
            if endpoint == session.endpoint or not session.relayed:
                session.say(wire.Carried(datagram))
                return session.state is State.REKEYING and not session.current.maimed
        return False

    def _replaced(self, node: int) -> int:
        session = self.sessions.get(node)
        return session.current.remote if session is not None and session.current is not None else 0

    def stale(self, sender: int, incarnation: int, sequence: int) -> bool:
        """Whether a first message is not newer than what was confirmed."""
        session = self.sessions.get(sender)
        if session is None:
            return False
        return (incarnation, sequence) <= (session.incarnation, session.sequence)

    def unconfirmed(self, sender: int, now: float) -> bool:
        """Whoever began handshakes directly did not get our answers; whether a session that is shown notes it."""
        session = self.sessions.get(sender)
        if session is None or session.state is State.CLOSED:
            return False
        session.on_unconfirmed(now)
        return True

    # --- sessions come and go ----------------------------------------------------------------------------------------
    def wanted(self, node: int, now: float) -> Session | None:
        """The session with `node`, opened if there is none; None for a node that nobody knows."""
        session = self.sessions.get(node)
        if session is None and (self._mesh.endpoints(node) or self._hops.lead(node)):
            session = self.of(node, now)
        if session is not None and session.state is State.CLOSED:
            self.locate(session)
            self._fire(session, Event.WANTED, now)
        return session

    def of(self, node: int, now: float) -> Session | None:
        """There is one; None if there is no room."""
        if node in self.sessions:
            return self.sessions[node]
        if len(self.sessions) >= bounds.MAX_PEERS:
            closed = [s for s in self.sessions.values() if s.state is State.CLOSED and not s.keep]
            if not closed:
                self._out.count("peers_full")
                return None
            self.forget(min(closed, key=lambda session: session.closed_at))
        session = Session(node, self._local, self.dials, self._hops, self._out, self.by_base, now)
        session.name = self._mesh.name_of(node)
        self.sessions[node] = session
        self.locate(session)
        return session

    def make_room(self, session: Session, lanes: int, now: float) -> bool:
        """Whether there are so many more for `session`; the half of a new peer leaves the others theirs to renew."""
        most = bounds.MAX_SESSION_LANES // (1 if session.current is not None else 2)
        if (len(self.by_base) + 1) * bounds.MAX_WORKERS <= most:
            return True
        used = {other: other.slots.lanes for other in self.sessions.values()}
        total = sum(used.values()) + lanes
        mine = used.pop(session) + lanes
        for other in sorted(used, key=used.__getitem__, reverse=True):
            if total <= most or used[other] <= mine:
                break
            self._fire(other, Event.IDLE, now)
            total -= used[other] - other.slots.lanes
        if total > most:
            self._out.count("lanes_full")
        return total <= most

    def forget(self, session: Session) -> None:
        """As if it had never been; what it announced is the mesh's to forget."""
        del self.sessions[session.node]
        self._gone(session.node)

    def locate(self, session: Session) -> None:
        """Where it says it is, but for addresses that another node has now."""
        taken = {other.endpoint for other in self.sessions.values() if other.current and other is not session}
        session.published = tuple(e for e in self._mesh.endpoints(session.node) if e not in taken)

    def evict(self, opened: Opened, session: Session, now: float) -> None:
        """Another node was at this endpoint before and is not there any more: if it lives, it will say where."""
        for other in self.sessions.values():
            if opened.endpoint not in (other.endpoint, other.home) or other is session:
                continue
            if other.state in (State.ESTABLISHED, State.REKEYING):
                continue
            self.dials.stop_for(other.node, other.candidates, now)
            other.targeted = other.chosen = False
            other.endpoint, other.home, other.published = None, None, ()
            self.targets.unbind(other.node)
            self._fire(other, Event.DEAD, now)
            self._fire(other, Event.GAVE_UP, now)
