"""Inner packets as numbers, for property tests: flows of segments with everything that cutting and joining looks at.

A `Flow` is drawn and says of each of its packets all header fields; most are what a sender would send, some are not.
Node n owns 10.32.n.0/24 and fd00:n::/64.
"""

from __future__ import annotations

import random
import struct
from typing import Final, NamedTuple

from tests.dataplane.frames import TCP, UDP
from tunrouter.core import packet

ICMP: Final = 1
GRE: Final = 47
ACK, PSH, FIN, ECE, CWR = 0x10, 0x08, 0x01, 0x40, 0x80
GSO_TYPES: Final = {(4, TCP): 1, (6, TCP): 4, (4, UDP): 5, (6, UDP): 5}


class Flow(NamedTuple):
    """`number` packets of one flow with `mss` bytes of payload each, the last with `tail`."""

    version: int
    source: int
    destination: int
    protocol: int
    port: int
    number: int
    mss: int
    tail: int
    flags: int
    last_flags: int
    options: int
    """Words of TCP options."""
    network_options: int
    """Words of IPv4 options; an extension header over IPv6."""
    identification: int
    check: int
    """What the first packet's IPv4 checksum is made to be by its identification, or -1."""
    step: int
    """Of the identification."""
    fragment: int
    sequence: int
    checksum: str
    tos: int
    odd: int
    """Which packet has a wrong byte, or -1."""
    odd_at: int


def address(version: int, node: int, host: int = 2) -> bytes:
    if version == 4:
        return bytes((10, 32, node, host))
    return bytes((0xFD, 0, 0, node)) + bytes(11) + bytes((host,))


def packets(flow: Flow) -> list[bytes]:
    """The flow as its sender sends it without any offload."""
    found = []
    for i in range(flow.number):
        size = flow.tail if i == flow.number - 1 else flow.mss
        flags = flow.flags | (flow.last_flags if i == flow.number - 1 else 0)
        made = bytearray(_packet(flow, i, size, flags))
        if i == flow.odd and made:
            made[flow.odd_at % len(made)] ^= 1 + flow.odd_at % 255
        found.append(bytes(made))
    return found


def whole(flow: Flow) -> bytes:
    """The flow as one super-packet."""
    return _packet(flow, 0, min((flow.number - 1) * flow.mss + flow.tail, 65_000), flow.flags | flow.last_flags)


def _packet(flow: Flow, i: int, size: int, flags: int) -> bytes:
    ends = address(flow.version, flow.source) + address(flow.version, flow.destination)
    inner = _transport(flow, ends, flow.sequence + i * flow.mss, bytes((i + 1 & 0xFF,)) * size, flags)
    if flow.version == 6:
        protocol = flow.protocol
        if flow.network_options:
            inner, protocol = bytes((protocol, 0)) + bytes(6) + inner, (0, 44, 60)[flow.network_options % 3]
        return struct.pack(">IHBB", 6 << 28 | flow.tos << 20, len(inner), protocol, 64) + ends + inner
    words = 5 + flow.network_options
    head = struct.pack(">BBHHHBB", 0x40 | words, flow.tos, words * 4 + len(inner), 0, flow.fragment, 64, flow.protocol)
    rest = ends + b"\1" * (4 * flow.network_options)
    first = flow.identification
    if flow.check >= 0:
        first = (0xFFFF ^ flow.check) - packet.ones_sum(head + rest)
        first += 0xFFFF * (first < 0)
    number = first + i * flow.step & 0xFFFF
    check = packet.checksum(head + rest, number)
    return head[:4] + struct.pack(">H", number) + head[6:] + struct.pack(">H", check) + rest + inner


def _transport(flow: Flow, ends: bytes, sequence: int, payload: bytes, flags: int) -> bytes:
    if flow.protocol == TCP:
        words = 5 + flow.options
        fields = (flow.port, 80, sequence & 0xFFFFFFFF, 77, words << 4, flags, 500, 0, 0)
        head, field = struct.pack(">HHIIBBHHH", *fields) + b"\1" * (4 * flow.options), 16
    elif flow.protocol == UDP:
        head, field = struct.pack(">HHHH", flow.port, 53, 8 + len(payload) & 0xFFFF, 0), 6
    else:
        return bytes((8, 0)) + bytes(6) + payload
    seed = packet.ones_sum(ends, flow.protocol + len(head) + len(payload))
    check = seed
    if flow.checksum != "partial":
        check = packet.checksum(head + payload, seed) or 0xFFFF
        check = {"complete": check, "wrong": check ^ 1, "none": 0}[flow.checksum]
    return head[:field] + struct.pack(">H", check) + head[field + 2 :] + payload


