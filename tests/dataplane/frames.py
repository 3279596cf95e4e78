"""Inner packets and virtio-net frames for tests, and the slow, plain checksum that the fast one is compared with."""

from __future__ import annotations

import struct

V4 = (bytes((10, 32, 1, 2)), bytes((10, 32, 2, 2)))
V6 = (bytes((0xFD, 0, 0, 1)) + bytes(11) + b"\x02", bytes((0xFD, 0, 0, 2)) + bytes(11) + b"\x02")
TCP, UDP = 6, 17


def slow_sum(data: bytes) -> int:
    """RFC 1071, word by word."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack(">H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    return source + destination + struct.pack(">II", length, protocol)


def network(
    ends: tuple[bytes, bytes], protocol: int, payload: bytes, *, identification: int = 7, fragment: int = 0x4000,
    tos: int = 0,
) -> bytes:  # fmt: skip
    source, destination = ends
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28 | tos << 20, len(payload), protocol, 64) + source + destination + payload
    start = struct.pack(">BBHHHBB", 0x45, tos, 20 + len(payload), identification, fragment, 64, protocol)
    check = slow_sum(start + source + destination) ^ 0xFFFF
    return start + struct.pack(">H", check) + source + destination + payload


def transport(
    ends: tuple[bytes, bytes], protocol: int, payload: bytes, *, partial: bool = True, ports: tuple[int, int] = (4, 5),
    sequence: int = 1, acknowledge: int = 9, flags: int = 0x10, options: bytes = b"", window: int = 500,
) -> bytes:  # fmt: skip
    """A TCP or UDP segment with its checksum partial or complete."""
    if protocol == TCP:
        size = 20 + len(options)
        head = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledge, size // 4 << 4, flags, window, 0, 0) + options
        field = 16
    else:
        head, field = struct.pack(">HHHH", *ports, 8 + len(payload), 0), 6
    over = pseudo(*ends, protocol, len(head) + len(payload))
    check = slow_sum(over) if partial else slow_sum(over + head + payload) ^ 0xFFFF or 0xFFFF
    return head[:field] + struct.pack(">H", check) + head[field + 2 :] + payload


def vnet(packet: bytes, *, partial: bool = True, gso: int = 0, size: int = 0) -> bytes:
    """The packet as a frame of the TUN; the header's fields are found in the packet."""
    start = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
    if not partial:
        return struct.pack("=BBHHHH", 0, 0, 0, 0, 0, 0) + packet
    header = start + (packet[start + 12] >> 4) * 4 if protocol == TCP else start + 8
    field = 16 if protocol == TCP else 6
    header = header if gso else 0
    return struct.pack("=BBHHHH", 1, gso, header, size, start, field) + packet


def udp(payload: bytes = b"x" * 32, ends: tuple[bytes, bytes] = V4, **fields: int) -> bytes:
    """A frame with one UDP packet."""
    return vnet(network(ends, UDP, transport(ends, UDP, payload), **fields))


def back(payload: bytes = b"x" * 32) -> bytes:
    """The same from node 2 to node 1."""
    return udp(payload, (V4[1], V4[0]))
