"""What a node keeps on disk: its key, its incarnation, its peers, and the rows of those who promise something.

Law: a life's incarnation is durable before its first packet; it never repeats, even when the wall clock goes back. The
key is a file of its own, 0600, so that it can be placed there by hand; all else is in the database (`database.py`),
into which `write` commits on a thread of its own (`writer.py`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tunrouter.edge.store import rows
from tunrouter.edge.store.database import DATABASE, connect, failure
from tunrouter.edge.store.rows import Change, Row
from tunrouter.edge.store.writer import Trouble, Writer
from tunrouter.errors import HostError

SEED_BYTES: Final = 32
KEY: Final = "identity.key"


def _ignore(error: HostError | None) -> None:
    """For who does not ask: what waits is told by its future alone."""


class Store:
    """Used from any thread. Raises HostError with the next step."""

    def __init__(self, directory: Path, trouble: Trouble = _ignore) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise failure(directory, error) from None
        path = directory / DATABASE
        self._database, self.aside = connect(path, known=(directory / KEY).exists())
        """`aside` is where a database that did not open was put."""
        self._lock = threading.Lock()
        self._writer = Writer(self._database, self._lock, partial(failure, path), trouble)

    def close(self) -> None:
        """When what waits is written; where the disk refuses it, it is told so."""
        self._writer.close()
        with self._lock:
            self._database.close()

    # --- rows --------------------------------------------------------------------------------------------------------
    def rows(self) -> list[Row]:
        with self._transaction() as database:
            return rows.read(database)

    def write(self, changes: Iterable[Change]) -> Future[None]:
        """`Writer.write`: all of it together, after all that was written before; the future tells when."""
        return self._writer.write(changes)

    # --- this node ---------------------------------------------------------------------------------------------------
    def identity(self, random_seed: bytes) -> bytes:
        """The key's seed; `random_seed` becomes it in a node's first life."""
        path = self._directory / KEY
        try:
            if not path.exists():
                _write_once(path, random_seed)
            mode = path.stat().st_mode & 0o777
            seed = path.read_bytes()
        except OSError as error:
            raise failure(path, error) from None
        if mode & 0o077:
            raise HostError(f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
        if len(seed) != SEED_BYTES:
            raise HostError(
                f"{path} has {len(seed)} bytes instead of {SEED_BYTES}",
                "restore it, or remove it to give this node a new identity",
            )
        return seed

    def next_incarnation(self, unix_time: int) -> int:
        """A number above those of all earlier lives, durable when this returns."""
        with self._transaction() as database:
            row = database.execute("select incarnation from life").fetchone()
            incarnation = max(row[0] + 1 if row else 1, unix_time)
            database.execute("insert or replace into life values (1, ?)", (incarnation,))
        return incarnation

    # --- its peers ---------------------------------------------------------------------------------------------------
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Where peers were when this was last known."""
        with self._transaction() as database:
            found = database.execute("select address, port from endpoint").fetchall()
        return tuple((str(address), int(port)) for address, port in found)

    def remember_endpoints(self, endpoints: Iterable[tuple[str, int]]) -> None:
        self._replace("delete from endpoint", "insert into endpoint values (?, ?)", endpoints)

    def targets(self) -> tuple[str, ...]:
        """Peers that the operator named while the agent ran, in the order in which they were named."""
        with self._transaction() as database:
            found = database.execute("select name from target order by place").fetchall()
        return tuple(str(name) for (name,) in found)

    def remember_targets(self, names: Iterable[str]) -> None:
        self._replace("delete from target", "insert into target (name) values (?)", ((name,) for name in names))

    def _replace(self, delete: str, insert: str, values: Iterable[tuple[object, ...]]) -> None:
        """All rows of a table by these, or none."""
        with self._transaction() as database:
            database.execute(delete)
            database.executemany(insert, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it is on disk afterwards, or nothing. Tried once: it does not wait for room."""
        try:
            with self._lock, self._database as database:
                yield database
        except sqlite3.Error as error:
            raise failure(self._directory / DATABASE, error) from None


def _write_once(path: Path, seed: bytes) -> None:
    """The whole key or none, on disk when this returns."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with closing(os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")) as file:
        file.write(seed)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
