"""Joining consecutive segments of a flow into one super-packet for one TUN write: what a network card does as GRO.

A run is one flow's segments so far. All its segments but the last carry the same number of bytes, and their headers are
predicted: the next one's is the last one's plus a constant, as numbers (sequence + bytes; over IPv4 identification + 1
and so checksum - 1, or both unchanged under DF). One comparison of two integers therefore proves addresses, ports,
acknowledgement, window, options, TTL, TOS, flags, lengths and contiguity at once. `left` ends a run before one of these
fields would wrap into its neighbour. Only a run's last segment may be shorter or carry PSH or FIN.

Payloads are never copied: a run holds views of the receive buffer and must be flushed before that is filled again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from tunrouter.core import bounds, packet, wire
from tunrouter.dataplane import segment
from tunrouter.dataplane.kernel import Buffer

Write = Callable[[Sequence[Buffer]], None]
Flow = tuple[bytes, int, int]
"""Addresses and ports, protocol, sending node."""

_ACK: Final = 0x10
_ECE: Final = 0x40
_ENDS: Final = segment.PSH | segment.FIN
_DONT_FRAGMENT: Final = 0x4000
_HALF: Final = struct.Struct(">H")
_ALONE: Final = bytes(segment.VNET_BYTES)


class Run:
    """Segments of one flow, in order."""

    __slots__ = (
        "datagram", "delta", "fixed", "flow", "head", "header", "left", "mss", "next", "parts", "size", "transport"
    )  # fmt: skip

    def __init__(self, flow: Flow, head: bytearray, transport: int, mss: int) -> None:
        self.flow = flow
        self.head = head
        self.header = len(head)
        self.transport = transport
        self.mss = mss
        self.size = len(head) + mss
        """Bytes of the inner packet of each segment but the last."""
        self.datagram = self.size + wire.OVERHEAD
        self.parts: list[memoryview] = []
        self.next = -1
        """The next header as a number."""
        self.delta = 0
        self.fixed = -1
        """The next header if identification stands still, or -1."""
        self.left = 0
        """How many more may join; none is predicted when it is zero."""

    def take(self, payload: memoryview) -> None:
        """Adds the payload of a segment with the predicted header."""
        self.parts.append(payload)
        self.fixed = -1
        self.left -= 1
        self.next = self.next + self.delta if self.left > 0 else -1


_NO_FLOW: Final[Flow] = (b"", 0, 0)
NONE: Final = Run(_NO_FLOW, bytearray(), 0, -1)
"""The run that nothing continues."""


class Coalescer:
    """The runs of one batch: at most bounds.MAX_FLOWS flows, the oldest of which gives way."""

    def __init__(self, write: Write, features: tuple[str, ...]) -> None:
        self._write = write
        self._runs: dict[Flow, Run] = {}
        self.current = NONE
        """The run that was continued last; inbound.py's hot loop continues it by itself."""
        tcp = {version for version in (4, 6) if f"tso{version}" in features}
        udp = {version for version in (4, 6) if f"uso{version}" in features}
        self._joins = {packet.TCP: tcp, packet.UDP: udp}

    def add(self, view: memoryview, at: int, header: packet.Header, node: int) -> None:
        """Takes a packet with a partial checksum and a transport header right behind IP's; writes it now or later."""
        end = at + header.length
        transport = at + header.transport
        flow = (header.source + header.destination + view[transport : transport + 4], header.protocol, node)
        run = self._runs.get(flow)
        inner, ends = self._join_at(view, at, header)
        if run is not None:
            if inner and self._continue(run, view, at, inner, end):
                return
            self._flush_run(run)
        if not inner or ends:
            self.alone(view, at, end, header)
        else:
            self._begin(flow, view, at, inner, end, header)

    def _join_at(self, view: memoryview, at: int, header: packet.Header) -> tuple[int, bool]:
        """Where the payload of a joinable packet begins, else 0, and whether it must be a run's last."""
        if header.version not in self._joins[header.protocol]:
            return 0, False
        if header.version == 4 and header.transport != packet.IPV4_HEADER:
            return 0, False
        if header.protocol == packet.UDP:
            inner = header.transport + packet.UDP_HEADER
            whole = _HALF.unpack_from(view, at + header.transport + 4)[0] == header.length - header.transport
            return (at + inner if whole and inner < header.length else 0), False
        transport = at + header.transport
        flags = view[transport + 13]
        inner = header.transport + (view[transport + 12] >> 4) * 4
        plain = view[transport + 12] & 0x0F == 0 and flags & ~(_ENDS | _ECE) == _ACK
        if not plain or not header.transport + packet.TCP_HEADER <= inner < header.length:
            return 0, False
        return at + inner, bool(flags & _ENDS)

    def _begin(self, flow: Flow, view: memoryview, at: int, inner: int, end: int, header: packet.Header) -> None:
        head = bytearray(view[at:inner])
        mss = end - inner
        run = Run(flow, head, header.transport, mss)
        run.parts.append(view[inner:end])
        run.left = min((bounds.MAX_FRAME - len(head)) // mss, bounds.MAX_COALESCED) - 1
        bits = len(head) * 8
        if header.protocol == packet.TCP:
            sequence = int.from_bytes(head[header.transport + 4 : header.transport + 8], "big")
            run.delta = mss << bits - 8 * (header.transport + 8)
            run.left = min(run.left, (0xFFFFFFFF - sequence) // mss)
        else:
            run.left = min(run.left, bounds.MAX_UDP_COALESCED - 1)
        number = int.from_bytes(head, "big")
        if header.version == 4:
            identification, fragment, _, check = struct.unpack_from(">HHHH", head, 4)
            if fragment & _DONT_FRAGMENT:
                run.fixed = number + run.delta
            run.delta += (1 << bits - 48) - (1 << bits - 96)
            run.left = min(run.left, 0xFFFF - identification, check)
        run.next = number + run.delta
        if run.left > 0:
            if len(self._runs) >= bounds.MAX_FLOWS:
                self._flush_run(next(iter(self._runs.values())))
            self._runs[flow] = self.current = run
        else:
            self._write_run(run)

    def _continue(self, run: Run, view: memoryview, at: int, inner: int, end: int) -> bool:
        """Whether the packet continues `run`; if it must be the last, the run is written."""
        if end - at > run.size or inner - at != run.header:
            return False
        number = int.from_bytes(view[at:inner], "big")
        if number != run.next and number == run.fixed and end - at == run.size:
            run.delta += run.fixed - run.next
            run.next = number
        if number == run.next and end - at == run.size:
            run.take(view[inner:end])
            self.current = run
            return True
        if not self._is_last(run, view, at, inner, end):
            return False
        run.parts.append(view[inner:end])
        if run.flow[1] == packet.TCP:
            run.head[run.transport + 13] |= view[at + run.transport + 13] & _ENDS
        self._flush_run(run)
        return True

    @staticmethod
    def _is_last(run: Run, view: memoryview, at: int, inner: int, end: int) -> bool:
        """Whether the header is the predicted one but for a shorter length and the flags that end a run."""
        actual = bytes(view[at:inner])
        for number in (run.next, run.fixed):
            if number < 0:
                continue
            expected = bytearray(number.to_bytes(run.header, "big"))
            if run.flow[1] == packet.TCP:
                expected[run.transport + 13] |= view[at + run.transport + 13] & _ENDS
            _set_length(expected, run.transport, run.flow[1], end - at)
            if expected == actual:
                return True
        return False

    def flush(self) -> None:
        """Writes every run."""
        for run in self._runs.values():
            self._write_run(run)
        self._runs.clear()
        self.current = NONE

    def _flush_run(self, run: Run) -> None:
        del self._runs[run.flow]
        if run is self.current:
            self.current = NONE
        self._write_run(run)

    def _write_run(self, run: Run) -> None:
        count = len(run.parts)
        protocol = run.flow[1]
        head = run.head
        kind, size, header = segment.GSO_NONE, 0, 0
        if count > 1:
            size, header = run.mss, run.header
            payload = (count - 1) * run.mss + len(run.parts[-1])
            _set_length(head, run.transport, protocol, run.header + payload)
            kind = segment.GSO_TCP4 if head[0] >> 4 == 4 else segment.GSO_TCP6
            if protocol == packet.UDP:
                kind = segment.GSO_UDP
        field = packet.CHECKSUM_OFFSET[protocol]
        vnet = segment.VNET.pack(segment.CSUM, kind, header, size, run.transport, field)
        self._write([vnet, head, *run.parts])

    def alone(self, view: memoryview, at: int, end: int, header: packet.Header | None) -> None:
        """Writes one packet as it is; `header` only if its checksum is partial."""
        vnet = _ALONE
        if header is not None:
            field = packet.CHECKSUM_OFFSET[header.protocol]
            vnet = segment.VNET.pack(segment.CSUM, 0, 0, 0, header.transport, field)
        self._write((vnet, view[at:end]))


def _set_length(head: bytearray, transport: int, protocol: int, length: int) -> None:
    """Makes `head` that of a packet of `length` bytes with a partial transport checksum."""
    if head[0] >> 4 == 4:
        _HALF.pack_into(head, 2, length)
        _HALF.pack_into(head, 10, 0)
        _HALF.pack_into(head, 10, packet.checksum(head[:transport]))
        addresses = head[12:20]
    else:
        _HALF.pack_into(head, 4, length - packet.IPV6_HEADER)
        addresses = head[8:40]
    size = length - transport
    if protocol == packet.UDP:
        _HALF.pack_into(head, transport + 4, size)
    pseudo = packet.ones_sum(addresses, protocol + size)
    _HALF.pack_into(head, transport + packet.CHECKSUM_OFFSET[protocol], pseudo)
