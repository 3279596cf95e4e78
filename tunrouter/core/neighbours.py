"""Which sessions a node keeps for control: a random graph of degree about eight, whatever the size of the cluster.

Law: who has fewer than eight neighbours keeps four of its own choice, by chance among all nodes that it knows, after
those that the operator named; the others choose it. Who has more than sixteen asks those with the most neighbours to
keep others, and who is asked does so unless it has few itself. A random graph of that degree stays in one piece when a
third of its nodes fail, and no node has more than sixteen heartbeats to send.

Who is known and cannot be reached is tried again by somebody every other second, after ten minutes now and then,
however many there are on either side: so the halves of a partition find each other when it ends, and nobody floods the
dead.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from tunrouter.core import bounds, seam, wire
from tunrouter.core.dial import Dials
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.session import Session
from tunrouter.core.states import STANDING, State


class Neighbours:
    """`session_with` gives the session with a node, opened if there is none; None if there is no room. `foreign` are
    nodes of other clusters.
    """

    def __init__(
        self,
        local: Local,
        sessions: Mapping[int, Session],
        mesh: Mesh,
        session_with: Callable[[int, float], Session | None],
        dials: Dials,
        foreign: Container[int],
    ) -> None:
        self._local = local
        self._sessions = sessions
        self._mesh = mesh
        self._session_with = session_with
        self._dials = dials
        self._foreign = foreign
        self._count_at = 0.0
        self._away: dict[int, float] = {}
        """Since when."""
        self.missed: set[int] = set()
        """Those of them that were away at the last two counts, so they are not just on their way here."""
        self.sought: set[int] = set()
        """Tried because they could not be reached: neighbours once they answer, and nothing until then."""
        self._avoided: dict[int, float] = {}
        self.deadline = 0.0

    def standing(self) -> list[Session]:
        """Only those whose control is heard directly: gossip does not go by relay. Those that we want come first."""
        found = [s for s in self._sessions.values() if s.state in STANDING and (s.keep or s.peer_keeps)]
        return sorted((session for session in found if not session.relayed), key=lambda session: not session.keep)

    def look(self, now: float) -> set[int]:
        """Chooses and lets go; the nodes whose sessions that changes."""
        self.deadline = now + self._local.jitter(bounds.CHOOSE_SECONDS, bounds.RETRY_JITTER)
        self._avoided = {node: until for node, until in self._avoided.items() if until > now}
        self._seek_some(now)
        changed = self._give_up(now)
        standing = self.standing()
        if len(standing) > bounds.MAX_NEIGHBOURS:
            self._shed(standing, now)
            return changed
        opening = sum(s.chosen and s.state is State.OPENING for s in self._sessions.values())
        here, mine = len(standing) + opening, opening + sum(session.keep for session in standing)
        missing = max(bounds.FEW_NEIGHBOURS - here, min(bounds.NEIGHBOURS - here, bounds.CHOSEN_NEIGHBOURS - mine))
        return changed | self._choose(missing, now) if missing > 0 else changed

    def spare(self, session: Session, now: float) -> None:
        """The peer has more neighbours than it wants."""
        others = sum(other is not session for other in self.standing())
        if others >= bounds.FEW_NEIGHBOURS:
            session.chosen, session.spared = False, True
            self._avoided[session.node] = now + bounds.AVOID_SECONDS
            session.say(wire.Ping(session.live.next_id(), session.keep))

    def _give_up(self, now: float) -> set[int]:
        """Those that were chosen and did not answer, at least not directly, are not kept."""
        gone = {s.node for s in self._sessions.values() if s.chosen and (s.relayed or s.state is State.CLOSED)}
        for node in gone:
            self._sessions[node].chosen = False
            self._avoided[node] = now + bounds.AVOID_SECONDS
        return gone

    def _count(self, now: float) -> None:
        """Who is missed; now and then, since that is a search through the whole graph."""
        if now < self._count_at:
            return
        self._count_at = now + self._local.jitter(bounds.SEEK_AFTER_SECONDS, bounds.RETRY_JITTER)
        away = [node for node in self._mesh.away if node not in self._foreign] if self._local.discovery else []
        self.missed = {node for node in away if node in self._away}
        self._away = {node: self._away.get(node, now) for node in away}
        self.sought &= self.missed

    def _seek_some(self, now: float) -> None:
        """Of those that are missed, as many as keep all tries of one of them together at `SEEK_PER_SECOND`."""
        self._count(now)
        if not self.missed or self._mesh.settling:
            return
        seekers = len(self._mesh.nodes) + 1 - len(self._away)
        share = len(self.missed) * bounds.SEEK_PER_SECOND * bounds.CHOOSE_SECONDS / seekers
        candidates = sorted(self.missed)
        for _ in range(min(bounds.MAX_SOUGHT, int(share) + self._happens(share % 1), len(candidates))):
            node = candidates.pop(self._local.random_id() % len(candidates))
            if now - self._away[node] < bounds.SEEK_EAGERLY_SECONDS or self._happens(bounds.SEEK_LATER_SHARE):
                self.sought.add(node)
                self._seek(node, now)

    def _happens(self, share: float) -> bool:
        return self._local.jitter(0.5, 1.0) < share

    def _seek(self, node: int, now: float) -> None:
        """A few messages to wherever it may be, beside those of a session that is opening."""
        session = self._sessions.get(node)
        if session is not None and session.state in STANDING:
            return
        known = {*self._mesh.endpoints(node), *(session.candidates if session is not None else ())}
        where = {endpoint for endpoint in known if not seam.relay_target(endpoint)}
        for endpoint in sorted(where):
            self._dials.start(endpoint, now, target=node, keep=True, seconds=bounds.SEEK_SECONDS, quiet=True)
        self._dials.hasten(where, now)

    def _shed(self, standing: list[Session], now: float) -> None:
        """Asks as many as are too many, those with the most neighbours first, again until they have gone."""
        standing.sort(key=lambda session: (-self._mesh.topology.degree(session.node), session.node))
        for session in standing[: len(standing) - bounds.MAX_NEIGHBOURS]:
            session.chosen = False
            session.say(wire.Spare())

    def _choose(self, count: int, now: float) -> set[int]:
        named = [s.node for s in self._sessions.values() if s.spared and not s.keep and s.node not in self._avoided]
        for node in named[:count]:
            self._sessions[node].spared = False
        candidates = list(self._mesh.nodes) if self._local.discovery else []
        changed = set(named[:count])
        for _ in range(bounds.CHOOSE_TRIES):
            if len(changed) == count or not candidates:
                break
            at = self._local.random_id() % len(candidates)
            candidates[at], candidates[-1] = candidates[-1], candidates[at]
            node = candidates.pop()
            session = self._session_with(node, now) if self._eligible(node) else None
            if session is not None:
                session.chosen = True
                changed.add(node)
        return changed

    def _eligible(self, node: int) -> bool:
        if node in self._avoided or node in self._foreign or not self._mesh.endpoints(node):
            return False
        session = self._sessions.get(node)
        return session is None or not (session.keep or session.peer_keeps or session.state is State.OPENING)
