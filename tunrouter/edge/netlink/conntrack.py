"""The flows that this namespace's kernel has on record: listed, and ended one by one.

    CTA_TUPLE_ORIG ─ CTA_TUPLE_IP ─ source, destination
                   └ CTA_TUPLE_PROTO ─ protocol, ports or ICMP's type, code and id
    CTA_TUPLE_REPLY  the same, as the answers come: where addresses are translated, its source is who really answers
    CTA_STATUS, CTA_ZONE, CTA_ID, …

Law (nfnetlink_conntrack.h, ctnetlink_fill_info): a flow is ended under the very bytes that the kernel named it with,
and under its id. The id is made of the flow's place in memory and its original tuple: a newer flow of the same tuple
mostly has the same one, where it took the place of the older (tried), and is ended in its stead: it begins anew at the
next packet. A list is no snapshot: a flow that comes or goes meanwhile may be missing from it, or be in it twice. There
are up to a million, so nearly all of them are read in one piece, by their shape: heads of attributes that are all where
they are in an entry with ports. What has another is read attribute by attribute.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from tunrouter.edge.netlink.wire import ACK, DUMP, Message, Wire, attribute, attributes, nested
from tunrouter.errors import HostError

NETLINK_NETFILTER: Final = 12
GET, DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
ORIGINAL, REPLY, STATUS, ID, ZONE = 1, 2, 3, 12, 18  # CTA_*
IP, PROTO = 1, 2  # CTA_TUPLE_*
V4_SOURCE, V4_DESTINATION, V6_SOURCE, V6_DESTINATION = 1, 2, 3, 4  # CTA_IP_*
NUMBER, SOURCE_PORT, DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
ICMP: Final = ((5, 6, 4), (8, 9, 7))
"""CTA_PROTO_ICMP_TYPE, _CODE, _ID, and those of ICMPv6."""

_GENERIC: Final = struct.Struct(">BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")


class Tuple(NamedTuple):
    """Of the packets of one direction."""

    source: bytes
    """As in a packet: `ipaddress.ip_address` makes an address of it."""
    destination: bytes
    source_port: int = 0
    """0, both, of what has none."""
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0


class Flow(NamedTuple):
    protocol: int
    original: Tuple
    reply: Tuple
    status: int
    """IPS_*: bits."""
    zone: int
    handle: bytes
    """What the kernel knows it by: original tuple, zone and id, as attributes behind the family."""


class Conntrack:
    """One socket, in the namespace that the creating thread is in. Raises HostError, as all that it does."""

    def __init__(self) -> None:
        self.unread = 0
        """Entries that nobody can make sense of."""
        try:
            self._wire = Wire(NETLINK_NETFILTER)
        except OSError as error:
            raise _cannot("look at the flows", error) from None

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    def entries(self, family: int = socket.AF_UNSPEC) -> Iterator[Flow]:
        """Of one family, or of all: asked for now, and read one by one, for they take three times their room."""
        try:
            bodies = self._wire.ask(GET, _GENERIC.pack(family, 0, 0), DUMP)
        except OSError as error:
            raise _cannot("list the flows", error) from None
        return self._read(bodies)

    def _read(self, bodies: list[bytes]) -> Iterator[Flow]:
        for body in bodies:
            flow = read(body)
            if flow is None:
                self.unread += 1
            else:
                yield flow

    def delete(self, *flows: Flow) -> None:
        """None of them is on record any more: their next packets are the first of new ones."""
        doomed = (Message(DELETE, ACK, flow.handle) for flow in flows)
        try:
            self._wire.tell(*doomed, but=(errno.ENOENT,))
        except OSError as error:
            raise _cannot("end flows", error) from None


def read(body: bytes) -> Flow | None:
    """One entry; None if it is none."""
    for shape in _SHAPES:
        if int.from_bytes(body[_GENERIC.size : shape.end], "big") & shape.heads == shape.shape:
            there = shape.fields.unpack_from(body, _GENERIC.size)
            if there[2] == there[7]:
                original = Tuple(there[0], there[1], there[3], there[4])
                reply = Tuple(there[5], there[6], there[8], there[9])
                return _flow(body, shape.end, there[2], original, reply, body[_GENERIC.size : shape.middle])
    return _slowly(body)


def _flow(body: bytes, offset: int, protocol: int, original: Tuple, reply: Tuple, name: bytes) -> Flow:
    """With what is told of it from `offset` on."""
    status = zone = 0
    handle = body[:1] + b"\0\0\0" + name
    last = len(body) - _ATTRIBUTE.size
    while offset <= last:
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == STATUS:
            status = int.from_bytes(body[offset + 4 : offset + 8], "big")
        elif kind == ID:
            handle += body[offset : offset + 8]
        elif kind == ZONE:
            zone = int.from_bytes(body[offset + 4 : offset + 6], "big")
            handle += body[offset : offset + 8]
        offset += (length + 3) & ~3
    return Flow(protocol, original, reply, status, zone, handle)


def _slowly(body: bytes) -> Flow | None:
    found = dict(attributes(body[_GENERIC.size :]))
    name = bytes(found.get(ORIGINAL, b""))
    original, reply = _tuple(name), _tuple(bytes(found.get(REPLY, b"")))
    if original is None or reply is None or original[0] != reply[0]:
        return None
    return _flow(body, _GENERIC.size, original[0], original[1], reply[1], nested(ORIGINAL, name))


def _tuple(data: bytes) -> tuple[int, Tuple] | None:
    """Its protocol, and the rest."""
    found = dict(attributes(data))
    ip, proto = dict(attributes(found.get(IP, b""))), dict(attributes(found.get(PROTO, b"")))
    source = bytes(ip.get(V4_SOURCE, ip.get(V6_SOURCE, b"")))
    destination = bytes(ip.get(V4_DESTINATION, ip.get(V6_DESTINATION, b"")))
    if len(source) not in {4, 16} or len(destination) != len(source) or len(proto.get(NUMBER, b"")) != 1:
        return None

    def number(*kinds: int) -> int:
        return next((int.from_bytes(proto[kind][:2], "big") for kind in kinds if kind in proto), 0)

    ports = number(SOURCE_PORT), number(DESTINATION_PORT)
    return proto[NUMBER][0], Tuple(source, destination, *ports, *(number(*kinds) for kinds in zip(*ICMP, strict=True)))


class _Shape(NamedTuple):
    """Of the two tuples of an entry with ports."""

    middle: int
    end: int
    heads: int
    """Ones where the heads of the attributes are."""
    shape: int
    """What stands there."""
    fields: struct.Struct
    """Addresses, protocol and ports of the one, then of the other."""


def _shape(source: int, destination: int, size: int) -> _Shape:
    def both(value: bytes) -> bytes:
        ends = nested(IP, attribute(source, value * size), attribute(destination, value * size))
        ports = attribute(SOURCE_PORT, value * 2), attribute(DESTINATION_PORT, value * 2)
        one = ends + nested(PROTO, attribute(NUMBER, value), *ports)
        return nested(ORIGINAL, one) + nested(REPLY, one)

    zeros, ones = both(b"\0"), both(b"\xff")
    shape = int.from_bytes(zeros, "big")
    values = shape ^ int.from_bytes(ones, "big")
    heads = (1 << 8 * len(zeros)) - 1 ^ values
    one = f"12x{size}s4x{size}s8xB7xH6xH2x"
    middle = _GENERIC.size + len(zeros) // 2
    return _Shape(middle, _GENERIC.size + len(zeros), heads, shape, struct.Struct(f">{one}{one}"))


_SHAPES: Final = (_shape(V4_SOURCE, V4_DESTINATION, 4), _shape(V6_SOURCE, V6_DESTINATION, 16))


def _cannot(doing: str, error: OSError) -> HostError:
    fix = (
        "run as root, or give the process CAP_NET_ADMIN"
        if error.errno == errno.EPERM
        else "use a kernel with ctnetlink"
    )
    return HostError(f"cannot {doing}: {error.strerror or error}", fix)
