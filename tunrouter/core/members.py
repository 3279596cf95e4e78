"""Nodes that were deleted from the cluster for good: not in its API, and not to be reached, for a quarter of an hour.

Their records go, and their Leases where nobody collects them: one whose owner was taken off by hand would stay.

Law: neither alone means anything. Who is reachable keeps its place although its Node object is missing (somebody may
make it anew under running pods), and who is not reachable may come back while its object is there. What nobody can say,
because the API is away, is not held against anybody.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds
from tunrouter.core.leases import Leases
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox

LOOK_SECONDS: Final = 10.0
NEVER: Final = float("inf")


class Members:
    def __init__(self, local: Local, mesh: Mesh, leases: Leases, out: Outbox) -> None:
        self.deadline = NEVER
        self._local = local
        self._mesh = mesh
        self._leases = leases
        self._out = out
        self._missing: dict[int, float] = {}
        """Nodes that are gone by both signs, since when."""
        self._abandoned: dict[str, float] = {}
        """Leases of nobody that is there, by their UID, since when."""

    def wake(self, now: float) -> None:
        """Something is known of the cluster now."""
        if self.deadline == NEVER:
            self.deadline = now + LOOK_SECONDS

    def tick(self, now: float) -> None:
        if now < self.deadline:
            return
        self.deadline = now + self._local.jitter(LOOK_SECONDS, bounds.RETRY_JITTER)
        if not self._leases.within_reach or self._leases.members is None:
            return
        self._collect(self._leases.members, now)
        gone = [node for node in self._mesh.away if self._is_missing(node, self._leases.members)]
        self._missing = {node: self._missing.get(node, now) for node in gone}
        for node, since in list(self._missing.items()):
            if now - since >= bounds.LATELY_HELD_SECONDS:
                del self._missing[node]
                self._bury(node, since)

    def _is_missing(self, node: int, members: frozenset[str]) -> bool:
        body = self._mesh.node(node)
        return body is not None and body.uid != "" and body.uid not in members

    def _collect(self, members: frozenset[str], now: float) -> None:
        """Not before the cluster's own collector had all the time that it may need; and not all nodes at once."""
        found = self._leases.abandoned(members)
        self._abandoned = {uid: self._abandoned.get(uid, now) for uid in found}
        for uid, place in found.items():
            if now - self._abandoned[uid] >= self._local.jitter(bounds.ABANDONED_SECONDS, 0.3):
                del self._abandoned[uid]
                self._leases.collect(place, uid)

    def _bury(self, node: int, since: float) -> None:
        for place, owner in self._mesh.owners().items():
            if owner.node == node:
                self._leases.left(place, since)
        self._out.count("nodes_removed")
        self._out.log("info", f"deleted {node}", f"{self._mesh.name_of(node)} was deleted from the cluster", peer=node)
        self._mesh.bury(node)
