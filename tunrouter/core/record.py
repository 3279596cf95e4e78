"""One gossip record: what one node says of itself, signed, and in an order of its own.

    | kind u8 | public key 32 | incarnation u64 | sequence u64 | body, MessagePack … | signature 64 |

Law: only the owner of the key writes a record, and a node's id is the hash of its key, so a record needs no other
record to be checked. Of two records of one kind and node the greater version is the newer: incarnation, then sequence,
then digest. The digest only decides between records that a node should never have signed both of, so that even then all
views agree. Bytes travel as they were signed: fields that a later version adds reach those who know them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b
from ipaddress import IPv4Network
from typing import Final

import msgspec

from tunrouter.core import bounds, electorate, keys, packed, seam, wire
from tunrouter.core.electorate import Configuration
from tunrouter.errors import ProtocolError

NODE: Final = 1
LINKS: Final = 2
BLOCKS: Final = 3
CLUSTER: Final = 4
KINDS: Final = 8
"""Kinds are smaller; those that this version does not know are passed on all the same."""

_SIGNS: Final = b"tunrouter G"
_HEAD: Final = struct.Struct(">B32sQQ")


class NodeBody(msgspec.Struct, frozen=True, array_like=True, tag=NODE):
    """Who it is and where it can be reached."""

    name: str
    pod_mtu: int
    endpoints: tuple[seam.Endpoint, ...]
    uid: str = ""
    """Of its object in the cluster's API; empty where there is none."""


class Link(msgspec.Struct, frozen=True, array_like=True):
    """A neighbour that is heard and hears."""

    node: int
    rtt: int
    """Class, see `rtt_class`."""


class LinksBody(msgspec.Struct, frozen=True, array_like=True, tag=LINKS):
    links: tuple[Link, ...]


class Block(msgspec.Struct, frozen=True, array_like=True):
    network: str
    """`address/length`."""
    version: int
    """Of the register that gave it to the node; 0 for a block that the operator gave."""


class BlocksBody(msgspec.Struct, frozen=True, array_like=True, tag=BLOCKS):
    blocks: tuple[Block, ...]
    cluster: int = 0
    """Whose registers the versions are of; 0 if there are none, or it is not known yet."""


class ClusterBody(msgspec.Struct, frozen=True, array_like=True, tag=CLUSTER):
    """Which cluster the node belongs to, and what it has to do with who decides there."""

    cluster: int
    """0 while it belongs to none."""
    disk: int
    """Names it as an elector, see electorate.py."""
    founding: int
    """Common to those who found a cluster together; 0 for all others."""
    configuration: Configuration | None
    """The electors of now, if this node is one of them and serves."""
    removed: tuple[tuple[int, int], ...] = ()
    """Nodes, with their incarnation, that were removed from this one."""


Body = NodeBody | LinksBody | BlocksBody | ClusterBody
_KIND: Final[dict[type[Body], int]] = {NodeBody: NODE, LinksBody: LINKS, BlocksBody: BLOCKS, ClusterBody: CLUSTER}


class Record:
    """A well-formed record. Its signature is not checked yet: see `genuine`. Shared freely, for it never changes."""

    __slots__ = ("body", "data", "digest", "incarnation", "key", "kind", "node", "public_key", "sequence", "verified")

    def __init__(self, data: bytes) -> None:
        """Raises ProtocolError for what is no record, or holds a body that its kind does not allow."""
        if not _HEAD.size + keys.SIGNATURE_BYTES < len(data) <= bounds.MAX_RECORD_BYTES:
            raise ProtocolError("record length")
        self.kind, self.public_key, self.incarnation, self.sequence = _HEAD.unpack_from(data)
        if not 0 < self.kind < KINDS:
            raise ProtocolError("record kind")
        self.node = keys.node_id(self.public_key)
        if self.node == seam.SELF:
            raise ProtocolError("record of nobody")
        self.data = data
        self.key = record_key(self.node, self.kind)
        self.digest = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
        self.body = _read(self.kind, data[_HEAD.size : -keys.SIGNATURE_BYTES])
        self.verified = False

    @property
    def version(self) -> tuple[int, int, int]:
        return self.incarnation, self.sequence, self.digest

    def __repr__(self) -> str:
        return f"Record(kind {self.kind} of {self.node:016x}, {self.incarnation}.{self.sequence})"


Read = Callable[[bytes], Record]
"""Bytes of a peer to a record; raises ProtocolError. A simulation of many nodes in one process shares the results."""


def read(data: bytes) -> Record:
    return Record(data)


