"""nftables: our own tables as atomic transactions, and a cheap way to notice that somebody changed them.

Law: tables are written by `nft -f -`, in one transaction each time, so the kernel never runs half a rule set. What is
frequent is done without a fork, over NETLINK_NETFILTER (nfnetlink.h, nf_tables.h): `Monitor` wakes on any change of the
namespace's rule sets, `generation` tells whether there was one and `fingerprint` whether it was ours, and `Elements`
come and go in a transaction that is refused where somebody else's came before it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import subprocess
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from tunrouter.edge.netlink.wire import (
    ACK,
    CREATE,
    DUMP,
    REQUEST,
    Hearing,
    Message,
    Wire,
    attribute,
    attributes,
    nested,
    text,
    text_of,
)
from tunrouter.errors import HostError

NETLINK_NETFILTER: Final = 12
NFNLGRP_NFTABLES: Final = 7
NFNL_SUBSYS_NFTABLES: Final = 10
SUBSYSTEM: Final = NFNL_SUBSYS_NFTABLES << 8
GETTABLE, GETCHAIN, GETRULE, GETSET, GETGEN = 1, 4, 7, 10, 16  # NFT_MSG_*
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
BATCH_BEGIN, BATCH_END, BATCH_GENERATION = 0x10, 0x11, 1  # NFNL_MSG_BATCH_*, NFNL_BATCH_GENID
TABLE: Final = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE
SET_NAME, SET_COUNT, GENERATION_ID = 2, 20, 1
ELEMENTS_SET, ELEMENTS, ELEMENT, ELEMENT_KEY, VALUE = 2, 3, 1, 1, 1  # NFTA_SET_ELEM_*, NFTA_LIST_ELEM, NFTA_DATA_VALUE
FAMILIES: Final = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
MAX_ERROR_CHARACTERS: Final = 300
NFT_SECONDS: Final = 20.0
MAX_MESSAGE: Final = 1 << 15
"""Bytes of a change without a fork: an attribute has at most 64 KiB."""

_GENERIC: Final = struct.Struct(">BBH")


class Elements(NamedTuple):
    """Keys of one set, each as its registers hold them."""

    family: str
    table: str
    name: str
    keys: frozenset[bytes]


def apply(commands: str) -> int:
    """Runs one transaction: all of `commands` or nothing. The number of the process that did it."""
    pid, said = _run(commands)
    if said:
        raise HostError(f"nftables refused our rules: {said}", "check the kernel's nf_tables support, or report this")
    return pid


def refusal(commands: str) -> str:
    """Why `commands` would be refused, and empty if they would not: the kernel tries them, and keeps nothing."""
    return _run(commands, "--check")[1]


def _run(commands: str, *options: str) -> tuple[int, str]:
    """Its process's number, and what it complains of."""
    try:
        with open(os.memfd_create("nft"), "w+") as whole:
            # Not by a pipe: were we killed while it is filled, the half that is in it might be a rule set, too.
            whole.write(commands)
            whole.seek(0)
            with subprocess.Popen(
                ["nft", *options, "-f", "-"], stdin=whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as process:
                complaint = _complaint(process)
    except FileNotFoundError:
        raise HostError("nft is not installed", "apt-get install nftables") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"nft did not answer within {NFT_SECONDS:.0f} s", "see dmesg, then try again") from None
    except OSError as error:
        raise HostError(f"nft cannot be started: {error.strerror}", "see which limits this process has") from None
    said = " ".join(complaint.split())[:MAX_ERROR_CHARACTERS]
    return process.pid, (said or f"exit code {process.returncode}") if process.returncode else ""


def _complaint(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=NFT_SECONDS)[1]
    except BaseException:
        process.kill()
        raise


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
        try:
            return query.generation()
        except OSError as error:
            raise no_nftables(error) from None


def fingerprint(*tables: tuple[str, str], without: Collection[str] = ()) -> bytes:
    """A digest of the tables' chains, rules, sets and elements as the kernel holds them; b"" if one is missing.

    The elements of the sets `without` are left out.
    """
    digest = hashlib.blake2b(digest_size=16)
    with _Query() as query:
        for family, table in tables:
            if not query.exists(family, table):
                return b""
            for part in query.contents(family, table, without):
                digest.update(part)
    return digest.digest()


def elements(of: Elements) -> Elements:
    """That set as the kernel holds it; without any where it is not there."""
    with _Query() as query:
        try:
            found = query.elements(FAMILIES[of.family], text(TABLE, of.table), of.name)
        except FileNotFoundError:
            found = []
    # One without a key is for all that nobody has: not one of ours.
    keys = (dict(attributes(dict(attributes(element)).get(ELEMENT_KEY, b""))).get(VALUE, b"") for element in found)
    return of._replace(keys=frozenset(map(bytes, keys)))


