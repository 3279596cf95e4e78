"""What a node keeps on disk: its key, its incarnation, where its peers were, and which ones it was told to connect to.

Law: a life's incarnation is durable before its first packet (SQLite, WAL, synchronous FULL); it never repeats, even
when the wall clock goes back. A database that does not open is kept aside, never overwritten. One of an older schema
(`pragma user_version`) is brought to this one in place, in one transaction a step; one of a newer schema is refused and
left as it is. The key is a file of its own, 0600, so that it can be placed there by hand.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from tunrouter.errors import HostError

SEED_BYTES: Final = 32
KEY: Final = "identity.key"
DATABASE: Final = "state.db"
MAX_ASIDE: Final = 100
_STEPS: Final = (
    # The tables of the first version, which has no number, may be there.
    """
    create table if not exists life (id integer primary key check (id = 1), incarnation integer not null);
    create table if not exists endpoint (address text not null, port integer not null, primary key (address, port));
    create table target (place integer primary key, name text not null unique);
    """,
)
"""Step n leads from schema n to n + 1; schema 0 is a new database."""
SCHEMA: Final = len(_STEPS)


class Store:
    """Used from one thread at a time. Raises HostError with the next step."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.aside: Path | None = None
        """Where a database that did not open was put."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _failure(directory, error) from None
        self._database = self._open()

    def identity(self, random_seed: bytes) -> bytes:
        """The key's seed; `random_seed` becomes it in a node's first life."""
        path = self._directory / KEY
        try:
            if not path.exists():
                _write_once(path, random_seed)
            mode = path.stat().st_mode & 0o777
            seed = path.read_bytes()
        except OSError as error:
            raise _failure(path, error) from None
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
        try:
            with self._database as transaction:
                row = transaction.execute("select incarnation from life").fetchone()
                incarnation = max(row[0] + 1 if row else 1, unix_time)
                transaction.execute("insert or replace into life values (1, ?)", (incarnation,))
        except sqlite3.Error as error:
            raise _failure(self._directory / DATABASE, error) from None
        return incarnation

    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Where peers were when this was last known."""
        try:
            rows = self._database.execute("select address, port from endpoint").fetchall()
        except sqlite3.Error as error:
            raise _failure(self._directory / DATABASE, error) from None
        return tuple((str(address), int(port)) for address, port in rows)

    def remember_endpoints(self, endpoints: Iterable[tuple[str, int]]) -> None:
        self._replace("delete from endpoint", "insert into endpoint values (?, ?)", endpoints)

    def targets(self) -> tuple[str, ...]:
        """Peers that the operator named while the agent ran, in the order in which they were named."""
        try:
            rows = self._database.execute("select name from target order by place").fetchall()
        except sqlite3.Error as error:
            raise _failure(self._directory / DATABASE, error) from None
        return tuple(str(name) for (name,) in rows)

    def remember_targets(self, names: Iterable[str]) -> None:
        self._replace("delete from target", "insert into target (name) values (?)", ((name,) for name in names))

    def _replace(self, delete: str, insert: str, rows: Iterable[tuple[object, ...]]) -> None:
        """All rows of a table by these, or none."""
        try:
            with self._database as transaction:
                transaction.execute(delete)
                transaction.executemany(insert, rows)
        except sqlite3.Error as error:
            raise _failure(self._directory / DATABASE, error) from None

    def close(self) -> None:
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        path = self._directory / DATABASE
        try:
            return _connect(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # the disk, not the contents
                raise _failure(path, error) from None
        try:
            self.aside = _put_aside(path)
            return _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise _failure(path, error) from None


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    try:
        path.chmod(0o600)
        _check(database)
        version = _version(database, path)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        for number in range(version, SCHEMA):
            database.executescript(f"begin; {_STEPS[number]} pragma user_version = {number + 1}; commit;")
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection) -> None:
    verdict = database.execute("pragma quick_check").fetchone()
    if verdict != ("ok",):
        raise sqlite3.DatabaseError(f"damaged: {verdict[0]}")


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Of its schema; raises HostError for one that this version does not know."""
    version = int(database.execute("pragma user_version").fetchone()[0])
    if not 0 <= version <= SCHEMA:
        what = f"{path} was written by a newer tunrouter (schema {version}, this version knows {SCHEMA})"
        raise HostError(what, "run that version, or move the file away to forget what it holds")
    return version


def _put_aside(path: Path) -> Path:
    for number in range(1, MAX_ASIDE):
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        if not aside.exists():
            for suffix in ("-wal", "-shm"):
                part = path.with_name(path.name + suffix)
                if part.exists():
                    part.rename(f"{aside}{suffix}")
            return path.rename(aside)
    raise OSError(errno.EEXIST, "too many damaged databases lie here", str(path.parent))


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


def _failure(path: Path, error: OSError | sqlite3.Error) -> HostError:
    full = "disk is full" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if full:
        return HostError(f"no room on disk for {path}", f"free some: df -h {path.parent}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return HostError(f"cannot keep state in {path}: {reason}", "check the directory, or set another state_dir")
