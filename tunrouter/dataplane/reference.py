"""The batch kernel in Python: what a compiled kernel does byte for byte, and what stands in where there is no compiler.

This file obeys control's messages and reports back; the packets' two ways are outbound.py and inbound.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tunrouter.core import bounds, seam, wire
from tunrouter.dataplane.inbound import Inbound
from tunrouter.dataplane.kernel import Emit, Loop, Tun, Udp
from tunrouter.dataplane.lanes import Session
from tunrouter.dataplane.outbound import Outbound
from tunrouter.dataplane.routes import Routes

COUNTERS: Final = (
    "answer_over_budget",
    "answer_source_rate",
    "control_rate",
    "datagrams_out",
    "drop_expired",
    "drop_held_full",
    "drop_inner_destination",
    "drop_inner_source",
    "drop_kind",
    "drop_malformed",
    "drop_no_route",
    "drop_no_socket",
    "drop_path_mtu",
    "drop_queue_full",
    "drop_replay",
    "drop_send_buffer",
    "drop_tag",
    "drop_too_big",
    "drop_tun_write",
    "drop_unknown_index",
    "drop_unreachable",
    "frames_in",
    "gso_fallback",
    "handshake_over_budget",
    "handshake_queue_full",
    "handshake_source_rate",
    "icmp_limited",
    "receive_errors",
    "relay_delivered",
    "relay_forwarded",
    "relay_hop_limit",
    "relay_malformed",
    "relay_no_route",
    "relay_sent",
    "relay_too_big",
    "seam_refused",
    "tun_read_errors",
)
"""Everything that is counted: what passes is `frames_in` (TUN writes) and `datagrams_out`, all others are faults."""


class ReferenceKernel:
    """One worker's data plane: a TUN queue and at most one UDP socket a family. Holds no loop and no clock."""

    name: Final = "reference"

    def __init__(self, tun: Tun, udps: Sequence[Udp], emit: Emit) -> None:
        self.counters = dict.fromkeys(COUNTERS, 0)
        self._emit = emit
        self._sessions: dict[int, Session] = {}
        self._lanes = 0
        self._routes = Routes()
        self._unrouted = False
        sockets = {udp.version: udp for udp in udps}
        self._outbound = Outbound(tun, sockets, self._routes, self.counters, emit)
        self._inbound = Inbound(tun, self._routes, self._outbound.relay, self.counters, emit)
        self._reported: dict[str, int] = {}
        self._obey: dict[type, Callable[[Any, float], None]] = {
            seam.Install: self._install,
            seam.Deliver: self._deliver,
            seam.Use: self._use,
            seam.Retire: self._retire,
            seam.Move: self._move,
            seam.Route: self._route,
            seam.Unroute: self._unroute,
            seam.PathMtu: self._path_mtu,
            seam.SendControl: self._send_control,
            seam.SendRaw: self._send_raw,
            seam.Known: self._know,
            seam.Hop: self._hop,
            seam.Backup: self._backup,
            seam.Relayed: self._relayed,
        }

    def apply(self, message: seam.ToWorker, now: float) -> None:
        self._outbound.look(now)
        self._obey[type(message)](message, now)

    def drain_tun(self, now: float) -> bool:
        self._outbound.look(now)
        return self._outbound.drain(now)

    def drain_udp(self, udp: Udp, now: float) -> bool:
        self._outbound.look(now)
        return self._inbound.drain(udp, now)

    def loops(self, tun: Tun, udps: Sequence[Udp]) -> Sequence[Loop]:
        return ()

    def report(self, now: float) -> bool:
        """Emits what was used and counted since the last report; false if nothing was."""
        changed = self._report_sessions(now)
        if self.counters != self._reported:
            counters = dict(self.counters)
            if self._emit(seam.Counters(counters)) is not False:
                self._reported = counters
            changed = True
        if self._unrouted:
            self._unrouted = False
            self._outbound.forget_unrouted()
        return changed

    def _report_sessions(self, now: float) -> bool:
        """Where sessions moved and what was used of them; who finds no room now is first in the next report."""
        changed, due = False, []
        for session in self._sessions.values():
            changed |= self._inbound.tell_endpoint(session, now)
            if session.stamp() != session.reported:
                due.append(session)
        due.sort(key=lambda session: session.reported_at)
        for session in due:
            if self._emit(session.used()) is False:
                break
            session.reported, session.reported_at = session.stamp(), now
        return changed or bool(due)

    # --- control's messages ------------------------------------------------------------------------------------------
    def _install(self, message: seam.Install, _now: float) -> None:
        lanes = min(len(message.lanes), bounds.MAX_WORKERS)
        full = len(self._sessions) >= bounds.MAX_SESSIONS or self._lanes + lanes > bounds.MAX_LANES
        session = None if message.session in self._sessions or not lanes or full else Session(message)
        if session is None or not self._inbound.is_free_for(session):
            self.counters["seam_refused"] += 1  # keys installed twice would begin their counters anew
            return
        self._sessions[session.id] = session
        self._lanes += len(session.opens)
        self._inbound.install(session)

    def _deliver(self, message: seam.Deliver, _now: float) -> None:
        if session := self._session(message.session):
            self._inbound.deliver(session)

    def _use(self, message: seam.Use, now: float) -> None:
        session = self._session(message.session)
        if session and session.node == message.node:
            self._outbound.use(message.node, session, now)
        elif session:
            self.counters["seam_refused"] += 1  # nobody may read what is for another

    def _retire(self, message: seam.Retire, _now: float) -> None:
        session = self._session(message.session)
        if session is None:
            self._emit(seam.Retired(message.session, 0, 0, 0, 0))  # refused: control waits for a word all the same
            return
        del self._sessions[session.id]
        self._lanes -= len(session.opens)
        self._inbound.retire(session)
        self._outbound.retire(session)
        self._emit(session.retired())

    def _move(self, message: seam.Move, _now: float) -> None:
        if session := self._session(message.session):
            session.move(message.endpoint)

    def _route(self, message: seam.Route, _now: float) -> None:
        if not self._routes.add(message.prefix, message.length, message.node):
            self.counters["seam_refused"] += 1

    def _unroute(self, message: seam.Unroute, _now: float) -> None:
        self._routes.remove(message.prefix, message.length)
        self._unrouted = True

    def _path_mtu(self, message: seam.PathMtu, _now: float) -> None:
        self._outbound.path(message.node).mtu = message.mtu

    def _send_control(self, message: seam.SendControl, now: float) -> None:
        if session := self._session(message.session):
            self._outbound.send_control(session, wire.CONTROL, message.body, message.size, now)

    def _send_raw(self, message: seam.SendRaw, _now: float) -> None:
        self._outbound.send_raw(message.datagram, message.endpoint)

    def _know(self, message: seam.Known, _now: float) -> None:
        self._inbound.know(message.addresses)

    def _hop(self, message: seam.Hop, _now: float) -> None:
        if not self._outbound.relay.lead(message.target, message.via):
            self.counters["seam_refused"] += 1

    def _backup(self, message: seam.Backup, _now: float) -> None:
        if session := self._session(message.session):
            session.backup = message.on

    def _relayed(self, message: seam.Relayed, now: float) -> None:
        if wire.HEADER_BYTES <= len(message.datagram) <= bounds.MAX_FRAME:
            self._inbound.relayed(message.origin, message.datagram, now)
            self._inbound.flush()

    def _session(self, session: int) -> Session | None:
        """None, counted, for one that this worker does not have; retired and refused ones may still be named."""
        found = self._sessions.get(session)
        if found is None:
            self.counters["seam_refused"] += 1
        return found
