"""Relays: datagrams that travel inside the boxes of other sessions, hop by hop, because no direct way leads there.

    | hops left u8 | target u64 | origin u64 | datagram of any type |      the body of a datagram of kind RELAY

Target 0 is the receiver of this hop, origin 0 its sender: nobody needs to know his own number, and nobody can speak in
the name of another than those behind him. What travels is sealed end to end; a relay sees neither content nor keys.

Law: a hop is a session in use whose other side is at an address and not in doubt, so bodies are never nested. Each hop
takes one away from the hops left, which are never more than an origin begins with; none goes back to whom it came from,
and what has no way is counted and dropped. What is too large for a hop's path says nothing of the sizes that its own
session needs, so control does not hear of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunrouter.core import bounds, seam, wire
from tunrouter.core.admission import Budget
from tunrouter.dataplane.kernel import Buffer, Emit, Udp
from tunrouter.dataplane.lanes import Path, SealLane, Session
from tunrouter.dataplane.train import Train

AHEAD: Final = wire.BODY + wire.RELAY_HEAD.size
"""Where the inner datagram lies in the outer one."""
_LARGEST: Final = bounds.MAX_TRAIN_BYTES - AHEAD
_LANE_BITS: Final = 2 * bounds.MAX_WORKERS - 1
_INDEX: Final = slice(4, 8)


class Relay:
    """What leaves by relay, ours and others'. `now` is set by whoever is going to call."""

    def __init__(
        self, paths: Mapping[int, Path], udps: dict[int, Udp], counters: dict[str, int], emit: Emit, single: set[int]
    ) -> None:
        """`single` as a train has it."""
        self.now = 0.0
        self._paths = paths
        self._counters = counters
        self._emit = emit
        self._frame = bytearray(AHEAD + _LARGEST)
        self._frame[wire.BODY - 1] = wire.RELAY
        self._train = Train(self._frame, udps, counters, single=single)
        self._waiting: list[tuple[SealLane, bytes]] = []
        self._hops: dict[int, int] = {}
        self._wanted = Budget(bounds.HOPS_WANTED_PER_SECOND, bounds.HOPS_WANTED_PER_SECOND)

    # --- control's messages ------------------------------------------------------------------------------------------
    def lead(self, target: int, via: int) -> bool:
        """What is for `target` goes to `via`, or with 0 nowhere; false if there is no room."""
        if not via:
            self._hops.pop(target, None)
        elif target in self._hops or len(self._hops) < bounds.MAX_HOPS:
            self._hops[target] = via
        else:
            return False
        return True

    # --- datagrams ---------------------------------------------------------------------------------------------------
    def send(self, target: int, datagram: Buffer) -> None:
        """One of our own. The session in use with `target` is of no use: it is what needs the relay."""
        hop = self._session(self._hops.get(target, 0))
        if self._put(hop, bounds.RELAY_HOPS, target, seam.SELF, datagram, self._wanted):
            self._counters["relay_sent"] += 1

    def forward(self, sender: Session, hops: int, target: int, origin: int, datagram: Buffer) -> None:
        """One that came from `sender`, who says that there are so many hops left."""
        hops = min(hops, bounds.RELAY_HOPS)
        if hops <= 1:
            self._counters["relay_hop_limit"] += 1
            return
        session = self._session(target) or self._session(self._hops.get(target, 0))
        if session is not None and session.node == sender.node:
            self._counters["relay_no_route"] += 1
        elif self._put(session, hops - 1, target, origin, datagram, sender.hop_wanted):
            self._counters["relay_forwarded"] += 1

    def flush(self) -> None:
        """Seals and sends what was put; after all that leaves directly."""
        if not self._waiting:
            return
        for lane, message in self._waiting:
            self._frame[wire.BODY : wire.BODY + len(message)] = message
            self._train.add(lane, 0, wire.BODY + len(message))
        self._waiting.clear()
        self._train.flush()

    def _session(self, node: int) -> Session | None:
        """The one that a hop to `node` goes in."""
        path = self._paths.get(node)
        session = path.session if path is not None else None
        if session is None or session.relayed or session.backup or not session.alive(self.now):
            return None
        return session

    def _put(self, hop: Session | None, hops: int, target: int, origin: int, datagram: Buffer, wanted: Budget) -> bool:
        if hop is None:
            self._counters["relay_no_route"] += 1
            if not wanted.empty(self.now):
                wanted.take(self.now)
                self._emit(seam.HopWanted(target))
            return False
        if len(datagram) > _LARGEST:
            self._counters["relay_too_big"] += 1
            return False
        head = wire.RELAY_HEAD.pack(hops, seam.SELF if hop.node == target else target, origin)
        self._waiting.append((_lane(hop, datagram), head + datagram))
        return True


def _lane(hop: Session, datagram: Buffer) -> SealLane:
    """The lane of the inner datagram's number: with equal workers everywhere it arrives at the one that opens it."""
    if datagram[0] != wire.DATA:
        return hop.seals[0]
    number = int.from_bytes(datagram[_INDEX], "big") & _LANE_BITS
    return next((lane for lane in hop.seals if lane.number == number), hop.seals[number % len(hop.seals)])
