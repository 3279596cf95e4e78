"""Blocks as their node has them, and remembers them from one life to the next.

Law: the first block has the pods' gateway, so it is the first to be known and the last to go. A place is a block only
together with the range and the length of blocks that it was given under, so these are remembered with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Final, NamedTuple

from tunrouter.core.journal import BlockRow, ClusterRow

FIRST: Final = "first"
"""State of the block that has the pods' gateway: it is handed back last."""
HELD: Final = "held"
CLOSING: Final = "closing"
"""It is being handed back."""

CUT: Final = "cut"
"""Name of the row that says of which range the places are, and in blocks of which length."""


def cut(network: IPv4Network, length: int) -> ClusterRow:
    return ClusterRow(CUT, f"{network} {length}".encode())


def block_at(network: IPv4Network, length: int, place: int) -> IPv4Network:
    """The block of `length` bits at this place of the range."""
    return IPv4Network((int(network.network_address) + (place << (network.max_prefixlen - length)), length))


def kept(rows: Iterable[BlockRow], network: IPv4Network, length: int) -> list[BlockRow]:
    """What an earlier life has left, in the node's order. A place that the range has not is no block of it."""
    within = [row for row in rows if row.place < 1 << length - network.prefixlen]
    return sorted(within, key=lambda row: (row.state != FIRST, row.place))


class Own(NamedTuple):
    version: int
    state: str
    verified: bool
    """In this life."""
