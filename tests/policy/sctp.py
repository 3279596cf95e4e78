"""SCTP as far as a firewall sees it, for kernels without it: INIT, and the INIT ACK that answers it (RFC 9260).

Law: what conntrack checks is right: the CRC32c, a verification tag of 0 in INIT alone and the peer's tag in INIT ACK.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

IPPROTO: Final = 132
IP_PKTINFO: Final = 8
INIT: Final = 1
INIT_ACK: Final = 2
STATE_COOKIE: Final = 7
TAG: Final = 0x5EED
HEADER: Final = struct.Struct("!HHI")
"""Ports and verification tag; the checksum follows, in little endian."""
CHUNK: Final = struct.Struct("!BBHIIHHI")
"""Type, flags, length, tag, window, streams out and in, first TSN."""


def raw() -> socket.socket:
    """Hears all SCTP of its network."""
    return socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, IPPROTO)


def init(source: int, destination: int) -> bytes:
    return _packet(source, destination, 0, INIT)


def answer(heard: socket.socket, ports: Collection[int]) -> None:
    """An INIT for one of `ports` with an INIT ACK whose cookie is the address that it came from."""
    packet, peer = _received(heard)
    if packet.kind == INIT and packet.destination in ports:
        said = _packet(packet.destination, packet.source, packet.tag, INIT_ACK, socket.inet_aton(peer))
        heard.sendmsg([said], [source(packet.address)], 0, (peer, 0))


def acknowledged(heard: socket.socket, port: int) -> tuple[tuple[str, int], str] | None:
    """Who answers the INIT that left from `port`, and the address which that one saw."""
    packet, peer = _received(heard)
    if packet.kind != INIT_ACK or packet.destination != port:
        return None
    return (peer, packet.source), socket.inet_ntoa(packet.rest[4:8])


def source(address: bytes) -> tuple[int, int, bytes]:
    """Ancillary data: an answer has the address that was asked, of however many the host has."""
    return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4x", 0, address)


class Packet(NamedTuple):
    address: bytes
    """That it was sent to."""
    source: int
    destination: int
    kind: int
    tag: int
    rest: bytes


def _received(heard: socket.socket) -> tuple[Packet, str]:
    """With whom it is from."""
    whole, (peer, _) = heard.recvfrom(200)
    at = (whole[0] & 15) * 4
    source, destination, _ = HEADER.unpack_from(whole, at)
    kind, _, _, tag, *_ = CHUNK.unpack_from(whole, at + 12)
    return Packet(whole[16:20], source, destination, kind, tag, whole[at + 12 + CHUNK.size :]), peer


def _packet(source: int, destination: int, tag: int, kind: int, cookie: bytes = b"") -> bytes:
    rest = struct.pack("!HH", STATE_COOKIE, 4 + len(cookie)) + cookie if cookie else b""
    chunk = CHUNK.pack(kind, 0, CHUNK.size + len(rest), TAG, 1 << 16, 1, 1, 1) + rest
    header = HEADER.pack(source, destination, tag)
    return header + struct.pack("<I", crc32c(header + bytes(4) + chunk)) + chunk


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF
