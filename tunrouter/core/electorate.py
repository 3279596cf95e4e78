"""Who decides about registers: the electors of one epoch, and how the first ones are found.

Law: 1, 3 or 5 electors, and a majority of them decides. An elector is a node with the id of its disk: one that lost its
disk is another elector, for it has forgotten what it promised. The first electors are named by a majority of those who
may found a cluster, and those are fixed by what their operators said, before anybody knows anybody.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from tunrouter.core import packed
from tunrouter.errors import ProtocolError

SIZES: Final = (1, 3, 5)


class Elector(NamedTuple):
    node: int
    disk: int
    """Random, kept beside what it has promised."""


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The electors of one epoch of one cluster."""

    cluster: int
    epoch: int
    electors: tuple[Elector, ...]
    by_hand: bool = False
    """The operator named them: they are not added to by themselves."""

    @property
    def nodes(self) -> frozenset[int]:
        return frozenset(elector.node for elector in self.electors)

    @property
    def quorum(self) -> int:
        return majority(len(self.electors))


def majority(count: int) -> int:
    return count // 2 + 1


def largest_size(count: int) -> int:
    """The most electors that so many nodes can give."""
    return max((size for size in SIZES if size <= count), default=1)


def encode(configuration: Configuration) -> bytes:
    return msgspec.msgpack.encode(configuration)


_decoder: Final = msgspec.msgpack.Decoder(Configuration)


def decode(data: bytes) -> Configuration:
    """Raises ProtocolError."""
    configuration = packed.read(_decoder, data, "configuration")
    check(configuration)
    return configuration


def check(configuration: Configuration) -> None:
    """Raises ProtocolError for what is none."""
    electors = configuration.electors
    numbers = [configuration.cluster, configuration.epoch, *(n for elector in electors for n in elector)]
    if len(electors) not in SIZES or len(configuration.nodes) < len(electors):
        raise ProtocolError("electors")
    if not all(0 < number < 1 << 64 for number in numbers):
        raise ProtocolError("configuration")


class Founding(msgspec.Struct, frozen=True, array_like=True):
    """What operators said to the nodes that found a cluster; those who were told the same found it together."""

    count: int = 0
    """A majority of so many nodes; or:"""
    seed: tuple[str, ...] = ()
    """a majority of these, by nickname, peer name or id."""

    @property
    def quorum(self) -> int:
        return majority(self.size)

    @property
    def size(self) -> int:
        return len(self.seed) or self.count

    @property
    def id(self) -> int:
        """In place of a cluster's id, while there is none."""
        data = b"tunrouter founding" + msgspec.msgpack.encode(self)
        return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
