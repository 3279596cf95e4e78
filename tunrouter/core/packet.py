"""Inner IPv4 and IPv6 packets: reading headers, the internet checksum, and ICMP messages that say "too big".

Laws: RFC 791 and 8200 (headers), RFC 1071 (checksum), RFC 1191 and 4443 (too big), RFC 1812 4.3.2.7 (no ICMP about ICMP
errors, fragments behind the first, or what no single host can have sent).

The one's-complement sum of 16-bit words is the big-endian number modulo 65,535: 65,536 is 1 there, so every word counts
the same wherever it stands. Zero and 65,535 are one value; the sum of anything that is not all zeros is 65,535.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMP6: Final = 58
FRAGMENT6: Final = 44

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40
TCP_HEADER: Final = 20
UDP_HEADER: Final = 8
CHECKSUM_OFFSET: Final = {TCP: 16, UDP: 6}
"""Where the checksum stands in the transport header."""

IPV6_MIN_MTU: Final = 1280
_ICMP4_QUOTE: Final = 576 - IPV4_HEADER - 8
"""Bytes of the refused packet that are quoted (RFC 1812 4.3.2.3); IPv6 fills its minimum MTU (RFC 4443 3.2)."""
_ICMP6_QUOTE: Final = IPV6_MIN_MTU - IPV6_HEADER - 8
_ICMP4_QUERIES: Final = frozenset((0, 8, 9, 10, 13, 14, 15, 16, 17, 18))
_ICMP6_FIRST_QUERY: Final = 128

Bytes = bytes | bytearray | memoryview

_V4: Final = struct.Struct(">BBHHHBBH4s4s")
_V6: Final = struct.Struct(">IHBB16s16s")
_HALF: Final = struct.Struct(">H")


class Header(NamedTuple):
    """What an inner packet says of itself; `length` is that of the whole packet, `transport` the offset behind IP."""

    version: int
    transport: int
    length: int
    protocol: int
    """Of an IPv6 packet the first next-header value, which may be an extension's."""
    fragment: bool
    """Any fragment but a whole packet; its transport header may be missing."""
    source: bytes
    destination: bytes


def read(packet: Bytes, start: int = 0, end: int | None = None) -> Header | None:
    """The header of the packet in `packet[start:end]`, or None if the fields do not fit those bytes.

    The packet may be shorter than the bytes given, never longer.
    """
    size = (len(packet) if end is None else end) - start
    if size < IPV4_HEADER:
        return None
    version = packet[start] >> 4
    if version == 4:
        first, _, length, _, offset, _, protocol, _, source, destination = _V4.unpack_from(packet, start)
        transport = (first & 15) * 4
        if not IPV4_HEADER <= transport <= length <= size:
            return None
        return Header(4, transport, length, protocol, bool(offset & 0x3FFF), source, destination)
    if version == 6 and size >= IPV6_HEADER:
        _, payload, protocol, _, source, destination = _V6.unpack_from(packet, start)
        length = IPV6_HEADER + payload
        if length > size:
            return None
        return Header(6, IPV6_HEADER, length, protocol, protocol == FRAGMENT6, source, destination)
    return None


def flow(packet: Bytes, start: int, size: int) -> int:
    """A number that is the same for all packets of one flow; `size` bytes, at least an IP header."""
    if packet[start] >> 4 == 6:
        first, least, transport, protocol, whole = 8, IPV6_HEADER, IPV6_HEADER, packet[start + 6], True
    else:
        first, least, transport, protocol = 12, IPV4_HEADER, (packet[start] & 15) * 4, packet[start + 9]
        whole = not _HALF.unpack_from(packet, start + 6)[0] & 0x3FFF
    number = 0
    for (word,) in struct.iter_unpack(">I", packet[start + first : start + least]):
        number ^= word
    if whole and protocol in CHECKSUM_OFFSET and least <= transport <= size - 4:
        number ^= int.from_bytes(packet[start + transport : start + transport + 4], "big")
    number ^= number >> 16
    return number ^ number >> 8


def ones_sum(data: Bytes, initial: int = 0) -> int:
    """The folded one's-complement sum of `data` (an odd last byte is padded with zero) plus `initial`."""
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    number += initial
    return number % 65535 or (65535 if number else 0)


def checksum(data: Bytes, initial: int = 0) -> int:
    """The internet checksum of `data`, as it stands in a header whose own field was zero."""
    return ones_sum(data, initial) ^ 0xFFFF


def pseudo_sum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The folded sum over the pseudo-header: what a partial checksum field holds."""
    return ones_sum(source + destination, protocol + length)


def is_complete(packet: Bytes, start: int, header: Header) -> bool:
    """Whether the TCP or UDP checksum of the packet at `start` is present and right."""
    at = start + header.transport
    size = header.length - header.transport
    if header.protocol == UDP and packet[at + 6] == 0 == packet[at + 7]:
        return False
    seed = pseudo_sum(header.source, header.destination, header.protocol, size)
    return ones_sum(packet[at : start + header.length], seed) == 0xFFFF


def complete(packet: bytearray, start: int, end: int, field: int) -> None:
    """Turns the partial checksum at `field` into the complete one over `packet[start:end]` (RFC 768: never zero)."""
    value = checksum(packet[start:end]) or 0xFFFF
    _HALF.pack_into(packet, field, value)


def too_big(packet: Bytes, mtu: int) -> bytes | None:
    """The ICMP message to the sender of `packet` that at most `mtu` bytes fit, or None where none may be sent.

    Its source is the refused packet's own destination: an address of this host would be martian coming from the TUN.
    """
    header = read(packet)
    if header is None or _must_not_answer(packet, header):
        return None
    if header.version == 4:
        return _too_big4(bytes(packet[: header.length]), header, mtu)
    return _too_big6(bytes(packet[: header.length]), header, mtu)


def _must_not_answer(packet: Bytes, header: Header) -> bool:
    source, destination, at = header.source, header.destination, header.transport
    if header.version == 4:
        behind_first = _HALF.unpack_from(packet, 6)[0] & 0x1FFF
        error = header.protocol == ICMP and (len(packet) <= at or packet[at] not in _ICMP4_QUERIES)
        nobody = source[0] in (0, 127) or source[0] >= 224 or destination[0] >= 224
        return bool(behind_first) or error or nobody
    error = header.protocol == ICMP6 and (len(packet) <= at or packet[at] < _ICMP6_FIRST_QUERY)
    return error or source[0] == 0xFF or not any(source)


def _too_big4(packet: bytes, header: Header, mtu: int) -> bytes:
    quote = packet[:_ICMP4_QUOTE]
    message = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + quote
    message = message[:2] + _HALF.pack(checksum(message)) + message[4:]
    fields = (0x45, 0xC0, IPV4_HEADER + len(message), 0, 0x4000, 64, ICMP)
    outer = _V4.pack(*fields, 0, header.destination, header.source)
    return _V4.pack(*fields, checksum(outer), header.destination, header.source) + message


def _too_big6(packet: bytes, header: Header, mtu: int) -> bytes:
    message = struct.pack(">BBHI", 2, 0, 0, mtu) + packet[:_ICMP6_QUOTE]
    seed = pseudo_sum(header.destination, header.source, ICMP6, len(message))
    message = message[:2] + _HALF.pack(checksum(message, seed)) + message[4:]
    return _V6.pack(6 << 28, len(message), ICMP6, 64, header.destination, header.source) + message
