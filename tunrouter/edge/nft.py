"""nftables: our own tables as atomic transactions, and a cheap way to notice that somebody changed them.

Law: tables are written by `nft -f -` only, one transaction each time, so the kernel never runs half a rule set. Looking
is done without a fork, over NETLINK_NETFILTER (nfnetlink.h, nf_tables.h): `Monitor` wakes on any change of the
namespace's rule sets, `generation` tells whether there was one, and `fingerprint` whether it was ours.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Final

from tunrouter.errors import HostError

NETLINK_NETFILTER: Final = 12
NFNLGRP_NFTABLES: Final = 7
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
SUBSYSTEM: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES
GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, NEWGEN, GETGEN = 1, 4, 7, 10, 13, 15, 16
TABLE_ATTRIBUTE: Final = 1  # NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE
SET_NAME, ELEMENT_SET_NAME, ELEMENT_LIST, GENERATION_ID = 2, 2, 3, 1
REQUEST, ACK, DUMP = 1, 4, 0x300
ERROR, DONE = 2, 3
FAMILIES: Final = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
MAX_ERROR_CHARACTERS: Final = 300
NFT_SECONDS: Final = 20.0
DRAIN_LIMIT: Final = 1024
"""Notifications read at one wake-up; what is left wakes the loop again."""

_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct(">BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")


def apply(commands: str) -> None:
    """Runs one transaction: all of `commands` or nothing."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=commands, capture_output=True, text=True, timeout=NFT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise HostError("nft is not installed", "apt-get install nftables") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"nft did not answer within {NFT_SECONDS:.0f} s", "see dmesg, then try again") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:MAX_ERROR_CHARACTERS]
        raise HostError(f"nftables refused our rules: {said}", "check the kernel's nf_tables support, or report this")


def delete(*tables: tuple[str, str]) -> list[str]:
    """Removes tables (family, name) in one transaction; answers which of them existed."""
    there = [(family, name) for family, name in tables if present(family, name)]
    if there:
        apply("".join(f"delete table {family} {name}\n" for family, name in there))
    return [f"table {family} {name}" for family, name in there]


def present(family: str, table: str) -> bool:
    with _Query() as query:
        return query.exists(family, table)


def generation() -> int:
    """The namespace's rule set generation: equal numbers mean that nothing was changed by anybody."""
    with _Query() as query:
        return query.generation()


def fingerprint(*tables: tuple[str, str]) -> bytes:
    """A digest of the tables' chains, rules, sets and elements as the kernel holds them; b"" if one is missing."""
    digest = hashlib.blake2b(digest_size=16)
    with _Query() as query:
        for family, table in tables:
            if not query.exists(family, table):
                return b""
            for part in query.contents(family, table):
                digest.update(part)
    return digest.digest()


class _Query:
    """One request socket; every answer is read to its end, so no reply of one request is taken for another's."""

    def __init__(self) -> None:
        self._socket = _netfilter_socket()
        self._socket.settimeout(5.0)
        self._sequence = 0

    def __enter__(self) -> _Query:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exists(self, family: str, table: str) -> bool:
        try:
            self._one(GETTABLE, FAMILIES[family], _text(TABLE_ATTRIBUTE, table))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
                return False
            raise
        return True

    def generation(self) -> int:
        for kind, data in _attributes(self._one(GETGEN, 0, b"")):
            if kind == GENERATION_ID:
                return int.from_bytes(data, "big")
        return 0

    def contents(self, family: str, table: str) -> Iterator[bytes]:
        number, named = FAMILIES[family], _text(TABLE_ATTRIBUTE, table)
        for kind in (GETCHAIN, GETRULE):
            for payload in self._dump(kind, number, named):
                if _text_of(payload, TABLE_ATTRIBUTE) == table:  # old kernels ignore the filter of a dump
                    yield payload
        for payload in self._dump(GETSET, number, named):
            if _text_of(payload, TABLE_ATTRIBUTE) != table:
                continue
            yield payload
            name = _text_of(payload, SET_NAME)
            lists = self._dump(GETSETELEM, number, named + _text(ELEMENT_SET_NAME, name))
            # Elements come in hash order, many in a message: sorted, so that equal sets have equal digests.
            yield from sorted(element for part in lists for element in _elements(part))

    def _one(self, kind: int, family: int, attributes: bytes) -> bytes:
        # GETGEN and GETTABLE answer with one message and, asked so, an acknowledgement: both are read.
        return next(iter(list(self._exchange(kind, REQUEST | ACK, family, attributes))), b"")

    def _dump(self, kind: int, family: int, attributes: bytes) -> list[bytes]:
        return list(self._exchange(kind, REQUEST | DUMP, family, attributes))

    def _exchange(self, kind: int, flags: int, family: int, attributes: bytes) -> Iterator[bytes]:
        self._sequence += 1
        body = _GENERIC.pack(family, 0, 0) + attributes
        head = _HEADER.pack(_HEADER.size + len(body), SUBSYSTEM | kind, flags, self._sequence, 0)
        self._socket.send(head + body)
        while True:
            for answered, sequence, payload in _messages(self._socket.recv(1 << 17)):
                if sequence != self._sequence:
                    continue
                if answered == DONE:
                    return
                if answered == ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield payload[_GENERIC.size :]


class Monitor:
    """Wakes its reader when anybody changes any nftables rule set of this namespace (iptables-nft included)."""

    def __init__(self) -> None:
        self._socket = _netfilter_socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Empties the socket; True if there was something. Lost notifications (ENOBUFS) count as something."""
        seen = False
        for _ in range(DRAIN_LIMIT):
            try:
                seen = bool(self._socket.recv(1 << 16)) or seen
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                seen = True
        return seen

    def close(self) -> None:
        self._socket.close()


def _netfilter_socket() -> socket.socket:
    try:
        found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        found.bind((0, 0))
    except OSError as error:
        raise HostError(f"nftables: {error.strerror}", "use a kernel with nf_tables (3.13 or newer)") from None
    return found


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _elements(payload: bytes) -> Iterator[bytes]:
    for kind, data in _attributes(payload):
        if kind == ELEMENT_LIST:
            yield from (element for _, element in _attributes(data))


def _text(kind: int, value: str) -> bytes:
    data = value.encode() + b"\0"
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _text_of(payload: bytes, wanted: int) -> str:
    return next((data.rstrip(b"\0").decode() for kind, data in _attributes(payload) if kind == wanted), "")