class Draw(random.Random):
    """Numbers that are drawn from few interesting ones more often than from all."""

    def of(self, *usual: int) -> int:
        return self.choice(usual)

    def near(self, *usual: int, upto: int) -> int:
        return self.randint(0, upto) if self.random() < 0.4 else self.choice(usual)


def draw_flow(draw: Draw, source: int, destination: int) -> Flow:
    rare = draw.random() < 0.3
    return Flow(
        version=draw.of(4, 4, 6),
        source=source,
        destination=destination,
        protocol=draw.of(*[TCP] * 6, *[UDP] * 5, ICMP, GRE),
        port=draw.randint(1, 12),
        number=draw.near(1, 2, 3, 7, 40, 66, upto=79) or 80,
        mss=draw.near(1, 2, 100, 536, 1328, upto=1399) or 1,
        tail=draw.near(0, 50, 100, 1328, upto=1400),
        flags=draw.of(*[ACK] * 8, ACK | PSH, ACK | ECE, ACK | CWR, 2),
        last_flags=draw.of(0, 0, PSH, FIN, PSH | FIN, 4),
        options=draw.of(0, 0, 3, 10),
        network_options=draw.of(1, 2, 3, 10) if rare else 0,
        identification=draw.near(0, 7, 0xFFFD, 0xFFFF, upto=0xFFFF),
        check=draw.of(*[-1] * 6, 0, 1, 3, 0xFFFF),
        step=draw.of(*[1] * 6, 0, 0, 2),
        fragment=draw.of(0, 0x2000, 0x2001) if rare else 0x4000,
        sequence=draw.near(1, 0xFFFFFFFF - 3000, upto=0xFFFFFFFF),
        checksum=draw.choice(["partial"] * 5 + ["complete"] * 4 + ["wrong", "none"]),
        tos=draw.of(0, 0, 0, 3, 0xB8),
        odd=draw.randint(0, 8) if rare else -1,
        odd_at=draw.randint(0, 130),
    )


class Frame(NamedTuple):
    """One read of the TUN: what the host made of a flow, and what is wrong with that."""

    flow: Flow
    cut: bool
    """A super-packet, else the flow's packets each by itself."""
    gso: int
    """What is added to the right GSO type's bits: 0x80 is ECN."""
    size: int
    """GSO size, or 0 for the flow's."""
    flags: int
    start: int
    """What is added to the checksum's place."""
    offset: int
    end: int
    """Bytes taken from the end, or added to it."""


def draw_frame(draw: Draw, source: int, destination: int) -> Frame:
    flow = draw_flow(draw, source, destination)
    if draw.random() < 0.6:
        return Frame(flow, draw.random() < 0.6, draw.of(0, 0, 0x80), 0, 1, 0, 0, 0)
    return Frame(
        flow=flow,
        cut=draw.random() < 0.5,
        gso=draw.of(0, 0, 0x80, 1, 2),
        size=draw.near(0, 0, 48, 1000, 0xFFFF, upto=0xFFFF),
        flags=draw.of(1, 1, 1, 0, 2, 3),
        start=draw.of(0, 0, 0, 1, -20, 8, 0x7000),
        offset=draw.of(0, 0, 0, 1, -6, 10, 0x7000),
        end=draw.of(0, 0, 0, -1, -30, -60, 1, 50),
    )


def reads(frame: Frame) -> list[bytes]:
    """The bytes of each read."""
    flow = frame.flow
    inner = [whole(flow)] if frame.cut else packets(flow)
    usual = GSO_TYPES.get((flow.version, flow.protocol), 0)
    gso = usual ^ frame.gso if frame.cut else frame.gso & 3
    start = (20 + 4 * flow.network_options if flow.version == 4 else 40) + frame.start
    offset = packet.CHECKSUM_OFFSET.get(flow.protocol, 0) + frame.offset
    flags = frame.flags if frame.cut or flow.checksum == "partial" else frame.flags & ~1
    size = max(frame.size or flow.mss, len(inner[0]) // 300)  # more segments would only be slower
    head = struct.pack("=BBHHHH", flags, gso, 0, size, max(start, 0), max(offset, 0))
    found = [head + (one[: frame.end] if frame.end < 0 else one + bytes(frame.end)) for one in inner]
    return [read[: 10 + 65_536] for read in found]
