"""The way out, in the order of a packet: read a frame, find its path, cut it, seal it, send the train.

TUN read -> owner of the destination -> session in use (else wait) -> fits the path (else ICMP) -> segments -> train
"""

from __future__ import annotations

import struct
from typing import Final

from tunrouter.core import bounds, packet, seam, wire
from tunrouter.core.admission import Budget
from tunrouter.dataplane import segment
from tunrouter.dataplane.kernel import Emit, Tun, Udp
from tunrouter.dataplane.lanes import Path, SealLane, Session
from tunrouter.dataplane.relay import Relay
from tunrouter.dataplane.routes import Routes
from tunrouter.dataplane.train import Train
from tunrouter.dataplane.waiting import Waiting

INNER: Final = 128
"""Where the inner packet lies in the frame buffer; the virtio-net header is read right before it."""
_VNET_AT: Final = INNER - segment.VNET_BYTES
_MESSAGE_AT: Final = INNER - wire.BODY
_FRAME_BYTES: Final = INNER + bounds.MAX_FRAME + 1

_put_kind = struct.Struct(f"{wire.BODY - 1}xB").pack_into
_NO_GSO: Final = bytes(segment.VNET_BYTES)
_PSEUDO_AT: Final = {(packet.TCP, 16), (packet.UDP, 6)}


