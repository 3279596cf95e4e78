"""Records: what is read of older versions, and what nobody takes."""

from __future__ import annotations

import msgspec
import pytest

from tunrouter.core import bounds, keys, record
from tunrouter.core.record import Block, BlocksBody, Record
from tunrouter.errors import ProtocolError

IDENTITY = keys.Identity(b"i" * 32)


class OldBody(msgspec.Struct, frozen=True, array_like=True, tag=record.BLOCKS):
    """As the first version wrote it."""

    blocks: tuple[Block, ...]


def written(body: object, kind: int = record.BLOCKS) -> Record:
    data = record._HEAD.pack(kind, IDENTITY.public_key, 1, 1) + msgspec.msgpack.encode(body)
    return Record(data + IDENTITY.sign(record._SIGNS + data))


def test_a_record_without_a_cluster_is_of_none() -> None:
    found = written(OldBody((Block("10.32.1.0/24", 0),)))
    assert found.body == BlocksBody((Block("10.32.1.0/24", 0),), 0)
    assert record.genuine(found)


def test_a_cluster_travels_with_the_blocks_and_there_may_be_none() -> None:
    body = BlocksBody((), (1 << 64) - 1)
    assert record.write(IDENTITY, 1, 1, body).body == body


def test_what_is_no_cluster_is_refused() -> None:
    with pytest.raises(ProtocolError, match="cluster"):
        written(BlocksBody((), -1))


def test_the_longest_record_of_blocks_fits_a_handshake() -> None:
    blocks = tuple(Block(f"223.255.{200 + n}.128/25", (1 << 63) - 1) for n in range(bounds.MAX_BLOCKS_ANNOUNCED))
    assert len(record.write(IDENTITY, 1, 1, BlocksBody(blocks, (1 << 64) - 1)).data) <= bounds.MAX_BLOCKS_BYTES
