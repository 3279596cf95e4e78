"""Whether a legacy iptables table changed, without a fork: these tables send no notifications.

The kernel hands the whole table out by getsockopt (x_tables.h, ip_tables.h: IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES). Its
counters and scratch words are blanked and the rest is digested. Law: a table is only asked for when the namespace has
it already, because asking would load it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import struct
from pathlib import Path
from typing import Final

from tunrouter.errors import HostError

LOADED: Final = {4: Path("/proc/thread-self/net/ip_tables_names"), 6: Path("/proc/thread-self/net/ip6_tables_names")}
GET_INFO, GET_ENTRIES = 64, 65
INFO_BYTES: Final = 84
ENTRIES_HEADER: Final = 40
NAME_BYTES: Final = 32
NEXT_OFFSET: Final = {4: 90, 6: 142}
"""Where an entry (struct ipt_entry, ip6t_entry) has the distance to the next one."""
VOLATILE: Final = {4: (92, 112), 6: (144, 168)}
"""Where it has `comefrom` and its counters."""
MAX_TABLE_BYTES: Final = 64 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def loaded(version: int) -> bool:
    """Whether this namespace has a legacy filter table for IPv4 or IPv6."""
    try:
        return "filter" in LOADED[version].read_text().split()
    except OSError:
        return False


def fingerprint(version: int) -> bytes:
    """A digest of the filter table's rules and policies, b"" where there is none. Raises HostError."""
    if not loaded(version):
        return b""
    family, level = (socket.AF_INET, socket.IPPROTO_IP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_IPV6)
    try:
        return _digest(version, family, level)
    except PermissionError:
        what = f"changes of {'ip6tables' if version == 6 else 'iptables'}-legacy go unnoticed: it needs CAP_NET_RAW"
        raise HostError(what, "give the agent that capability, as the unit of `make install-service` does") from None


def _digest(version: int, family: int, level: int) -> bytes:
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as query:
        info = _ask(query.fileno(), level, GET_INFO, struct.pack("=32s", b"filter").ljust(INFO_BYTES, b"\0"))
        size = struct.unpack_from("=I", info, INFO_BYTES - 4)[0]
        if size > MAX_TABLE_BYTES:
            return info
        asked = struct.pack("=32sI", b"filter", size).ljust(ENTRIES_HEADER + size, b"\0")
        table = bytearray(_ask(query.fileno(), level, GET_ENTRIES, asked)[ENTRIES_HEADER:])
    _blank(table, version)
    return hashlib.blake2b(table, digest_size=16).digest()


def _ask(descriptor: int, level: int, option: int, question: bytes) -> bytes:
    # socket.getsockopt() has no way to hand the question in.
    buffer = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint32(len(question))
    if _libc.getsockopt(descriptor, level, option, buffer, ctypes.byref(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw[: length.value]


def _blank(table: bytearray, version: int) -> None:
    start, end = VOLATILE[version]
    offset = 0
    while offset + end <= len(table):
        table[offset + start : offset + end] = bytes(end - start)
        step = struct.unpack_from("=H", table, offset + NEXT_OFFSET[version])[0]
        if not step:
            return
        offset += step
