"""By which neighbour relayed datagrams leave: the topology's next hops, told to the data plane for whom it needs one.

Law: only what was asked for is told, and whenever the topology changes everything told is looked at again. A hop begins
with a neighbour whose session stands directly and is not in doubt.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds, seam
from tunrouter.core.outbox import Outbox
from tunrouter.core.topology import Topology

NEVER: Final = float("inf")


class Hops:
    def __init__(self, topology: Topology, out: Outbox) -> None:
        self._topology = topology
        self._out = out
        self._version = topology.version
        self._next_at = 0.0
        self._told: dict[int, int] = {}
        """For each target that somebody asked for the neighbour; who was asked for last is last."""

    def lead(self, target: int) -> bool:
        """Whether a way leads there over others; the data plane knows it from now on."""
        way = self._topology.around(target)
        self._tell(target, way.neighbour if way is not None else 0)
        if way is not None:
            self._told[target] = self._told.pop(target)
        if len(self._told) > bounds.MAX_HOPS:
            self._tell(next(iter(self._told)), 0)
        return way is not None

    def via(self, target: int) -> int:
        """The neighbour that was told for `target`; 0 if there is none."""
        return self._told.get(target, 0)

    @property
    def deadline(self) -> float:
        return self._next_at if self._told and self._version != self._topology.version else NEVER

    def refresh(self, now: float, *, urgent: bool) -> None:
        """Looks at all of them again: at once if our own links have changed, now and then if others' have."""
        if self._version == self._topology.version or (now < self._next_at and not urgent):
            return
        pause = bounds.HOPS_PAUSE_SECONDS * max(1.0, len(self._topology) / 1000)
        self._version, self._next_at = self._topology.version, now + pause
        for target in list(self._told):
            way = self._topology.way(target)
            # Without a way, or with a neighbour again: whoever needs one asks again.
            self._tell(target, way.neighbour if way is not None and way.neighbour != target else 0)

    def _tell(self, target: int, via: int) -> None:
        if self._told.get(target, 0) != via:
            self._out.put(seam.Hop(target, via))
        if via:
            self._told[target] = via
        else:
            self._told.pop(target, None)
