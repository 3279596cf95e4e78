"""One SQLite database: opened whole, of a known schema, or not at all.

Law: every transaction is on disk when its commit returns (WAL, synchronous FULL). A database that does not open is kept
aside, never overwritten. One of an older schema (`pragma user_version`) is brought to this one in place, in one
transaction; one of a newer schema is refused and left as it is.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from tunrouter.errors import HostError

DATABASE: Final = "state.db"
MAX_ASIDE: Final = 100
BUSY_SECONDS: Final = 1.0
"""How long another process may hold the database up."""
_STEPS: Final = (
    # The tables of the first version, which has no number, may be there.
    """
    create table if not exists life (id integer primary key check (id = 1), incarnation integer not null);
    create table if not exists endpoint (address text not null, port integer not null, primary key (address, port));
    create table target (place integer primary key, name text not null unique);
    """,
    """
    create table register (
        kind integer not null, number integer not null,
        promised_epoch integer not null, promised_round integer not null, promised_proposer integer not null,
        accepted_epoch integer not null, accepted_round integer not null, accepted_proposer integer not null,
        version integer not null, holder integer not null, data blob not null,
        primary key (kind, number)
    ) without rowid;
    create table block (place integer primary key, version integer not null, state text not null);
    create table lease (
        address integer primary key, container text not null, interface text not null, release integer not null
    );
    create table cluster (name text primary key, data blob not null) without rowid;
    """,
    """
    alter table lease add column pod text not null default '';
    """,
)
"""Step n leads from schema n to n + 1; schema 0 is a new database. A step is never changed once it was released."""
SCHEMA: Final = len(_STEPS)
LOCKS: Final = Path("/proc/locks")
AMNESIA: Final = "amnesia"
"""The name in `cluster` by which a new database says that it replaces one that was lost."""


class Contents(NamedTuple):
    """Everything in a database, of whatever schema: the columns' names and the rows of each table."""

    schema: int
    tables: dict[str, tuple[tuple[str, ...], list[tuple[object, ...]]]]


def connect(path: Path, *, known: bool) -> tuple[sqlite3.Connection, Path | None]:
    """A database that can be written, from any thread, and where a damaged one was put. Raises HostError.

    Where the node is `known` already, a new one is marked: it does not hold what that node promised.
    """
    try:
        return _open(path, known), None
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # the disk, not the contents
            raise failure(path, error) from None
    try:
        aside = _put_aside(path)
        return _open(path, known), aside
    except (OSError, sqlite3.Error) as error:
        raise failure(path, error) from None


def inspect(directory: Path) -> Contents:
    """Reads all at one moment and changes nothing, whether an agent runs or not. Raises HostError."""
    path = directory / DATABASE
    try:
        path.stat()
    except FileNotFoundError:
        raise HostError(f"there is no {path}", "name the state directory of an agent") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    log, index = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    try:
        if not log.exists():  # nobody writes
            return _contents(f"{path.absolute().as_uri()}?mode=ro&immutable=1")
        if index.exists() and not _abandoned(index):
            return _contents(f"{path.absolute().as_uri()}?mode=ro")
        # Whoever wrote it is dead. SQLite would make or change the index to read the log, so it gets copies.
        with tempfile.TemporaryDirectory(prefix="tunrouter-") as place:
            for file in (path, log):
                shutil.copyfile(file, Path(place) / file.name)
            return _contents((Path(place) / path.name).as_uri())
    except (sqlite3.Error, OSError) as error:
        raise _unreadable(path, error) from None


def _contents(address: str) -> Contents:
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as database:
        database.execute("begin")
        _check(database)
        version = int(database.execute("pragma user_version").fetchone()[0])
        names = database.execute("select name from sqlite_schema where type = 'table' order by name").fetchall()
        return Contents(version, {name: _table(database, name) for (name,) in names})


def _abandoned(index: Path) -> bool:
    """Nobody has the database open: whoever has holds a lock on its index (sqlite.org/walformat.html, 2.3)."""
    file = f":{index.stat().st_ino}"
    return not any(word.endswith(file) for word in LOCKS.read_text().split())


def _unreadable(path: Path, error: Exception) -> HostError:
    if isinstance(error, PermissionError):
        return HostError(f"{path}: {error.strerror}", "run the command with sudo")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return HostError(f"cannot read {path}: {reason}", "the agent puts a damaged database aside when it starts")


def failure(path: Path, error: Exception) -> HostError:
    """What the disk said, in our words."""
    full = "disk is full" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if full:
        return HostError(f"no room on disk for {path}", f"free some: df -h {path.parent}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return HostError(f"cannot keep state in {path}: {reason}", "check the directory, or set another state_dir")


def _open(path: Path, known: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        path.chmod(0o600)
        _check(database)
        version = _version(database, path)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        if version < SCHEMA:
            steps = "".join(_STEPS[version:])
            if known and database.execute("select count(*) from sqlite_schema").fetchone() == (0,):
                steps += f"insert into cluster values ('{AMNESIA}', x'');"
            database.executescript(f"begin; {steps} pragma user_version = {SCHEMA}; commit;")
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
    """The database first: SQLite would believe it without its log, but removes a log without a database."""
    for number in range(1, MAX_ASIDE):
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        if not aside.exists():
            path.rename(aside)
            for suffix in ("-wal", "-shm"):
                part = path.with_name(path.name + suffix)
                if part.exists():
                    part.rename(f"{aside}{suffix}")
            return aside
    raise OSError(errno.EEXIST, "too many damaged databases lie here", str(path.parent))


def _table(database: sqlite3.Connection, name: str) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    quoted = name.replace('"', '""')
    cursor = database.execute(f'select * from "{quoted}"')
    return tuple(column[0] for column in cursor.description), cursor.fetchall()
