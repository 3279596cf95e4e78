"""TCP ports of this network namespace on which somebody listens: /proc/net/tcp (proc(5))."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

TABLES: Final = (Path("/proc/thread-self/net/tcp"), Path("/proc/thread-self/net/tcp6"))
LISTEN: Final = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h."""
LOCAL, STATE, INODE = 1, 3, 9
"""Columns of a row."""


def listening(but: Collection[str] = ()) -> frozenset[int]:
    """Of all addresses, without those sockets, as descriptors lead to them. A table that cannot be read has none."""
    ports: set[int] = set()
    for table in TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        rows = (row for line in lines if len(row := line.split()) > INODE and row[STATE] == LISTEN)
        ports.update(int(row[LOCAL].rpartition(":")[2], 16) for row in rows if f"socket:[{row[INODE]}]" not in but)
    return frozenset(ports)
