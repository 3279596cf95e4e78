"""The database: brought to this schema, marked where it replaces a lost one, and read by who only looks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.edge.test_store import UNVERSIONED, edited
from tunrouter.edge.store import AMNESIA, DATABASE, KEY, SCHEMA, Change, Row, Store, inspect
from tunrouter.errors import HostError

SECONDS = 10.0
FORGOTTEN = [Row("cluster", (AMNESIA,), (b"",))]
LEASE = Row("lease", (1,), ("container", "eth0", 0, ""))


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """The directory of a node that promised something."""
    with closing(Store(tmp_path)) as store:
        store.identity(bytes(32))
        store.next_incarnation(1)
        store.write([Change(*LEASE)]).result(SECONDS)
    return tmp_path


def rows(directory: Path) -> list[Row]:
    with closing(Store(directory)) as store:
        return store.rows()


# --- schemas ---------------------------------------------------------------------------------------------------------
def test_a_database_of_schema_one_gets_the_tables_for_rows(tmp_path: Path) -> None:
    (tmp_path / KEY).touch(0o600)
    more = "create table target (place integer primary key, name text not null unique);"
    more += "insert into target (name) values ('a.example'); pragma user_version = 1;"
    edited(tmp_path, UNVERSIONED + more)
    with closing(Store(tmp_path)) as store:
        assert store.targets() == ("a.example",)
        assert store.next_incarnation(1) == 4001
        assert store.rows() == []
        store.write([Change(*LEASE)]).result(SECONDS)
    assert rows(tmp_path) == [LEASE]
    assert inspect(tmp_path).schema == SCHEMA


def test_a_database_of_schema_two_keeps_its_leases(known: Path) -> None:
    edited(known, "alter table lease drop column pod; pragma user_version = 2;")
    assert inspect(known).tables["lease"][1] == [(1, "container", "eth0", 0)]
    assert rows(known) == [LEASE]
    assert inspect(known).schema == SCHEMA


# --- amnesia ---------------------------------------------------------------------------------------------------------
def test_a_new_node_has_forgotten_nothing(known: Path) -> None:
    assert rows(known) == [LEASE]


def test_who_has_its_key_but_not_its_database_knows_that_it_forgot(known: Path) -> None:
    (known / DATABASE).unlink()
    assert rows(known) == FORGOTTEN
    assert rows(known) == FORGOTTEN, "until it is over"
    with closing(Store(known)) as store:
        store.write([Change("cluster", (AMNESIA,), None)]).result(SECONDS)
    assert rows(known) == []


@pytest.mark.parametrize("damage", [b"", b"not a database, but long enough to be taken for one" * 200])
def test_so_does_who_finds_its_database_damaged(known: Path, damage: bytes) -> None:
    (known / DATABASE).write_bytes(damage)
    assert rows(known) == FORGOTTEN


def test_an_old_log_beside_a_new_database_is_not_believed(known: Path) -> None:
    """The power went while the damaged database was put aside."""
    store = Store(known)
    store.write([Change("lease", (2,), ("container", "eth1", 0, ""))]).result(SECONDS)
    log = known / f"{DATABASE}-wal"
    left = log.read_bytes()
    assert left
    store.close()
    (known / DATABASE).unlink()
    log.write_bytes(left)
    assert rows(known) == FORGOTTEN


# --- looking ---------------------------------------------------------------------------------------------------------
def test_a_look_shows_every_table_while_the_agent_runs_and_disturbs_nothing(known: Path) -> None:
    store = Store(known)
    store.write([Change(*LEASE), Change("cluster", ("id",), (b"7",))]).result(SECONDS)
    with closing(sqlite3.connect(known / DATABASE)) as other:
        other.execute("begin immediate")
        found = inspect(known)
        other.rollback()
    assert found.schema == SCHEMA
    columns = ("address", "container", "interface", "release", "pod")
    assert found.tables["lease"] == (columns, [(1, "container", "eth0", 0, "")])
    assert found.tables["cluster"] == (("name", "data"), [("id", b"7")])
    assert found.tables["life"] == (("id", "incarnation"), [(1, 1)])
    assert found.tables["block"][1] == []
    assert store.next_incarnation(1) == 2


def test_a_look_after_the_agent_changes_no_byte(known: Path) -> None:
    before = {path.name: path.read_bytes() for path in known.iterdir()}
    assert inspect(known).tables["lease"][1] == [(1, "container", "eth0", 0, "")]
    assert {path.name: path.read_bytes() for path in known.iterdir()} == before


def test_a_look_at_what_a_killed_agent_left_sees_its_log(known: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    left = tmp_path_factory.mktemp("left")
    with closing(Store(known)) as store:
        store.write([Change("lease", (2,), ("container", "eth1", 0, ""))]).result(SECONDS)
        for name in (DATABASE, f"{DATABASE}-wal"):
            (left / name).write_bytes((known / name).read_bytes())
    assert inspect(left).tables["lease"][1] == [(1, "container", "eth0", 0, ""), (2, "container", "eth1", 0, "")]
    assert {path.name for path in left.iterdir()} == {DATABASE, f"{DATABASE}-wal"}, "no index is left behind"


def test_a_look_at_a_newer_schema_shows_what_it_has(known: Path) -> None:
    edited(
        known,
        'create table "a ""new"" one" (what); insert into "a ""new"" one" values (1.5); pragma user_version = 99;',
    )
    found = inspect(known)
    assert (found.schema, found.tables['a "new" one']) == (99, (("what",), [(1.5,)]))
    assert found.tables["lease"][1] == [(1, "container", "eth0", 0, "")]


def test_what_is_not_there_or_no_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=rf"there is no .*{DATABASE}"):
        inspect(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"not a database, but long enough to be taken for one" * 200)
    with pytest.raises(HostError, match="not a database"):
        inspect(tmp_path)
