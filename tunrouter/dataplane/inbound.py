"""The way in, in the order of a datagram: find its lane, open it, check replay, check who may say this, join, write.

    UDP receive -> lane of the header -> box -> replay window -> kind -> owner of source and destination -> run -> TUN

Law: nothing changes before the box is open. The replay window moves, the endpoint follows and control hears of it only
for authenticated datagrams. An opened packet passes only if its source belongs to the sending node and its destination
to this one; without that a policy that trusts addresses would be decoration.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from tunrouter.core import bounds, packet, seam, wire
from tunrouter.core.admission import Budget
from tunrouter.dataplane import box
from tunrouter.dataplane.coalesce import NONE, Coalescer
from tunrouter.dataplane.kernel import Buffer, Datagram, Emit, Memory, Tun, Udp
from tunrouter.dataplane.lanes import QUAD, OpenLane, Session
from tunrouter.dataplane.relay import AHEAD, Relay
from tunrouter.dataplane.routes import Routes
from tunrouter.dataplane.strangers import Strangers

_read_header = QUAD.unpack_from
_put_counter = struct.Struct(">Q").pack_into
_KIND: Final = wire.BODY - 1
_LENGTH_BYTES: Final = 2
_NO_HALF: Final = -1
_DRAIN_BATCHES: Final = 2


class Source:
    """A receive buffer as the loops want it, and the UDP socket that it is of, if any."""

    def __init__(self, udp: Udp | None, buffer: Memory) -> None:
        self.udp = udp
        self.buffer = buffer
        self.view = memoryview(buffer)
        self.at = box.pointer(buffer)


class Inbound:
    """From the underlay to the TUN."""

    def __init__(self, tun: Tun, routes: Routes, relay: Relay, counters: dict[str, int], emit: Emit) -> None:
        self._tun = tun
        self._routes = routes
        self._relay = relay
        self._counters = counters
        self._emit = emit
        self._lanes: dict[int, OpenLane] = {}
        self._runs = Coalescer(self._write, tun.features)
        self._strangers = Strangers(counters, emit)
        self._sources: dict[int, Source] = {}
        self._wakeup = 0
        self._held = 0

    # --- control's messages ------------------------------------------------------------------------------------------
    def is_free_for(self, session: Session) -> bool:
        """Whether no lane stands where one of `session` would, nor two of its own in one place."""
        places = {lane.first for lane in session.opens}
        return len(places) == len(session.opens) and self._lanes.keys().isdisjoint(places)

    def install(self, session: Session) -> None:
        for lane in session.opens:
            self._lanes[lane.first] = lane

    def retire(self, session: Session) -> None:
        for lane in session.opens:
            self._lanes.pop(lane.first, None)
        self._held -= len(session.held)
        session.held.clear()

    def deliver(self, session: Session) -> None:
        """The sender's identity is checked: what was held goes out first."""
        session.delivers = True
        for datagram in session.held:
            self._packet(session.node, memoryview(datagram), 0, len(datagram))
            self._runs.flush()
        self._held -= len(session.held)
        session.held.clear()

    def flush(self) -> None:
        self._runs.flush()

    def know(self, addresses: tuple[str, ...]) -> None:
        self._strangers.know(addresses)

    # --- datagrams ---------------------------------------------------------------------------------------------------
    def drain(self, udp: Udp, now: float) -> bool:
        """Receives at most twice; true if there may be more."""
        source = self._sources.get(udp.fileno())
        if source is None or source.udp is not udp:
            source = self._sources[udp.fileno()] = Source(udp, udp.buffer)
        self._wakeup += 1
        for _ in range(_DRAIN_BATCHES):
            try:
                datagrams = udp.receive()
            except OSError:
                self._counters["receive_errors"] += 1
                return True
            if not datagrams:
                return False
            try:
                self._batch(source, datagrams, now)
            finally:
                self._runs.flush()
                self._relay.flush()
        return True

    def _batch(self, source: Source, datagrams: Iterable[Datagram], now: float) -> None:
        """The hot loop: what continues the run at hand is done right here."""
        buffer, view, base, runs = source.buffer, source.view, source.at, self._runs
        half, from_bytes = _NO_HALF, int.from_bytes
        for at, size, sender in datagrams:
            first, counter = _read_header(buffer, at)
            if first != half or size < wire.OVERHEAD:
                found = self._lane(first, size, now)
                if found is None:  # a stranger between two datagrams of a run does not end it
                    self._other(view, at, size, sender, now)
                    continue
                runs.current = NONE  # a run belongs to one sending node
                half, lane = first, found
                session, unbox, key, nonce, nonce_at, is_new = lane.hot
            _put_counter(nonce, 16, counter)
            place = base + at
            if unbox(place, place, size, nonce_at, key):
                self._counters["drop_tag"] += 1
                continue
            if not is_new(counter):
                self._counters["drop_replay"] += 1
                continue
            if counter > lane.newest:
                lane.newest = counter
                if sender is not session.endpoint:
                    self._follow(session, sender, now)
            if not session.relayed:
                session.last_received = now
            run = runs.current
            if size == run.datagram and buffer[at + _KIND] == wire.PACKET_PARTIAL:
                inner = at + wire.BODY
                payload = inner + run.header
                if from_bytes(buffer[inner:payload], "big") == run.next:
                    run.take(view[payload : at + size])
                    session.received_packets += 1
                    session.received_bytes += size - wire.OVERHEAD
                    continue
            self._opened(lane, view, at, size, sender, now)

    def _follow(self, session: Session, sender: seam.Endpoint, now: float) -> None:
        """The newest authenticated datagram says where the other side is now; who alternates is told of by reports.

        Only from address to address: whether a session goes by relay is control's decision.
        """
        if session.relayed:
            return
        moved = sender != session.endpoint
        session.endpoint = sender
        if moved and now >= session.told_at + bounds.MOVED_SECONDS:
            self.tell_endpoint(session, now)

    def tell_endpoint(self, session: Session, now: float) -> bool:
        """Tells control where the session is now, if it believes something else."""
        if session.endpoint == session.told:
            return False
        session.told, session.told_at = session.endpoint, now
        self._emit(seam.Moved(session.id, session.endpoint))
        return True

    def _opened(self, lane: OpenLane, view: memoryview, at: int, size: int, sender: seam.Endpoint, now: float) -> None:
        session, kind = lane.session, view[at + _KIND]
        if kind in (wire.PACKET, wire.PACKET_PARTIAL):
            session.received_packets += 1
            session.received_bytes += size - wire.OVERHEAD
            if session.delivers:
                self._packet(session.node, view, at, size)
            elif self._held < bounds.MAX_HELD:
                self._held += 1
                session.held.append(bytearray(view[at : at + size]))
            else:
                self._counters["drop_held_full"] += 1
        elif kind == wire.CONTROL:
            session.spoken = lane.position
            if session.control.empty(now):
                self._counters["control_rate"] += 1
                return
            session.control.take(now)
            stop = min(size, wire.BODY + _LENGTH_BYTES + bounds.MAX_CONTROL_BYTES)  # behind it is padding
            self._emit(seam.Control(session.id, sender, bytes(view[at + wire.BODY : at + stop]), size))
        elif kind == wire.RELAY:
            self._relay_body(session, view[at : at + size], sender, now)
        elif kind != wire.KEEPALIVE:
            self._counters["drop_kind"] += 1

    # --- by relay ----------------------------------------------------------------------------------------------------
    def _relay_body(self, session: Session, datagram: memoryview, sender: seam.Endpoint, now: float) -> None:
        """For us, or for another: see relay.py."""
        nested = seam.relay_target(sender)
        if nested or not session.delivers or len(datagram) < AHEAD + wire.HEADER_BYTES:
            self._counters["relay_malformed"] += 1
            return
        hops, target, origin = wire.RELAY_HEAD.unpack_from(datagram, wire.BODY)
        inner = bytes(datagram[AHEAD:])
        if target:
            self._relay.forward(session, hops, target, origin or session.node, inner)
        else:
            self._counters["relay_delivered"] += 1
            self.relayed(origin or session.node, inner, now, session.astray)

    def relayed(self, origin: int, datagram: bytes, now: float, astray: Budget | None = None) -> None:
        """A datagram came by relay; one that no lane of ours opens may be another worker's while `astray` lasts."""
        inner, size = Source(None, bytearray(datagram)), len(datagram)  # runs keep views of it until they are written
        first, counter = _read_header(inner.buffer, 0)
        lane = self._lane(first, size, now)
        if lane is not None:
            self._unbox(lane, inner, counter, now)
            self._runs.current = NONE
        elif astray is not None and self._is_astray(first, size, astray, now):
            self._emit(seam.Astray(origin, datagram))
        else:
            self._other(inner.view, 0, size, seam.relayed(origin), now)

    def _unbox(self, lane: OpenLane, inner: Source, counter: int, now: float) -> None:
        """As the hot loop does it, but that no path is proved by what did not come on it."""
        size, runs = len(inner.view), self._runs
        session, unbox, key, nonce, nonce_at, is_new = lane.hot
        _put_counter(nonce, 16, counter)
        runs.current = NONE
        if unbox(inner.at, inner.at, size, nonce_at, key):
            self._counters["drop_tag"] += 1
        elif not is_new(counter):
            self._counters["drop_replay"] += 1
        else:
            lane.newest = max(lane.newest, counter)
            if session.relayed:
                session.last_received = now
            self._opened(lane, inner.view, 0, size, seam.relayed(session.node), now)

    def _is_astray(self, first: int, size: int, budget: Budget, now: float) -> bool:
        data = first >> 32 == wire.DATA << 24 and size >= wire.OVERHEAD and first not in self._lanes
        if not data or budget.empty(now):
            return False
        budget.take(now)
        return True

    def _packet(self, node: int, view: memoryview, at: int, size: int) -> None:
        """One opened packet that continues no run at hand."""
        inner = at + wire.BODY
        header = packet.read(view, inner, at + size)
        if header is None:
            self._counters["drop_malformed"] += 1
        elif self._routes.owner(header.source) != node:
            self._counters["drop_inner_source"] += 1
        elif self._routes.owner(header.destination) != seam.SELF:
            self._counters["drop_inner_destination"] += 1
        elif _has_transport(header):
            if view[at + _KIND] == wire.PACKET_PARTIAL or _made_partial(view, inner, header):
                self._runs.add(view, inner, header, node)
            else:
                self._runs.flush()  # it may belong to a run's flow and must not overtake it
                self._runs.alone(view, inner, inner + header.length, None)
        elif view[at + _KIND] == wire.PACKET_PARTIAL:
            self._counters["drop_malformed"] += 1
        else:
            self._runs.alone(view, inner, inner + header.length, None)

    def _lane(self, first: int, size: int, now: float) -> OpenLane | None:
        """The lane that may open this; `_other` tells apart why there is none."""
        lane = self._lanes.get(first)
        if lane is None or size < wire.OVERHEAD or now >= lane.session.expires:
            return None
        if lane.cold is not None:
            lane.warm()
        return lane

    def _other(self, view: memoryview, at: int, size: int, sender: seam.Endpoint, now: float) -> None:
        """What no lane opens: handshakes, and rubbish."""
        if size >= wire.OVERHEAD and view[at] == wire.DATA and not any(view[at + 1 : at + 4]):
            known = _read_header(view, at)[0] in self._lanes
            self._counters["drop_expired" if known else "drop_unknown_index"] += 1
        else:
            self._strangers.on_datagram(bytes(view[at : at + size]), sender, now, self._wakeup)

    def _write(self, parts: Sequence[Buffer]) -> None:
        try:
            self._tun.write(parts)
            self._counters["frames_in"] += 1
        except OSError:
            self._counters["drop_tun_write"] += 1


def _has_transport(header: packet.Header) -> bool:
    """Whether a whole TCP or UDP header stands right behind IP's."""
    if header.fragment or header.protocol not in packet.CHECKSUM_OFFSET:
        return False
    least = packet.TCP_HEADER if header.protocol == packet.TCP else packet.UDP_HEADER
    return header.length >= header.transport + least


def _made_partial(view: memoryview, at: int, header: packet.Header) -> bool:
    """Replaces a complete and right checksum by its pseudo-header sum, as the runs want it."""
    if not packet.is_complete(view, at, header):
        return False
    size = header.length - header.transport
    pseudo = packet.pseudo_sum(header.source, header.destination, header.protocol, size)
    field = at + header.transport + packet.CHECKSUM_OFFSET[header.protocol]
    view[field : field + 2] = pseudo.to_bytes(2, "big")
    return True
