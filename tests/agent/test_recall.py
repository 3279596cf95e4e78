"""What a disk has of earlier lives, and whether it may be another machine's copy."""

from __future__ import annotations

from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.core.villages import local
from tunrouter.agent import recall, rows
from tunrouter.core.holdings import CLOSING, FIRST, HELD, cut
from tunrouter.core.journal import BlockRow, ClusterRow, Persist, Row
from tunrouter.core.node import Node
from tunrouter.core.outbox import Own
from tunrouter.edge.store import Store
from tunrouter.errors import ConfigError

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


def test_blocks_are_those_of_the_range_and_the_length_that_they_were_given_under(tmp_path: Path, boot: Path) -> None:
    given = IPv4Network("10.32.0.0/12")
    life(tmp_path, BLOCK, BlockRow(7, 1, CLOSING), cut(given, 24))
    kept = life(tmp_path)
    assert recall.blocks(kept, given, 24) == (IPv4Network("10.33.44.0/24"),)
    for network, length in (("10.32.0.0/16", 24), ("10.48.0.0/12", 24), ("10.32.0.0/12", 26), ("10.32.0.0/12", 20)):
        with pytest.raises(ConfigError) as refused:
            recall.blocks(kept, IPv4Network(network), length)
        assert f"not of /{length} out of {network}" in refused.value.what
        assert "--range 10.32.0.0/12 --block-size 24" in refused.value.fix
        assert "\n" not in str(refused.value)


def test_who_has_no_blocks_any_more_may_have_others(tmp_path: Path, boot: Path) -> None:
    life(tmp_path, cut(IPv4Network("10.32.0.0/12"), 24))
    assert recall.blocks(life(tmp_path), IPv4Network("10.48.0.0/16"), 26) == ()


def test_an_older_disk_does_not_say_so_and_what_lies_outside_of_the_range_is_left_out(
    tmp_path: Path, boot: Path
) -> None:
    life(tmp_path, BLOCK, BlockRow(1, 1, HELD))
    kept, network = life(tmp_path), IPv4Network("10.32.0.0/16")
    assert recall.blocks(kept, network, 24) == (IPv4Network("10.32.1.0/24"),)
    node_itself = local(1)
    node_itself.blocks = ()
    effects = Node(node_itself, network, static=False).start((), 0.0, kept.rows)
    assert [effect.blocks for effect in effects if isinstance(effect, Own)] == [(IPv4Network("10.32.1.0/24"),)]
