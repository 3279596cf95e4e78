"""The state on disk: incarnations only grow, damage is kept aside, and a full disk says so."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tunrouter.edge.store import DATABASE, KEY, SCHEMA, Store, erase
from tunrouter.errors import HostError


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    seed = store.identity(b"a" * 32)
    assert store.identity(b"b" * 32) == seed == b"a" * 32
    assert (tmp_path / "state" / KEY).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state" / DATABASE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.root
@pytest.mark.parametrize("root", ["rw", "ro"])
def test_what_is_erased_leaves_a_mounted_directory_to_who_mounted_it(tmp_path: Path, root: str) -> None:
    state = tmp_path / "state"
    Store(state).close()
    for command in (f"--bind {tmp_path} {tmp_path}", f"--bind {state} {state}", f"-o remount,bind,{root} {tmp_path}"):
        subprocess.run(["mount", *command.split()], check=True)
    try:
        done = erase(state, state / "cni", [])
        assert f"file {state / DATABASE}" in done
        assert f"directory {state}" not in done
        assert list(state.iterdir()) == []
    finally:
        subprocess.run(["umount", "--recursive", tmp_path], check=True)
    assert erase(state, state / "cni", []) == [f"directory {state}"]


def test_incarnations_grow_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    lives = []
    for clock in (1000, 1000, 50, 2000, 0):
        store = Store(tmp_path)
        lives.append(store.next_incarnation(clock))
        store.close()
    assert lives == [1000, 1001, 1002, 2000, 2001]


def test_endpoints_are_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember_endpoints([("192.0.2.1", 6783), ("2001:db8::1", 7000)])
    store.remember_endpoints([("192.0.2.2", 6783)])
    store.close()
    assert Store(tmp_path).endpoints() == (("192.0.2.2", 6783),)


def test_targets_are_replaced_and_keep_their_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.targets() == ()
    store.remember_targets(["z.example", "192.0.2.1", "[2001:db8::1]:7000"])
    store.remember_targets(["m.example:99", "192.0.2.1", "a.example"])
    store.close()
    assert Store(tmp_path).targets() == ("m.example:99", "192.0.2.1", "a.example")


def test_a_failed_replacement_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember_targets(["a.example"])
    with pytest.raises(HostError):
        store.remember_targets(["b.example", "b.example"])
    assert store.targets() == ("a.example",)


UNVERSIONED = """
create table life (id integer primary key check (id = 1), incarnation integer not null);
create table endpoint (address text not null, port integer not null, primary key (address, port));
insert into life values (1, 4000);
insert into endpoint values ('192.0.2.5', 6783);
"""
"""What the first version left: tables without a number."""


def edited(directory: Path, script: str) -> bytes:
    """The database after others have been at it, all of it in one file."""
    with closing(sqlite3.connect(directory / DATABASE)) as database:
        database.executescript(script)
        database.execute("pragma wal_checkpoint(truncate)")
    return (directory / DATABASE).read_bytes()


def schema(directory: Path) -> int:
    with closing(sqlite3.connect(directory / DATABASE)) as database:
        return int(database.execute("pragma user_version").fetchone()[0])


def test_a_database_without_a_version_is_carried_on_in_place(tmp_path: Path) -> None:
    edited(tmp_path, UNVERSIONED)
    assert schema(tmp_path) == 0
    store = Store(tmp_path)
    assert store.aside is None
    assert store.endpoints() == (("192.0.2.5", 6783),)
    assert store.next_incarnation(1) == 4001
    store.remember_targets(["a.example"])
    store.close()
    assert schema(tmp_path) == SCHEMA
    again = Store(tmp_path)
    assert (again.targets(), again.endpoints()) == (("a.example",), (("192.0.2.5", 6783),))
    assert sorted(path.name for path in tmp_path.iterdir() if "corrupt" in path.name) == []


def test_a_migration_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    before = edited(tmp_path, UNVERSIONED + "create table target (something_else);")
    with pytest.raises(HostError):
        Store(tmp_path)
    assert schema(tmp_path) == 0
    assert edited(tmp_path, "select 1")[100:] == before[100:], "all but the header"


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    before = edited(tmp_path, f"create table more (what); pragma user_version = {SCHEMA + 1};")
    with pytest.raises(HostError, match=rf"newer tunrouter \(schema {SCHEMA + 1}, this version knows {SCHEMA}\)"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]
    assert (tmp_path / DATABASE).read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but long enough to look like one" * 200])
def test_a_damaged_database_is_kept_aside(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    store.next_incarnation(5)
    store.close()
    (tmp_path / DATABASE).write_bytes(damage)
    again = Store(tmp_path)
    if damage:
        assert again.aside is not None
        assert again.aside.read_bytes() == damage
    assert again.next_incarnation(7) == 7


def test_a_truncated_database_is_kept_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember_endpoints([(f"192.0.2.{n}", n) for n in range(200)])
    store.remember_targets(f"192.0.2.{n}:{n}" for n in range(200))
    store.close()
    path = tmp_path / DATABASE
    path.write_bytes(path.read_bytes()[:-2000])
    assert Store(tmp_path).aside is not None


def test_a_key_others_can_read_or_of_a_wrong_size_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.identity(bytes(32))
    (tmp_path / KEY).chmod(0o644)
    with pytest.raises(HostError, match="chmod 600"):
        store.identity(bytes(32))
    (tmp_path / KEY).chmod(0o600)
    (tmp_path / KEY).write_bytes(b"short")
    with pytest.raises(HostError, match="instead of 32"):
        store.identity(bytes(32))


@pytest.mark.root
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=True)
    try:
        store = Store(tmp_path)
        first = store.next_incarnation(1)
        fill(tmp_path / "filler")
        with pytest.raises(HostError, match=r"no room on disk.*df -h"):
            store.remember_endpoints([(f"192.0.2.{n}", port) for n in range(200) for port in range(100)])
        (tmp_path / "filler").unlink()
        assert store.next_incarnation(1) == first + 1
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    """Takes the last byte of the disk."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(file, bytes(512)):
            continue
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(file)