def replace(gone: Elements, come: Elements, generation: int) -> bool:
    """One transaction that takes `gone` out of a set and puts `come` in; False if it cannot be, or nobody knows.

    `generation` is of the rule set in which it can; afterwards it is the next one.
    """
    changes = [
        Message(SUBSYSTEM | kind, flags, _elements(each))
        for kind, flags, each in ((DELSETELEM, 0, gone), (NEWSETELEM, CREATE, come))
        if each.keys
    ]
    if any(len(change.body) > MAX_MESSAGE for change in changes):
        return False
    begin = _GENERIC.pack(0, 0, NFNL_SUBSYS_NFTABLES) + attribute(BATCH_GENERATION, generation.to_bytes(4, "big"))
    try:
        with _Query() as query:
            query.wire.tell_at_once(
                Message(BATCH_BEGIN, REQUEST, begin),
                *changes,
                last=Message(BATCH_END, REQUEST, _GENERIC.pack(0, 0, NFNL_SUBSYS_NFTABLES)),
            )
    except OSError:
        return False
    return True


def _elements(of: Elements) -> bytes:
    listed = (nested(ELEMENT, nested(ELEMENT_KEY, attribute(VALUE, key))) for key in sorted(of.keys))
    named = text(TABLE, of.table) + text(ELEMENTS_SET, of.name)
    return _GENERIC.pack(FAMILIES[of.family], 0, 0) + named + nested(ELEMENTS, *listed)


class _Query:
    """One request socket."""

    def __init__(self) -> None:
        try:
            self.wire = Wire(NETLINK_NETFILTER)
        except OSError as error:
            raise no_nftables(error) from None

    def __enter__(self) -> _Query:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def exists(self, family: str, table: str) -> bool:
        try:
            self._one(GETTABLE, FAMILIES[family], text(TABLE, table))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
                return False
            raise
        return True

    def generation(self) -> int:
        found = dict(attributes(self._one(GETGEN, 0, b"")))
        return int.from_bytes(found.get(GENERATION_ID, b""), "big")

    def contents(self, family: str, table: str, without: Collection[str]) -> Iterator[bytes]:
        number, named = FAMILIES[family], text(TABLE, table)
        for kind in (GETCHAIN, GETRULE):
            for payload in self._dump(kind, number, named):
                if _text_of(payload, TABLE) == table:  # old kernels ignore the filter of a dump
                    yield payload
        for payload in self._dump(GETSET, number, named):
            if _text_of(payload, TABLE) != table:
                continue
            name = _text_of(payload, SET_NAME)
            if name in without:
                yield b"".join(attribute(kind, bytes(data)) for kind, data in attributes(payload) if kind != SET_COUNT)
            else:
                yield payload
                # They come in hash order, many in a message: sorted, so that equal sets have equal digests.
                yield from sorted(self.elements(number, named, name))

    def elements(self, family: int, table: bytes, name: str) -> list[bytes]:
        found = (dict(attributes(part)) for part in self._dump(GETSETELEM, family, table + text(ELEMENTS_SET, name)))
        return [bytes(each) for part in found for _, each in attributes(part.get(ELEMENTS, b""))]

    def _one(self, kind: int, family: int, body: bytes) -> bytes:
        return next(iter(self._ask(kind, family, body, ACK)), b"")

    def _dump(self, kind: int, family: int, body: bytes) -> list[bytes]:
        return self._ask(kind, family, body, DUMP)

    def _ask(self, kind: int, family: int, body: bytes, flags: int) -> list[bytes]:
        found = self.wire.ask(SUBSYSTEM | kind, _GENERIC.pack(family, 0, 0) + body, flags)
        return [each[_GENERIC.size :] for each in found]


class Monitor(Hearing):
    """Wakes its reader when anybody changes any nftables rule set of this namespace (iptables-nft included)."""

    def __init__(self) -> None:
        try:
            super().__init__(NETLINK_NETFILTER, (NFNLGRP_NFTABLES,))
        except OSError as error:
            raise no_nftables(error) from None


def no_nftables(error: OSError) -> HostError:
    return HostError(f"nftables: {error.strerror}", "use a kernel with nf_tables (3.13 or newer)")


def _text_of(payload: bytes, wanted: int) -> str:
    return next((text_of(data) for kind, data in attributes(payload) if kind == wanted), "")
