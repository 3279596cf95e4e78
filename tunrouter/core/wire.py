"""What crosses the underlay: the datagram header, the kinds inside the box, control bodies, and the MTU sums.

    0       1       2               4               8                              16
    | type  | flags | reserved 0    | receiver index| counter (u64)                | sealed: tag 16 | kind u8 | body ...

All integers are big-endian. In types 1 and 2 the index is the initiator's and the counter a random attempt id. The
24-byte secretbox nonce is header bytes 0-7, the lane's 8-byte salt, then the counter, so a changed header bit fails the
tag. In plaintext mode a 16-byte session cookie stands where the tag would.

What a datagram of the underlay costs around one inner packet:

    20 or 40 IP | 8 UDP | 16 header | 16 tag | 1 kind | inner packet      33 + 28 = 61 over IPv4, 33 + 48 = 81 over IPv6
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address
from typing import Final, NamedTuple, get_args

import msgspec

from tunrouter.core import bounds, packed, versions
from tunrouter.core.asking import RegisterAsk, RegisterTell, check_registers
from tunrouter.core.seam import Endpoint, relay_target
from tunrouter.errors import ProtocolError

FIRST: Final = 1
ANSWER: Final = 2
REJECT: Final = 3
DATA: Final = 4

HEADER: Final = struct.Struct(">BBHIQ")
HEADER_BYTES: Final = 16
TAG_BYTES: Final = 16
SALT_BYTES: Final = 8
OVERHEAD: Final = HEADER_BYTES + TAG_BYTES + 1
BODY: Final = HEADER_BYTES + TAG_BYTES + 1
"""Offset of the body in a data datagram; the kind stands one byte before."""

KEEPALIVE: Final = 0
PACKET: Final = 1
PACKET_PARTIAL: Final = 2
"""One inner packet whose L4 checksum field holds only the pseudo-header sum."""
CONTROL: Final = 3
RELAY: Final = 4
"""One datagram of another session: see `RELAY_HEAD`."""
RELAY_HEAD: Final = struct.Struct(">BQQ")
"""Hops left, target (0: the receiver), origin (0: the sender); the datagram, of any type, follows."""
RELAY_OVERHEAD: Final = OVERHEAD + RELAY_HEAD.size

SEALED_MODE: Final = 1
"""Flag of types 1 and 2: the sender has a password."""

NEED_PASSWORD: Final = 1
HAVE_NONE: Final = 2
TAG_FAILED: Final = 3
OTHER_VERSION: Final = 4
"""Flags of type 3, a bare header that echoes index and attempt id: why a first message cannot be used."""

IP_UDP_BYTES: Final = {4: 28, 6: 48}
POD_MARGIN: Final = 124
"""Underlay MTU minus pod MTU (1500 - 124 = 1376, Weave's): fits direct IPv4 and IPv6 and one relay over IPv4; one over
IPv6 carries 7 bytes less, which is a path MTU like any other."""
MIN_POD_MTU: Final = 576


def pod_mtu(underlay_mtu: int) -> int:
    """The MTU pods are born with, in bytes, over an underlay of `underlay_mtu`."""
    return max(MIN_POD_MTU, underlay_mtu - POD_MARGIN)


def inner_mtu(path_mtu: int, ip_version: int) -> int:
    """The largest inner packet, in bytes, that fits a path whose outer IP packets may have `path_mtu` bytes."""
    return path_mtu - IP_UDP_BYTES[ip_version] - OVERHEAD


def outer_bytes(endpoint: Endpoint, relays: int) -> int:
    """What the underlay adds to a datagram for `endpoint`: IP and UDP, and by relay another box.

    `relays`: the IP version between them, which nobody tells the origin.
    """
    if relay_target(endpoint):
        return RELAY_OVERHEAD + IP_UDP_BYTES[relays]
    return IP_UDP_BYTES[6 if ":" in endpoint[0] else 4]


class First(NamedTuple):
    """Payload of a type 1 message; nothing secret, for it can be replayed. Later versions have more behind it."""

    header: bytes
    version: int
    """The newest that the sender speaks."""
    sender: int
    target: int
    """Node id, 0 while unknown."""
    incarnation: int
    sequence: int
    workers: int


class Answer(NamedTuple):
    """Payload of a type 2 message. `signature` is over `tunrouter R` and the handshake hash before this payload."""

    header: bytes
    version: int
    """The newest that both speak."""
    sender: int
    target: int
    incarnation: int
    base: int
    """The responder's receiver index base."""
    workers: int
    public_key: bytes
    signature: bytes
    introduction: Introduction


class Introduction(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself inside a handshake's box; the rest comes by gossip."""

    name: str
    blocks: bytes
    """The record of its blocks, so that its first packet is known to come from one of them."""
    keep: bool
    """The sender wants the session to stay open without traffic."""
    seen: Endpoint | None
    """Where the sender sees the receiver; None if it sees it by relay."""


class Confirm(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The initiator's first transport message: its identity, signed over the final handshake hash."""

    public_key: bytes
    signature: bytes
    introduction: Introduction
    instead: int = 0
    """The receiver's index base of the keys that the sender replaces by these; 0 if it knows of none."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A heartbeat, or with padding a path MTU probe; answered by a `Pong` of the same id."""

    id: int
    keep: bool
    hears: bool = True
    """No sign of life of the receiver is overdue."""
    arrives: bool = False
    """While this goes by relay: what the receiver sends directly arrives at the sender all the same."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=3):
    id: int
    relayed: bool = False
    """The ping came by relay, whichever way this goes."""


class Close(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The sender forgets the session now."""

    reason: str


class Carried(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A handshake datagram inside a session that stands: floods of strangers' handshakes cannot hold it up."""

    datagram: bytes


class BenchAsk(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Start what measures with the sender's host; repeated under the same id until it is answered."""

    id: int


class BenchAnswer(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """What was started, or why nothing was: `refusal` is one of `BENCH_…`, and the rest is empty unless it is 0."""

    id: int
    refusal: int
    address: str = ""
    """IPv4, of the sender's own blocks; both ports are listened on there and nowhere else."""
    tcp: int = 0
    udp: int = 0
    token: bytes = b""
    """Opens every connection to the responder."""
    kernel: str = ""
    workers: int = 0


class Records(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Gossip, see gossip.py. `number` is acknowledged by the `acks` of one that goes the other way; 0 wants none."""

    acks: tuple[int, ...]
    number: int
    records: tuple[bytes, ...]


class Sums(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """64 sums of 8 bytes: of the leaves of `group`, or of all groups if it is 64."""

    group: int
    sums: bytes


class Have(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The versions of all that the sender has of the nodes with ids from `first` to `last`."""

    first: int
    last: int
    entries: bytes
    answer: bool
    """It answers another of the same range, and wants no answer itself."""


class Spare(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The sender has more neighbours than it wants: the receiver should keep others, if it can."""


class LeasesAsk(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Which addresses do your containers have, after this one? Repeated under the same id until it is answered."""

    id: int
    after: int


class LeasesAnswer(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """In order of address: the address, the container, the interface."""

    id: int
    leases: tuple[tuple[int, str, str], ...]
    more: bool


LEASES_BYTES: Final = bounds.MAX_CONTROL_BYTES - 40
LEASE_BYTES: Final = 12
"""Around the names of one."""

BENCH_BUSY: Final = 1
"""Somebody else is being measured with."""
BENCH_OFF: Final = 2
"""The peer's configuration forbids it."""


class Outlived(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Somebody has given up `node`, in this life of it, and takes no record of it: it should begin another one."""

    node: int
    incarnation: int


BENCH_FAILED: Final = 3
"""The responder did not start; the peer's log says why."""
BENCH_TOKEN_BYTES: Final = 16

AgentBody = BenchAsk | BenchAnswer | LeasesAsk | LeasesAnswer
"""What one agent says to another; sessions only carry it."""
GossipBody = Records | Sums | Have | Outlived
ControlBody = (
    Confirm
    | Ping
    | Pong
    | Close
    | Carried
    | BenchAsk
    | BenchAnswer
    | Records
    | Sums
    | Have
    | Outlived
    | Spare
    | RegisterAsk
    | RegisterTell
    | LeasesAsk
    | LeasesAnswer
)

_KINDS: Final = frozenset(body.__struct_config__.tag for body in get_args(ControlBody))
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[ControlBody] = msgspec.msgpack.Decoder(ControlBody)
_introduction = msgspec.msgpack.Decoder(Introduction)
_LENGTH: Final = struct.Struct(">H")


def encode_control(body: ControlBody) -> bytes:
    """A control body as length u16, then MessagePack; zeros may follow as padding."""
    encoded = _encoder.encode(body)
    return _LENGTH.pack(len(encoded)) + encoded


def decode_control(data: bytes) -> ControlBody | None:
    """One well-formed body with bounded names and blocks, None for a kind of a later version; else ProtocolError."""
    if len(data) < 2:
        raise ProtocolError("control body too short")
    (length,) = _LENGTH.unpack_from(data)
    if length > bounds.MAX_CONTROL_BYTES or 2 + length > len(data):
        raise ProtocolError("control body length")
    try:
        body = packed.read(_decoder, data[2 : 2 + length], "control body")
    except ProtocolError:
        if versions.is_later(data[2 : 2 + length], _KINDS):
            return None
        raise
    if isinstance(body, Confirm):
        check_introduction(body.introduction)
    elif isinstance(body, BenchAnswer):
        _check_bench(body)
    elif isinstance(body, Sums) and not (0 <= body.group <= 64 and len(body.sums) == 512):
        raise ProtocolError("sums")
    elif isinstance(body, Have) and not 0 <= body.first <= body.last < 1 << 64:
        raise ProtocolError("range of ids")
    elif isinstance(body, RegisterAsk | RegisterTell):
        check_registers(body)
    elif isinstance(body, LeasesAnswer):
        _check_leases(body)
    return body


def _check_leases(answer: LeasesAnswer) -> None:
    for address, container, interface in answer.leases:
        if not 0 <= address < 1 << 32 or not container.isprintable() or not interface.isprintable():
            raise ProtocolError("lease")


def _check_bench(answer: BenchAnswer) -> None:
    """A refusal may be one that later versions know."""
    if answer.refusal:
        return
    try:
        IPv4Address(answer.address)
    except ValueError:
        raise ProtocolError("bench address") from None
    ports = all(0 < port < 1 << 16 for port in (answer.tcp, answer.udp))
    if not ports or len(answer.token) != BENCH_TOKEN_BYTES or not 1 <= answer.workers <= bounds.MAX_WORKERS:
        raise ProtocolError("bench answer")
    if len(answer.kernel.encode()) > bounds.MAX_NAME_BYTES or not answer.kernel.isprintable():
        raise ProtocolError("bench kernel")


_FIRST: Final = struct.Struct(">16sBQQQQB")
_ANSWER: Final = struct.Struct(">16sBQQQIB32s64s")
_CLEAR_BYTES: Final = HEADER_BYTES + 32 + bounds.FIRST_PAYLOAD_BYTES
FIRST_BYTES: Final = {True: _CLEAR_BYTES + TAG_BYTES, False: _CLEAR_BYTES}
"""Length of a type 1 datagram in sealed and in plaintext mode."""


def encode_first(first: First) -> bytes:
    return _FIRST.pack(*first).ljust(bounds.FIRST_PAYLOAD_BYTES, b"\0")


def decode_first(payload: bytes) -> First:
    if len(payload) != bounds.FIRST_PAYLOAD_BYTES:
        raise ProtocolError("first message length")
    first = First(*_FIRST.unpack_from(payload))
    if not 1 <= first.workers <= bounds.MAX_WORKERS:
        raise ProtocolError("worker count")
    return first


def encode_answer(answer: Answer) -> bytes:
    return _ANSWER.pack(*answer[:-1]) + _encoder.encode(answer.introduction)


def decode_answer(payload: bytes) -> Answer:
    if len(payload) < _ANSWER.size:
        raise ProtocolError("answer length")
    introduction = decode_introduction(payload[_ANSWER.size :])
    answer = Answer._make((*_ANSWER.unpack_from(payload), introduction))
    if not 1 <= answer.workers <= bounds.MAX_WORKERS:
        raise ProtocolError("worker count")
    return answer


def decode_introduction(data: bytes) -> Introduction:
    introduction = packed.read(_introduction, data, "introduction")
    check_introduction(introduction)
    return introduction


def check_introduction(introduction: Introduction) -> None:
    check_name(introduction.name)
    if len(introduction.blocks) > bounds.MAX_BLOCKS_BYTES:
        raise ProtocolError("record of blocks")
    if introduction.seen is not None:
        check_endpoint(introduction.seen)


def check_name(name: str) -> None:
    """Raises ProtocolError for a name that is too long, or would spoil the operator's terminal."""
    if len(name.encode()) > bounds.MAX_NAME_BYTES or not name.isprintable():
        raise ProtocolError("node name")


def check_endpoint(endpoint: Endpoint) -> None:
    """Raises ProtocolError for anything but an address in its canonical form and a port."""
    address, port = endpoint
    try:
        canonical = str(ip_address(address)) == address
    except ValueError:
        canonical = False
    if not canonical or not 0 < port < 1 << 16:
        raise ProtocolError("endpoint")
