"""One thread that commits: what is handed over while it waits for the disk is one transaction afterwards.

    write ──> waiting (by row, the newest wins) ──> one transaction ──> its future ──> write …

Law: changes become durable in the order in which they were handed over, and those of one call together. A disk that
does not take them is asked again for ever, with pauses: all that came later waits behind, and memory holds each row at
most twice. Why nothing moves is said once, and once more that it moves again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Final

from tunrouter.edge.store import rows
from tunrouter.edge.store.rows import Change, Columns, Place
from tunrouter.errors import HostError

PAUSES: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds between tries; the last repeats."""

Trouble = Callable[[HostError | None], None]
"""Is told, on the writer's thread, why nothing can be written, and None when it can again; must not raise."""


class Writer:
    """Shares `database` with others by `lock`, which is not held while it pauses."""

    def __init__(
        self,
        database: sqlite3.Connection,
        lock: threading.Lock,
        explain: Callable[[Exception], HostError],
        trouble: Trouble,
    ) -> None:
        self._database = database
        self._lock = lock
        self._explain = explain
        self._trouble = trouble
        self._wakeup = threading.Condition()
        self._waiting: dict[Place, Columns | None] = {}
        self._asked = False
        """Somebody waits, perhaps with nothing to write."""
        self._promise = _promise()
        """Kept when what waits is durable."""
        self._closed: HostError | None = None
        """What is said to who comes too late."""
        self._thread: threading.Thread | None = None

    def write(self, changes: Iterable[Change]) -> Future[None]:
        """Done when all of it is on disk; it cannot be cancelled. Fails with HostError if the store closes before.

        Raises ValueError for what no table holds, and takes nothing of it then.
        """
        batch = {}
        for table, key, values in changes:
            rows.check((table, key), values)
            batch[table, key] = values
        with self._wakeup:
            if self._closed is not None:
                return _broken(self._closed)
            self._waiting.update(batch)
            self._asked = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store", daemon=True)
                self._thread.start()
            self._wakeup.notify()
            return self._promise

    def close(self) -> None:
        """Writes what waits; a disk that refuses is asked once more."""
        with self._wakeup:
            self._closed = HostError("the store is closed", "start the agent again")
            self._wakeup.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wakeup:
                self._wakeup.wait_for(lambda: self._asked or self._closed)
                if not self._asked:
                    return
                self._asked = False
                batch, self._waiting = self._waiting, {}
                promise, self._promise = self._promise, _promise()
            error = self._persist(batch)
            if error is not None:  # nothing may overtake what was not written
                promise.set_exception(error)
                self._promise.set_exception(error)
                return
            promise.set_result(None)

    def _persist(self, batch: dict[Place, Columns | None]) -> HostError | None:
        """Returns when it is on disk, or why it is not and the store is closed."""
        tries = 0
        while (error := self._commit(batch)) is not None:
            if tries == 0:
                self._trouble(error)
            if self._pause(PAUSES[min(tries, len(PAUSES) - 1)]):
                return self._commit(batch)
            tries += 1
        if tries:
            self._trouble(None)
        return None

    def _commit(self, batch: dict[Place, Columns | None]) -> HostError | None:
        try:
            with self._lock, self._database as transaction:
                transaction.execute("begin immediate")
                rows.write(transaction, batch)
        except Exception as error:  # whatever it is, it must not end the thread that others wait for
            return self._explain(error)
        return None

    def _pause(self, seconds: float) -> bool:
        """Whether the store is being closed."""
        with self._wakeup:
            return self._wakeup.wait_for(lambda: self._closed is not None, seconds)


def _promise() -> Future[None]:
    """One that its holders cannot cancel."""
    promise: Future[None] = Future()
    promise.set_running_or_notify_cancel()
    return promise


def _broken(error: HostError) -> Future[None]:
    promise = _promise()
    promise.set_exception(error)
    return promise