def genuine(record: Record) -> bool:
    """Whether the node itself signed it; about 60 µs."""
    if not record.verified:
        signed, signature = record.data[: -keys.SIGNATURE_BYTES], record.data[-keys.SIGNATURE_BYTES :]
        record.verified = keys.verify(record.public_key, _SIGNS + signed, signature)
    return record.verified


def write(identity: keys.Identity, incarnation: int, sequence: int, body: Body) -> Record:
    """Raises ProtocolError for a body that nobody would take."""
    kind = kind_of(body)
    data = _HEAD.pack(kind, identity.public_key, incarnation, sequence) + msgspec.msgpack.encode(body)
    return Record(data + identity.sign(_SIGNS + data))


def kind_of(body: Body) -> int:
    return _KIND[type(body)]


def record_key(node: int, kind: int) -> int:
    """One number for a node and a kind; ordered by node."""
    return node * KINDS + kind


# --- what bodies may hold -------------------------------------------------------------------------------------------
_decoders: Final[dict[int, msgspec.msgpack.Decoder[Body]]] = {
    kind: msgspec.msgpack.Decoder(body) for body, kind in _KIND.items()
}


def _read(kind: int, data: bytes) -> Body | None:
    """None for a kind of a later version."""
    decoder = _decoders.get(kind)
    if decoder is None:
        return None
    what = f"record of kind {kind}"
    body = packed.read(decoder, data, what)
    try:
        _check(body)
    except ValueError as error:
        raise ProtocolError(f"{what}: {error}") from None
    return body


def _check(body: Body) -> None:
    """Raises ValueError or ProtocolError."""
    match body:
        case NodeBody():
            wire.check_name(body.name)
            if len(body.endpoints) > bounds.MAX_ENDPOINTS:
                raise ProtocolError("too many endpoints")
            for endpoint in body.endpoints:
                wire.check_endpoint(endpoint)
            if len(body.uid) > bounds.MAX_UID or not body.uid.isascii() or not (body.uid or "-").isprintable():
                raise ProtocolError("uid")
        case LinksBody():
            if len(body.links) > bounds.MAX_LINKS or len({link.node for link in body.links}) < len(body.links):
                raise ProtocolError("too many links, or one twice")
            if any(not 0 < link.node < 1 << 64 or not 0 <= link.rtt < RTT_CLASSES for link in body.links):
                raise ProtocolError("link")
        case BlocksBody():
            _check_blocks(body)
        case ClusterBody():
            _check_cluster(body)


def _check_blocks(body: BlocksBody) -> None:
    networks = {block.network for block in body.blocks}
    if len(body.blocks) > bounds.MAX_BLOCKS_ANNOUNCED or len(networks) < len(body.blocks):
        raise ProtocolError("too many blocks, or one twice")
    if not 0 <= body.cluster < 1 << 64:
        raise ProtocolError("cluster")
    for block in body.blocks:
        if str(IPv4Network(block.network)) != block.network or not 0 <= block.version < 1 << 63:
            raise ProtocolError("block")


def _check_cluster(body: ClusterBody) -> None:
    numbers = [body.cluster, body.disk, body.founding, *(number for pair in body.removed for number in pair)]
    if len(body.removed) > bounds.MAX_REMOVED or not all(0 <= number < 1 << 64 for number in numbers):
        raise ProtocolError("cluster")
    if body.configuration is not None:
        electorate.check(body.configuration)


# --- round trips ------------------------------------------------------------------------------------------------------
RTT_CLASSES: Final = 32
RTT_STEP: Final = 1.5
RTT_LEAST: Final = 1e-4
"""Seconds: the upper end of class 0. Each class ends `RTT_STEP` times later, the last after half a minute."""
RTT_DEAD_BAND: Final = 0.2
"""A round trip leaves its class only when it lies this share beyond its ends: costs that all see do not flap."""


def rtt_class(seconds: float, before: int | None = None) -> int:
    """The class of a round trip; `before` is the one that was told last, which has the benefit of the doubt."""
    if before is not None:
        low, high = class_seconds(before) / RTT_STEP, class_seconds(before)
        if low * (1 - RTT_DEAD_BAND) <= seconds <= high * (1 + RTT_DEAD_BAND) or (before == 0 and seconds <= high):
            return before
    for number in range(RTT_CLASSES - 1):
        if seconds <= class_seconds(number):
            return number
    return RTT_CLASSES - 1


_LONGEST: Final = tuple(RTT_LEAST * RTT_STEP**number for number in range(RTT_CLASSES))


def class_seconds(number: int) -> float:
    """The longest round trip of a class."""
    return _LONGEST[number]
