"""Who holds a UDP port of this network namespace: /proc/net/udp, and the descriptors of processes (proc(5)).

Law: nothing is bound to find out. A socket of a process that we may not see, or of the kernel itself, has no holder.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

TABLES: Final = ("/proc/thread-self/net/udp", "/proc/thread-self/net/udp6")
LOCAL, INODE = 1, 9
"""Columns of a row, counted from the number in front."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Holder(NamedTuple):
    pid: int
    """0: nobody whom we can see."""
    name: str
    command: str
    addresses: tuple[Address, ...]
    """That it is bound to; the unspecified ones are all."""


def holders(port: int) -> list[Holder]:
    """By pid."""
    bound = dict(_bound(port))
    found: dict[int, set[Address]] = {}
    for inode, pids in _processes(set(bound)).items():
        for pid in pids or {0}:
            found.setdefault(pid, set()).update(bound[inode])
    return [Holder(pid, *_names(pid), tuple(sorted(there, key=str))) for pid, there in sorted(found.items())]


def _bound(port: int) -> Iterator[tuple[int, set[Address]]]:
    rows: dict[int, set[Address]] = {}
    for table in TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:  # without IPv6
            continue
        for line in lines:
            columns = line.split()
            address, _, number = columns[LOCAL].partition(":")
            if int(number, 16) == port:
                rows.setdefault(int(columns[INODE]), set()).add(_address(address))
    yield from rows.items()


def _address(text: str) -> Address:
    """Words of four bytes, each as this machine orders them."""
    words = (int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    packed = b"".join(words)
    return ipaddress.ip_address(packed)


def _processes(inodes: set[int]) -> dict[int, set[int]]:
    """The processes that have each socket."""
    found: dict[int, set[int]] = {inode: set() for inode in inodes}
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode}
    for pid in filter(str.isdecimal, os.listdir("/proc")) if wanted else ():
        for target in open_by(pid):
            if target in wanted:
                found[wanted[target]].add(int(pid))
    return found


def open_by(pid: str) -> Iterator[str]:
    """What its descriptors lead to; nothing of one that is gone by now, or is not ours to see."""
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):
        for descriptor in os.listdir(directory):
            with suppress(OSError):
                yield os.readlink(f"{directory}/{descriptor}")


def _names(pid: int) -> tuple[str, str]:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "", ""
    return name, words
