"""TCP ports of this network namespace on which somebody listens: /proc/net/tcp (proc(5))."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from tunrouter.edge.holders import open_by

TABLES: Final = (Path("/proc/thread-self/net/tcp"), Path("/proc/thread-self/net/tcp6"))
LISTEN: Final = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h."""
LOCAL, STATE, INODE = 1, 3, 9
"""Columns of a row."""


def listening(but: Collection[int] = ()) -> frozenset[int]:
    """Of all addresses, without sockets of those processes. A table that cannot be read has none."""
    left_out = {target for pid in but for target in open_by(str(pid))}
    ports: set[int] = set()
    for table in TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        rows = (row for line in lines if len(row := line.split()) > INODE and row[STATE] == LISTEN)
        ports.update(int(row[LOCAL].rpartition(":")[2], 16) for row in rows if f"socket:[{row[INODE]}]" not in left_out)
    return frozenset(ports)
