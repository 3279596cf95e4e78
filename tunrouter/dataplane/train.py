"""The train: sealed datagrams of one lane that leave in one system call.

UDP_SEGMENT takes at most 64 datagrams of one size, the last may be shorter. A train leaves when the next datagram does
not fit it, and at the end of a drain. What the kernel refuses is tried smaller, counted, and never raised.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Final

from tunrouter.core import bounds, seam
from tunrouter.dataplane import box
from tunrouter.dataplane.kernel import Buffer, Emit, Udp
from tunrouter.dataplane.lanes import COUNTER_AT, QUAD, SealLane, Session
from tunrouter.dataplane.segment import Cut

_TOO_LARGE: Final = (errno.EMSGSIZE, errno.EINVAL)
_put_counter = struct.Struct(">Q").pack_into
_put_header = QUAD.pack_into


class Train:
    """Seals from the frame into its own memory; one at a time, in order, so that order within a flow is kept.

    `emit` hears now and then that datagrams are too large. `now` is set by whoever is going to call.
    """

    def __init__(
        self,
        frame: bytearray,
        udps: dict[int, Udp],
        counters: dict[str, int],
        emit: Emit | None = None,
        single: set[int] | None = None,
    ) -> None:
        """`single` are families whose sockets cannot send trains, as all trains of these sockets know."""
        self.now = 0.0
        self._frame = box.pointer(frame)
        self._udps = udps
        self._counters = counters
        self._emit = emit
        self._buffer = bytearray(bounds.MAX_FRAME + 1024)
        self._view = memoryview(self._buffer)
        self._at = box.pointer(self._buffer)
        self._lane: SealLane | None = None
        self._size = 0
        self._end = 0
        self._room = 0
        self.relay: Callable[[int, Buffer], None] | None = None
        """Takes what goes by relay to a node; without it all sessions are at addresses."""
        self.relay_flush: Callable[[], None] = lambda: None
        """Seals and sends what was taken."""
        self._gathered = self._wagons = 0
        """Bytes and trains since then: where a kernel keeps them for one system call, its memory has a bound."""
        self._single = set[int]() if single is None else single

    def add(self, lane: SealLane, start: int, size: int) -> None:
        """Seals the message of `size` bytes at `frame[start:]`, shaped as box.py says."""
        if self._room <= 0 or lane is not self._lane or size > self._size:
            self._depart(lane, size)
        end = self._end
        counter = lane.counter
        lane.counter = counter + 1
        _put_counter(lane.nonce, COUNTER_AT, counter)
        lane.seal(self._at + end, self._frame + start, size, lane.nonce_at, lane.key)
        _put_header(self._buffer, end, lane.first, counter)
        self._end = end + size
        self._gathered += size
        self._room = self._room - 1 if size == self._size else 0

    def add_cut(self, lane: SealLane, cut: Cut) -> None:
        """Seals the segments of a super-packet."""
        full = cut.count if cut.last == cut.size else cut.count - 1
        done = 0
        while done < full:
            if self._room <= 0 or lane is not self._lane or cut.size > self._size:
                self._depart(lane, cut.size)
            if cut.size < self._size:
                self._room = 1  # as a shorter one it is the last of the train that stands
            upto = min(full, done + self._room)
            self._add_equal(lane, cut, done, upto)
            done = upto
        if full < cut.count:
            cut.prefix(full)
            self.add(lane, cut.start + full * cut.step, cut.last)

    def _add_equal(self, lane: SealLane, cut: Cut, first: int, upto: int) -> None:
        """The hot loop: segments of one size, for which there is room."""
        prefix, step, size = cut.prefix, cut.step, cut.size
        seal, key, nonce, nonce_at, half = lane.seal, lane.key, lane.nonce, lane.nonce_at, lane.first
        buffer, end, counter = self._buffer, self._end, lane.counter
        lane.counter = counter + upto - first  # before the first use: a counter is never used twice, come what may
        source = self._frame + (cut.start + first * step)
        to = self._at + end
        for i in range(first, upto):
            prefix(i)
            _put_counter(nonce, 16, counter)
            seal(to, source, size, nonce_at, key)
            _put_header(buffer, end, half, counter)
            counter += 1
            end += size
            to += size
            source += step
        self._gathered += end - self._end
        self._end = end
        self._room -= upto - first

    def _depart(self, lane: SealLane, size: int) -> None:
        """Sends what is there, and begins a train of datagrams of `size` bytes on `lane`."""
        self._send()
        self._room = max(min(bounds.MAX_TRAIN_SEGMENTS, bounds.MAX_TRAIN_BYTES // size), 1)
        if self._wagons == bounds.MAX_WAGONS or bounds.TRAIN_BYTES - self._gathered < self._room * size:
            self._settle()
        if lane.cold is not None:
            lane.warm()
        self._lane = lane
        self._size = size
        self._wagons += 1

    def flush(self) -> None:
        """Sends what is there, and after it what goes by relay."""
        self._send()
        self._room = 0
        self._settle()

    def _settle(self) -> None:
        self._gathered = self._wagons = 0
        self.relay_flush()

    def _send(self) -> None:
        end, lane = self._end, self._lane
        self._end = 0
        self._lane = None
        if not end or lane is None:
            return
        session = lane.session
        if not session.relayed:
            self._leave(lane, end)
        if self.relay is not None and (session.relayed or session.backup):
            for start in range(0, end, self._size):
                self.relay(session.node, bytes(self._view[start : min(start + self._size, end)]))

    def _leave(self, lane: SealLane, end: int) -> None:
        version = 6 if ":" in lane.session.endpoint[0] else 4
        udp = self._udps.get(version)
        if udp is None:
            self._counters["drop_no_socket"] += -(-end // self._size)
        elif end <= self._size or version in self._single:
            self._singly(udp, lane, end)
        else:
            self._together(udp, lane, end)

    def _together(self, udp: Udp, lane: SealLane, end: int) -> None:
        try:
            udp.send_train(self._view[:end], self._size, lane.session.endpoint)
        except OSError as error:
            if error.errno == errno.EIO:  # no checksum offload on the way out, so no segmentation either
                self._single.add(udp.version)
            elif error.errno not in _TOO_LARGE:
                self._refused(error, -(-end // self._size))
                return
            self._counters["gso_fallback"] += 1
            self._singly(udp, lane, end)
        else:
            self._counters["datagrams_out"] += -(-end // self._size)

    def _singly(self, udp: Udp, lane: SealLane, end: int) -> None:
        for start in range(0, end, self._size):
            stop = min(start + self._size, end)
            try:
                udp.send(self._view[start:stop], lane.session.endpoint)
                self._counters["datagrams_out"] += 1
            except OSError as error:
                if error.errno in _TOO_LARGE:
                    self._tell(lane.session, stop - start)
                self._refused(error, 1)

    def _tell(self, session: Session, size: int) -> None:
        if self._emit is not None and self.now >= session.refused_at + bounds.REFUSED_SECONDS:
            session.refused_at = self.now
            self._emit(seam.TooBig(session.id, size))

    def send_raw(self, datagram: Buffer, endpoint: seam.Endpoint) -> None:
        udp = self._udps.get(6 if ":" in endpoint[0] else 4)
        if udp is None:
            self._counters["drop_no_socket"] += 1
            return
        try:
            udp.send(datagram, endpoint)
            self._counters["datagrams_out"] += 1
        except OSError as error:
            self._refused(error, 1)

    def _refused(self, error: OSError, datagrams: int) -> None:
        if error.errno in _TOO_LARGE:
            name = "drop_path_mtu"
        elif error.errno in (errno.EAGAIN, errno.ENOBUFS):
            name = "drop_send_buffer"
        else:
            name = "drop_unreachable"
        self._counters[name] += datagrams
