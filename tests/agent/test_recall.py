"""What a disk has of earlier lives, and whether it may be another machine's copy."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tunrouter.agent import recall, rows
from tunrouter.core.holdings import FIRST
from tunrouter.core.journal import BlockRow, ClusterRow, Persist, Row
from tunrouter.edge.store import Store

BLOCK = BlockRow(300, 1, FIRST)


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "boot_id"
    path.write_text("the first boot\n")
    monkeypatch.setattr(recall, "BOOT_ID", path)
    return path


def life(tmp_path: Path, *written: Row) -> recall.Kept:
    """Begins, writes these, and ends."""
    with closing(Store(tmp_path / "state")) as store:
        kept = recall.recall(store)
        store.write(rows.changes(Persist(1, {row.key: row for row in written}))).result(10.0)
    return kept


def test_a_disk_may_be_a_copy_until_a_life_of_this_boot_has_ruled_it_out(tmp_path: Path, boot: Path) -> None:
    assert life(tmp_path, BLOCK).moved is None, "its first life"
    assert life(tmp_path).moved is None
    boot.write_text("the second boot\n")
    moved = life(tmp_path).moved
    assert moved == ClusterRow(recall.BOOT, b"the second boot")
    assert life(tmp_path).moved == moved, "the life before ended at once"
    assert life(tmp_path, moved).moved == moved
    assert life(tmp_path).moved is None


def test_a_disk_without_blocks_promises_nothing_that_a_copy_could_give_away(tmp_path: Path, boot: Path) -> None:
    life(tmp_path)
    boot.write_text("the second boot\n")
    assert life(tmp_path, BLOCK).moved is None
    assert life(tmp_path).moved is None
