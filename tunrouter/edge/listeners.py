"""TCP ports of this network namespace on which somebody listens: /proc/net/tcp (proc(5))."""

from __future__ import annotations

from pathlib import Path
from typing import Final

TABLES: Final = (Path("/proc/thread-self/net/tcp"), Path("/proc/thread-self/net/tcp6"))
LISTEN: Final = "0A"
"""TCP_LISTEN of the kernel's tcp_states.h."""


def listening() -> frozenset[int]:
    """Of all addresses. A table that cannot be read has none."""
    ports: set[int] = set()
    for table in TABLES:
        try:
            rows = table.read_text().splitlines()[1:]
        except OSError:
            continue
        fields = (row.split() for row in rows)
        ports.update(int(row[1].rpartition(":")[2], 16) for row in fields if len(row) > 3 and row[3] == LISTEN)
    return frozenset(ports)
