"""Cutting a super-packet into the packets that its sender would have sent: what a network card does for TSO and USO.

Each segment gets complete inner headers: TCP's sequence and IPv4's identification advance, FIN and PSH stand on the
last only, CWR on the first only (RFC 3168), lengths and the IPv4 checksum are right, and the transport checksum field
holds the segment's pseudo-header sum.

Nothing is copied. The prefix of segment i (room for header and tag, kind, inner headers) is written into the frame
right before payload i, over the end of payload i - 1, which has been sealed by then: segments must be taken in order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from tunrouter.core import bounds, packet, wire

CSUM: Final = 1
"""Flag of the virtio-net header: the checksum field holds a pseudo-header sum."""
VNET: Final = struct.Struct("=BBHHHH")
"""flags, GSO type, header bytes, GSO size, where the checksum's range starts, the field's offset from there"""
VNET_BYTES: Final = VNET.size
GSO_NONE: Final = 0
GSO_TCP4: Final = 1
GSO_TCP6: Final = 4
GSO_UDP: Final = 5
GSO_ECN: Final = 0x80

FIN: Final = 0x01
PSH: Final = 0x08
CWR: Final = 0x80

Write = Callable[[int], None]

_HALF: Final = struct.Struct(">H")
_form = lru_cache(256)(struct.Struct)


class Cut:
    """How one super-packet falls apart.

    `prefix(i)` writes what stands before payload i; that segment is then a message of `size` bytes (the last: `last`)
    at `start + i * step`.
    """

    __slots__ = ("count", "kind", "last", "prefix", "size", "start", "step")

    def __init__(self, count: int, size: int, last: int, start: int, step: int, kind: int, prefix: Write) -> None:
        self.count = count
        self.size = size
        self.last = last
        self.start = start
        self.step = step
        self.kind = kind
        self.prefix = prefix


def cut(frame: bytearray, at: int, header: packet.Header, gso: int, size: int) -> Cut | None:
    """The segments of the packet at `frame[at:]`, of `size` payload bytes each; None if no host would say so."""
    transport = header.transport
    if header.version == 6 and header.protocol not in (packet.TCP, packet.UDP):
        return None
    tcp = gso in (GSO_TCP4, GSO_TCP6)
    if header.protocol != (packet.TCP if tcp else packet.UDP) or header.fragment or not size:
        return None
    inner = transport + packet.UDP_HEADER
    if tcp:
        if header.length < transport + packet.TCP_HEADER:
            return None
        inner = transport + (frame[at + transport + 12] >> 4) * 4
        if inner < transport + packet.TCP_HEADER:
            return None
    payload = header.length - inner
    if payload <= 0:
        return None
    size = min(size, payload)
    count = -(-payload // size)
    if count > bounds.MAX_SEGMENTS:
        return None
    tail = payload - (count - 1) * size
    prefix = _prefix(frame, at, header, inner, size, count, tail)
    before = wire.BODY + inner
    return Cut(count, before + size, before + tail, at + inner - before, size, wire.PACKET_PARTIAL, prefix)


def _prefix(frame: bytearray, at: int, header: packet.Header, inner: int, size: int, count: int, tail: int) -> Write:
    """A writer of prefixes; the templates of the first, the last and those between are made once."""
    original = bytes(frame[at : at + inner])
    tcp = header.protocol == packet.TCP
    flags = original[header.transport + 13] if tcp else 0
    middle = _template(original, header, inner + size, flags & ~(FIN | PSH | CWR))
    first = _template(original, header, inner + size, flags & ~(FIN | PSH))
    last = _template(original, header, inner + tail, flags if count == 1 else flags & ~CWR)
    make = _prefix4 if header.version == 4 else _prefix6
    return make(frame, at - wire.BODY, size, count, header.transport, (first, middle, last), tcp=tcp)


def _template(original: bytes, header: packet.Header, length: int, flags: int) -> bytes:
    """The inner headers of a segment of `length` bytes; identification and IPv4 checksum are the writer's."""
    headers = bytearray(original)
    transport = header.transport
    if header.version == 4:
        _HALF.pack_into(headers, 2, length)
        _HALF.pack_into(headers, 10, 0)
    else:
        _HALF.pack_into(headers, 4, length - packet.IPV6_HEADER)
    if header.protocol == packet.TCP:
        headers[transport + 13] = flags
    else:
        _HALF.pack_into(headers, transport + 4, length - transport)
    pseudo = packet.pseudo_sum(header.source, header.destination, header.protocol, length - transport)
    _HALF.pack_into(headers, transport + packet.CHECKSUM_OFFSET[header.protocol], pseudo)
    return bytes(headers)


Templates = tuple[bytes, bytes, bytes]


def _prefix4(
    frame: bytearray, start: int, size: int, count: int, transport: int, templates: Templates, *, tcp: bool
) -> Write:
    """Fields that change: identification, IPv4 checksum, and TCP's sequence."""
    inner = len(templates[0])
    sequence_at = transport + 4 if tcp else inner
    tail = inner - sequence_at - 4 * tcp
    pack = _form(f">{wire.OVERHEAD + 4}sH4sH{sequence_at - 12}s{'I' if tcp else ''}{tail}s").pack_into
    identification = _HALF.unpack_from(templates[0], 4)[0]
    sequence = int.from_bytes(templates[0][sequence_at : sequence_at + 4], "big")
    parts = []
    for template in templates:
        head = bytes(wire.OVERHEAD - 1) + bytes((wire.PACKET_PARTIAL,)) + template[:4]
        total = packet.ones_sum(template[:4] + template[6:transport])
        parts.append((head, template[6:10], total, template[12:sequence_at], template[sequence_at + 4 * tcp :]))

    def write(i: int) -> None:
        head, middle, total, addresses, rest = parts[2 if i == count - 1 else i > 0]
        number = (identification + i) & 0xFFFF
        total += number
        total = (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
        at = start + i * size
        if tcp:
            pack(frame, at, head, number, middle, total, addresses, (sequence + i * size) & 0xFFFFFFFF, rest)
        else:
            pack(frame, at, head, number, middle, total, addresses, rest)

    return write


def _prefix6(
    frame: bytearray, start: int, size: int, count: int, transport: int, templates: Templates, *, tcp: bool
) -> Write:
    """The field that changes: TCP's sequence."""
    inner = len(templates[0])
    sequence_at = transport + 4
    zeros = bytes(wire.OVERHEAD - 1) + bytes((wire.PACKET_PARTIAL,))
    if not tcp:
        whole = [zeros + template for template in templates]
        copy = _form(f"{wire.OVERHEAD + inner}s").pack_into

        def write_udp(i: int) -> None:
            copy(frame, start + i * size, whole[2 if i == count - 1 else i > 0])

        return write_udp
    pack = _form(f">{wire.OVERHEAD + sequence_at}sI{inner - sequence_at - 4}s").pack_into
    sequence = int.from_bytes(templates[0][sequence_at : sequence_at + 4], "big")
    parts = [(zeros + template[:sequence_at], template[sequence_at + 4 :]) for template in templates]

    def write(i: int) -> None:
        head, rest = parts[2 if i == count - 1 else i > 0]
        pack(frame, start + i * size, head, (sequence + i * size) & 0xFFFFFFFF, rest)

    return write
