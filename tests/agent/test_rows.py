"""The core's rows on a real disk: they come back as they were put."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

from tunrouter.agent import rows
from tunrouter.core.journal import TABLES, BlockRow, ClusterRow, Journal, LeaseRow, Persist, RegisterRow, Row
from tunrouter.core.registers import BLOCK, Registers
from tunrouter.edge import store

LARGEST = (1 << 64) - 1
ROWS: list[Row] = [
    RegisterRow(1, 7, (0, 0, 0), (0, 0, 0), 0, 0, b""),
    RegisterRow(2, 7, (3, 9, LARGEST), (3, 8, 1 << 63), 12, (1 << 63) - 1, bytes(range(256))),
    RegisterRow(LARGEST, LARGEST, (LARGEST,) * 3, (LARGEST,) * 3, LARGEST, LARGEST, b""),
    BlockRow(4095, LARGEST, "own"),
    LeaseRow(IPv4Address("10.32.0.2"), "a container", "eth0", 0),
    LeaseRow(IPv4Address("10.32.0.3"), "net/sandbox", "eth0", 8, "net/default/web-0"),
    LeaseRow(IPv4Address("255.255.255.254"), "", "", 1 << 40),
    ClusterRow("id", b"\0\xff"),
]


def test_every_kind_of_row_comes_back_as_it_was(tmp_path: Path) -> None:
    journal = Journal()
    for row in ROWS:
        journal.put(row)
    journal.forget(("lease", 1))
    batch = journal.take()
    assert batch is not None
    with closing(store.Store(tmp_path)) as disk:
        disk.write(rows.changes(batch)).result(10.0)
    with closing(store.Store(tmp_path)) as disk:
        assert sorted(rows.recall(disk.rows()), key=repr) == sorted(ROWS, key=repr)
        for row in ROWS:
            journal.forget(row.key)
        batch = journal.take()
        assert batch is not None
        disk.write(rows.changes(batch)).result(10.0)
        assert disk.rows() == []


def test_the_store_has_a_table_for_every_kind_of_row() -> None:
    assert set(store.TABLES) == set(TABLES)


def test_the_whole_range_in_blocks_is_a_small_table(tmp_path: Path) -> None:
    """4,096 blocks: what an elector has on disk, and in memory."""
    ballots = [(3, number % 40 + 1, number << 40) for number in range(4096)]
    nodes = [number % 800 << 45 for number in range(4096)]
    table = [RegisterRow(BLOCK, at, ballot, ballot, 5, nodes[at], b"") for at, ballot in enumerate(ballots)]
    with closing(store.Store(tmp_path)) as disk:
        disk.write(rows.changes(Persist(1, {row.key: row for row in table}))).result(10.0)
    assert (tmp_path / "state.db").stat().st_size <= 1 << 20
    with closing(store.Store(tmp_path)) as disk:
        tracemalloc.start()
        registers = Registers(Journal())
        registers.restore([row for row in rows.recall(disk.rows()) if isinstance(row, RegisterRow)], 3)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(registers) == 4096
    assert used <= 2 << 20
