"""Who changes one nftables table: the transactions that touched it, as the kernel tells them to everybody.

     event  event  …  NEWGEN │ event  …  NEWGEN │ …
    └──── a transaction ────┘

Law (nfnetlink.h, nf_tables.h, nf_tables_commit): each thing that a transaction changes is an event, which names its
table first, and NEWGEN ends them and says who wrote. A transaction that changes nothing is not told. What did not fit
the socket's buffer is lost, and that is told: then nobody knows what was changed, and who asks has to look.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from tunrouter.edge.netlink.nft import (
    FAMILIES,
    NETLINK_NETFILTER,
    NFNLGRP_NFTABLES,
    SUBSYSTEM,
    TABLE,
    no_nftables,
)
from tunrouter.edge.netlink.wire import Hearing, attributes, text, text_of, waiting

NEWGEN: Final = SUBSYSTEM | 15
"""NFT_MSG_NEWGEN."""
GENERATION_ID, PROGRAM = 1, 3  # NFTA_GEN_ID, NFTA_GEN_PROC_NAME
BUFFER: Final = 8 << 20
"""Bytes: the kernel takes twice as many."""

_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = 4
"""Bytes of struct nfgenmsg; its first is the family."""


class Transaction(NamedTuple):
    generation: int
    """The rule set's, after it."""
    port: int
    """Of the socket that wrote it: for `nft` its process's id, if no other socket had taken that."""
    program: str
    """The name of the process that wrote it, as the kernel knows it: 15 characters."""


class Changes(NamedTuple):
    transactions: tuple[Transaction, ...]
    """Those that touched the table, in their order."""
    lost: bool
    """There may have been others."""


class Reader:
    """Of events as they come: a transaction may need several datagrams."""

    def __init__(self, family: str, table: str) -> None:
        self._family = FAMILIES[family]
        self._named = text(TABLE, table)[: 4 + len(table.encode()) + 1]
        self._touched = False

    def read(self, data: bytes) -> Iterator[Transaction]:
        """Those that ended here and touched the table. One attribute of an event is all that is looked at."""
        offset, last = 0, len(data) - _HEADER.size
        while offset <= last:
            length, kind, _, _, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                return
            body = offset + _HEADER.size
            if kind == NEWGEN:
                if self._touched:
                    yield _transaction(port, data[body + _GENERIC : offset + length])
                self._touched = False
            elif not self._touched and data.startswith(self._named, body + _GENERIC):
                self._touched = data[body] == self._family
            offset += (length + 3) & ~3


class Monitor(Hearing):
    """Wakes its reader when any rule set of this namespace changes. Raises HostError."""

    def __init__(self, family: str, table: str) -> None:
        self._reader = Reader(family, table)
        try:
            super().__init__(NETLINK_NETFILTER, (NFNLGRP_NFTABLES,), BUFFER)
        except OSError as error:
            raise no_nftables(error) from None

    def changes(self) -> Changes:
        """Since the last time, to the last one: of a transaction of many elements that is thousands of datagrams."""
        lost, found = False, list[Transaction]()
        while some := list(waiting(self._socket)):
            for data in some:
                if data is None:
                    lost = True
                else:
                    found.extend(self._reader.read(data))
        return Changes(tuple(found), lost)

    def drain(self) -> bool:
        """Whether the table was changed, or may have been."""
        transactions, lost = self.changes()
        return bool(transactions) or lost


def _transaction(port: int, said: bytes) -> Transaction:
    found = dict(attributes(said))
    generation = int.from_bytes(found.get(GENERATION_ID, b"")[:4], "big")
    return Transaction(generation, port, text_of(found.get(PROGRAM)))
