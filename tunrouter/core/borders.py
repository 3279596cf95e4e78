"""Two clusters never become one: their nodes refuse each other, and both sides say why.

Law: a node belongs to one cluster for ever. Who meets a node of another one ends the handshake with both ids in words,
after it has shown its own, so that the other end can say the same; nothing else that such a node says is heard.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunrouter.core import seam, wire
from tunrouter.core.dial import Dials, Opened
from tunrouter.core.halfopen import HalfOpenTable
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox
from tunrouter.core.session import Session


class Borders:
    """`foreign` are the nodes of other clusters, with the cluster's id, as their records say."""

    def __init__(
        self,
        local: Local,
        mesh: Mesh,
        foreign: Mapping[int, int],
        dials: Dials,
        half_open: HalfOpenTable,
        out: Outbox,
    ) -> None:
        self._local = local
        self._mesh = mesh
        self._foreign = foreign
        self._dials = dials
        self._half_open = half_open
        self._out = out

    def turn_away(self, opened: Opened, reason: str, now: float) -> None:
        """A handshake came to its end with somebody who is not wanted."""
        self._out.count("foreign_cluster")
        if opened.initiator:
            self._out.put(seam.SendControl(opened.base, opened.confirm))
            self._dials.refuse(opened, reason, now)
        else:
            self._half_open.refuse(opened.endpoint, reason, now)
        self._out.put(seam.Retire(opened.base))
        self._local.indices.release(opened.base, now)

    def closes(self, session: Session) -> bool:
        """Whether it was opened before one of the two belonged to its cluster; then the peer was told why it ends."""
        cluster = self._foreign.get(session.node)
        if cluster is None or session.current is None:
            return False
        session.reason = self._mesh.strange(cluster)
        session.say(wire.Close(session.reason))
        return True
