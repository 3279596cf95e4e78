"""Rows on disk: whole, in order, durable when it is said, whatever the disk or a kill does meanwhile."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.edge.committing import AT_ONCE, KEPT, PARTS
from tests.edge.test_store import fill
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.store import DATABASE, TABLES, Change, Row, Store
from tunrouter.edge.store.writer import PAUSES
from tunrouter.errors import HostError

SECONDS = 10.0
"""For what takes milliseconds."""


def block(place: int, state: str = "own") -> Change:
    return Change("block", (place,), (1, state))


def cluster(name: str, data: bytes) -> Change:
    return Change("cluster", (name,), (data,))


@contextmanager
def held_up(directory: Path) -> Iterator[None]:
    """Another process writes meanwhile."""
    with closing(sqlite3.connect(directory / DATABASE)) as other:
        other.execute("begin immediate")
        yield
        other.rollback()


class Troubles:
    def __init__(self) -> None:
        self.heard: list[str | None] = []

    def __call__(self, error: HostError | None) -> None:
        self.heard.append(None if error is None else error.what)

    def wait(self, number: int) -> None:
        wait_until("the writer says something", lambda: len(self.heard) >= number, SECONDS)


# --- rows ------------------------------------------------------------------------------------------------------------
ROWS = [
    Row("register", (1, 7), (1, 3, -5, 1, 2, 4, 9, -(1 << 63), b"\0data")),
    Row("block", (4096,), (12, "own")),
    Row("lease", (0x0A200002,), ("a container", "eth0", 0, "net/default/web-0")),
    Row("lease", (0x0A200003,), ("", "", (1 << 63) - 1, "")),
    Row("cluster", ("id",), (bytes(range(256)),)),
]


def test_rows_of_every_table_are_there_in_the_next_life(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.rows() == []
    store.write(Change(*row) for row in ROWS).result(SECONDS)
    assert sorted(store.rows()) == sorted(ROWS)
    store.close()
    assert sorted(Store(tmp_path).rows()) == sorted(ROWS)


def test_the_newest_wins_and_what_is_removed_need_not_be_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write([block(1, "old"), block(2), Change("block", (3,), None)])
    store.write([block(1, "new"), Change("block", (2,), None)]).result(SECONDS)
    assert store.rows() == [Row("block", (1,), (1, "new"))]


def test_the_tables_are_as_they_are_described(tmp_path: Path) -> None:
    Store(tmp_path).close()
    names = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        for name, table in TABLES.items():
            columns = database.execute(f"pragma table_info({name})").fetchall()
            described = {**table.key, **table.values}
            assert [(column[1], column[2]) for column in columns] == [(one, names[described[one]]) for one in described]
            assert [column[1] for column in columns if column[5]] == list(table.key)


@pytest.mark.parametrize(
    "change",
    [
        Change("nothing", (1,), (1,)),
        Change("life", (1,), (5,)),
        Change("block", (1,), (1,)),
        Change("block", (1, 2), None),
        Change("block", ("1",), (1, "own")),
        Change("block", (True,), (1, "own")),
        Change("block", (1 << 63,), (1, "own")),
        Change("block", (1,), (1, "\udcff")),
        Change("cluster", ("id",), ("text",)),
    ],
)
def test_what_no_table_holds_is_refused_at_once_with_all_that_came_along(tmp_path: Path, change: Change) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="no row of this database"):
        store.write([block(1), change])
    store.write([block(2)]).result(SECONDS)
    assert store.rows() == [Row("block", (2,), (1, "own"))]


# --- the writer ------------------------------------------------------------------------------------------------------
def test_what_is_handed_over_meanwhile_is_one_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with held_up(tmp_path):
        futures = [store.write([block(number)]) for number in range(1000)]
        assert not wait(futures, timeout=0.05, return_when=FIRST_COMPLETED).done
    wait(futures, timeout=SECONDS)
    assert len(store.rows()) == 1000
    assert len(set(futures)) <= 2


def test_nobody_can_take_back_what_was_handed_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with held_up(tmp_path):
        future = store.write([block(1)])
        assert not future.cancel()
    future.result(SECONDS)
    assert len(store.rows()) == 1


def test_nothing_is_durable_when_all_before_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write([block(1)])
    store.write([]).result(SECONDS)
    assert len(store.rows()) == 1
    store.write([]).result(SECONDS)


def test_close_writes_what_waits_and_refuses_what_comes_later(tmp_path: Path) -> None:
    store = Store(tmp_path)
    future = store.write([block(number) for number in range(5000)])
    store.close()
    assert future.done()
    with pytest.raises(HostError, match="closed"):
        store.write([block(1)]).result(SECONDS)
    assert len(Store(tmp_path).rows()) == 5000


def test_who_holds_the_database_up_is_waited_for(tmp_path: Path) -> None:
    troubles = Troubles()
    store = Store(tmp_path, troubles)
    with held_up(tmp_path):
        future = store.write([block(1)])
        troubles.wait(1)
    future.result(SECONDS)
    troubles.wait(2)
    assert troubles.heard == [f"cannot keep state in {tmp_path / DATABASE}: database is locked", None]
    store.close()


# --- a disk that refuses ---------------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """As large as an empty database, its log and the log's index need to be, and little more."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.root
def test_on_a_full_disk_all_wait_in_order_until_there_is_room(small_disk: Path) -> None:
    troubles = Troubles()
    store = Store(small_disk, troubles)
    store.write([cluster("before", b"")]).result(SECONDS)
    fill(small_disk / "filler")
    first = store.write([cluster("first", bytes(5000)), cluster("order", b"1")])
    troubles.wait(1)
    later = [store.write([cluster("later", bytes(5000)), cluster("order", b"%d" % number)]) for number in range(2, 9)]
    with pytest.raises(HostError, match="no room on disk"):
        store.remember_targets(["192.0.2.1"])
    assert not wait([first, *later], timeout=3 * PAUSES[2], return_when=FIRST_COMPLETED).done
    assert {row.key for row in store.rows()} == {("before",)}
    assert troubles.heard == [f"no room on disk for {small_disk / DATABASE}"]
    (small_disk / "filler").unlink()
    wait(later, timeout=SECONDS)
    assert first.done()
    troubles.wait(2)
    assert troubles.heard[1:] == [None]
    assert {row.key[0]: row.values[0] for row in store.rows()} == {
        "before": b"",
        "first": bytes(5000),
        "later": bytes(5000),
        "order": b"8",
    }
    store.close()