class Outbound:
    """From the TUN to the underlay. Holds no state of a flow, only packets that wait for a session."""

    def __init__(self, tun: Tun, udps: dict[int, Udp], routes: Routes, counters: dict[str, int], emit: Emit) -> None:
        self._tun = tun
        self._routes = routes
        self._counters = counters
        self._emit = emit
        self._frame = bytearray(_FRAME_BYTES)
        self._view = memoryview(self._frame)
        self._into = self._view[_VNET_AT:]
        single = set[int]()
        self._train = Train(self._frame, udps, counters, emit, single)
        self._cut = 0
        """Segments that were cut in this wake-up."""
        self._paths: dict[int, Path] = {}
        self.relay = Relay(self._paths, udps, counters, emit, single)
        self._train.relay, self._train.relay_flush = self.relay.send, self.relay.flush
        self._waiting = Waiting(counters, emit)
        self._icmp = Budget(bounds.TOO_BIG_PER_SECOND, bounds.TOO_BIG_PER_SECOND)

    def look(self, now: float) -> None:
        """At the clock: whatever is done next is done at `now`."""
        self._train.now = self.relay.now = now

    # --- control's messages ------------------------------------------------------------------------------------------
    def path(self, node: int) -> Path:
        path = self._paths.get(node)
        if path is None:
            path = self._paths[node] = Path(node)
        return path

    def use(self, node: int, session: Session, now: float) -> None:
        """Seals on `session` from now on, first what waited."""
        self.path(node).session = session
        for frame in self._waiting.take(node):
            self._frame[_VNET_AT : _VNET_AT + len(frame)] = frame
            self._forward(len(frame), now)
        self._train.flush()

    def retire(self, session: Session) -> None:
        path = self._paths.get(session.node)
        if path is not None and path.session is session:
            path.session = None

    def forget_unrouted(self) -> None:
        """Drops the paths of nodes that own no prefix any more, with what waits for them."""
        routed = self._routes.nodes()
        for node in [node for node, path in self._paths.items() if node not in routed and path.session is None]:
            del self._paths[node]
            self._waiting.forget(node)

    def send_control(self, session: Session, kind: int, body: bytes, size: int, now: float) -> None:
        """Seals and sends one body, padded with zeros to `size` bytes of datagram. Expired keys seal nothing."""
        if len(body) > bounds.MAX_TRAIN_BYTES - wire.BODY:
            self._counters["seam_refused"] += 1
            return
        if not session.alive(now):
            self._counters["drop_expired"] += 1
            return
        total = max(wire.BODY + len(body), min(size, bounds.MAX_TRAIN_BYTES))
        _put_kind(self._frame, _MESSAGE_AT, kind)
        self._frame[INNER : _MESSAGE_AT + total] = body + bytes(total - wire.BODY - len(body))
        self._train.add(session.seals[session.spoken], _MESSAGE_AT, total)
        self._train.flush()

    def send_raw(self, datagram: bytes, endpoint: seam.Endpoint) -> None:
        if target := seam.relay_target(endpoint):
            self.relay.send(target, datagram)
            self.relay.flush()
        else:
            self._train.send_raw(datagram, endpoint)

    # --- packets -----------------------------------------------------------------------------------------------------
    def drain(self, now: float) -> bool:
        """Reads at most bounds.WAKEUP_BATCH frames, fewer if they become too many; true if there may be more."""
        read, into, forward = self._tun.read_into, self._into, self._forward
        self._cut = 0
        try:
            for _ in range(bounds.WAKEUP_BATCH):
                size = read(into)
                if not size:
                    return False
                forward(size, now)
                if self._cut >= bounds.WAKEUP_DATAGRAMS:
                    break
        except OSError:
            self._counters["tun_read_errors"] += 1
            return False
        finally:
            self._train.flush()
        return True

    def _forward(self, size: int, now: float) -> None:
        """One frame of `size` bytes with its virtio-net header."""
        frame = self._frame
        version = frame[INNER] >> 4
        if version == 4 and size >= segment.VNET_BYTES + packet.IPV4_HEADER:
            destination = bytes(frame[INNER + 16 : INNER + 20])
        elif version == 6 and size >= segment.VNET_BYTES + packet.IPV6_HEADER:
            destination = bytes(frame[INNER + 24 : INNER + 40])
        else:
            self._counters["drop_malformed"] += 1
            return
        node = self._routes.known.get(destination)
        if node is None:
            node = self._routes.owner(destination)
        if not node:  # nobody's, or our own: what comes out of the TUN for this node would loop
            self._counters["drop_no_route"] += 1
            return
        path = self._paths.get(node) or self.path(node)
        session = path.session
        if session is None or not session.alive(now):
            self._waiting.keep(node, bytes(frame[_VNET_AT : _VNET_AT + size]), now)
        else:
            self._seal(path, session, size - segment.VNET_BYTES, now)

    def _seal(self, path: Path, session: Session, size: int, now: float) -> None:
        flags, gso, _, _, start, offset = segment.VNET.unpack_from(self._frame, _VNET_AT)
        if gso != segment.GSO_NONE:
            self._seal_cut(path, session, size, now)
            return
        if size > path.mtu:
            self._too_big(path.mtu, size, now)
            return
        kind = wire.PACKET
        if flags & segment.CSUM:
            kind = self._checksum(size, start, offset)
            if not kind:
                return
        _put_kind(self._frame, _MESSAGE_AT, kind)
        self._train.add(self._lane_for(session, size), _MESSAGE_AT, wire.BODY + size)
        session.sent_packets += 1
        session.sent_bytes += size
        session.last_sent = now

    def _checksum(self, size: int, start: int, offset: int) -> int:
        """The kind of a packet whose checksum is partial; completed where the receiver could not know its place."""
        frame = self._frame
        version = frame[INNER] >> 4
        transport, protocol = (frame[INNER] & 15) * 4, frame[INNER + 9]
        if version == 6:
            transport, protocol = packet.IPV6_HEADER, frame[INNER + 6]
        if start == transport and (protocol, offset) in _PSEUDO_AT and start + offset + 2 <= size:
            return wire.PACKET_PARTIAL
        if start + offset + 2 > size:
            self._counters["drop_malformed"] += 1
            return 0
        packet.complete(frame, INNER + start, INNER + size, INNER + start + offset)
        return wire.PACKET

    def _seal_cut(self, path: Path, session: Session, size: int, now: float) -> None:
        flags, gso, _, gso_size, _, _ = segment.VNET.unpack_from(self._frame, _VNET_AT)
        header = packet.read(self._frame, INNER, INNER + size)
        cut = None
        if header is not None and flags & segment.CSUM:
            cut = segment.cut(self._frame, INNER, header, gso & ~segment.GSO_ECN, gso_size)
        if cut is None:
            self._counters["drop_malformed"] += 1
            return
        largest = (cut.size if cut.count > 1 else cut.last) - wire.BODY
        if largest > path.mtu:
            self._too_big(path.mtu, size, now)
            return
        self._cut += cut.count
        self._train.add_cut(self._lane_for(session, size), cut)
        session.sent_packets += cut.count
        session.sent_bytes += (cut.count - 1) * (cut.size - wire.BODY) + cut.last - wire.BODY
        session.last_sent = now

    def _lane_for(self, session: Session, size: int) -> SealLane:
        """A worker with several lanes of a session seals all of a flow on one of them, so that its order is kept."""
        seals = session.seals
        return seals[0] if len(seals) == 1 else seals[packet.flow(self._frame, INNER, size) % len(seals)]

    def _too_big(self, mtu: int, size: int, now: float) -> None:
        self._counters["drop_too_big"] += 1
        if self._icmp.empty(now):
            self._counters["icmp_limited"] += 1
            return
        message = packet.too_big(self._view[INNER : INNER + size], mtu)
        if message is None:
            return
        self._icmp.take(now)
        try:
            self._tun.write((_NO_GSO, message))
        except OSError:
            self._counters["drop_tun_write"] += 1
