"""Peers that the operator named: each has a session that is kept, or a dial, for ever.

Law: a target is bound to the node that answered there, not to the address: a node under two addresses, or one that
answers from a third, is one session. The binding ends when the target gets another address, or when another node
answers at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunrouter.core import bounds, seam, wire
from tunrouter.core.dial import Dials
from tunrouter.core.session import Session
from tunrouter.core.states import State


class Target:
    """One of them, under the name that the operator gave."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoint: seam.Endpoint | None = None
        self.node = 0
        """Who answered there, wherever it is by now."""
        self.reason = ""


class Targets:
    def __init__(self, sessions: Mapping[int, Session], dials: Dials) -> None:
        self._sessions = sessions
        self._dials = dials
        self._targets: dict[str, Target] = {}

    def __iter__(self) -> Iterator[Target]:
        return iter(list(self._targets.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._targets

    @property
    def full(self) -> bool:
        return len(self._targets) >= bounds.MAX_TARGETS

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._targets)

    def put(self, name: str, endpoint: seam.Endpoint | None, reason: str, now: float) -> set[int]:
        """Adds a target or gives it another address; the nodes whose sessions that changes."""
        target = self._targets.setdefault(name, Target(name))
        changed = self._release(target, now) if target.endpoint not in (None, endpoint) else set()
        if target.endpoint != endpoint:
            target.node = 0
        target.endpoint, target.reason = endpoint, reason
        return changed

    def remove(self, name: str, now: float) -> set[int]:
        target = self._targets.pop(name, None)
        return self._release(target, now) if target is not None else set()

    def bind(self, endpoint: seam.Endpoint, node: int) -> None:
        """`node` answered at `endpoint`; who was there before is not kept any more, unless another target holds it."""
        before = set()
        for target in self:
            if target.endpoint == endpoint:
                before.add(target.node)
                target.node = node
        for other in before - {target.node for target in self}:
            if session := self._sessions.get(other):
                session.targeted = session.spared = False

    def unbind(self, node: int) -> None:
        """`node` is not at its address any more."""
        for target in self:
            if target.node == node:
                target.node = 0

    def hold(self, now: float) -> set[int]:
        """Keeps sessions and dials as the law wants them; the nodes whose sessions that changes."""
        standing = {s.endpoint: s for s in self._sessions.values() if s.endpoint is not None}
        changed = set()
        for target in self:
            if target.endpoint is None:
                continue
            session = self._sessions.get(target.node) or standing.get(target.endpoint)
            if session is None or session.state is State.OPENING:
                self._dials.start(target.endpoint, now, keep=True)
                continue
            target.node = session.node
            if session.state is State.ESTABLISHED:
                self._dials.stop(target.endpoint, now)
            if not session.targeted:
                session.targeted = True
                session.say(wire.Ping(session.live.next_id(), keep=True))
                changed.add(session.node)
        return changed

    def _release(self, target: Target, now: float) -> set[int]:
        """Nobody asks for this address any more; what stands goes on until nobody uses it."""
        if target.endpoint is None:
            return set()
        self._dials.stop(target.endpoint, now)
        others = {other.node for other in self if other is not target}
        changed = set()
        for session in self._sessions.values():
            mine = session.node == target.node or session.endpoint == target.endpoint
            if mine and session.node not in others:
                session.targeted = session.spared = False
                changed.add(session.node)
        return changed