@pytest.mark.root
def test_a_disk_that_stays_full_does_not_hold_up_the_end_and_nothing_overtakes(small_disk: Path) -> None:
    troubles = Troubles()
    store = Store(small_disk, troubles)
    filler = small_disk / "filler"
    fill(filler)
    os.truncate(filler, filler.stat().st_size - 24_000)
    large = store.write([cluster("large", bytes(50_000))])
    troubles.wait(1)
    small = store.write([cluster("small", b"there is room for it")])
    store.close()
    for future in (large, small):
        with pytest.raises(HostError, match="no room on disk"):
            future.result(SECONDS)
    filler.unlink()
    assert Store(small_disk).rows() == []


LIMITED = """
import resource, sys
from pathlib import Path
from tunrouter.edge.store import Change, Store

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def trouble(error):
    print(error and error.what, flush=True)
    if error:
        limit(resource.RLIM_INFINITY)

store = Store(Path(sys.argv[1]), trouble)
limit(1)
store.write([Change("cluster", ("a",), (b"1",))]).result(10)
store.close()
"""


def test_an_io_error_is_tried_again(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"cannot keep state in {tmp_path / DATABASE}: disk I/O error", "None"]
    assert Store(tmp_path).rows() == [Row("cluster", ("a",), (b"1",))]


# --- kills and power -------------------------------------------------------------------------------------------------
def test_what_was_said_to_be_durable_survives_a_kill_at_any_moment_and_batches_are_whole(tmp_path: Path) -> None:
    chance, newest = random.Random(7), 0
    for _ in range(20):
        command = [sys.executable, "-m", "tests.edge.committing", str(tmp_path), str(newest + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline())]
            time.sleep(chance.uniform(0.0, 0.1))
            process.kill()
            said += [int(line) for line in process.stdout]
        assert said == list(range(newest + 1, said[-1] + 1))
        with closing(Store(tmp_path)) as store:
            assert store.aside is None
            rows = store.rows()
        parts = {row.key[0]: int(row.values[0]) for row in rows if row.table == "cluster"}
        newest = max(parts.values())
        assert parts == dict.fromkeys(PARTS, newest)
        assert said[-1] <= newest
        leases = sorted(int(row.key[0]) for row in rows if row.table == "lease")
        assert leases == list(range(max(1, newest - KEPT + 1), newest + 1))
    assert newest > 20 * AT_ONCE


@pytest.fixture
def synced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that watches what is written and synced."""
    library = tmp_path_factory.mktemp("library") / "synced.so"
    source = Path(__file__).with_name("synced.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


def test_durable_means_synced(tmp_path: Path, synced: Path) -> None:
    command = [sys.executable, "-m", "tests.edge.committing", str(tmp_path), "1", "50"]
    environment = {"LD_PRELOAD": str(synced), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(number) for number in range(1, 51)]
