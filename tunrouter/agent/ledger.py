"""What the node wants on disk, as the store keeps it, and word of it when it is there.

    Persist ──> rows of the store ──> its thread commits ──> node.on_durable(number)

Law: batches are handed over in order and are durable in order; the node hears of each, or of a later one that includes
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

from tunrouter.agent import rows
from tunrouter.core.journal import Persist
from tunrouter.edge.store import Store


class Ledger:
    """`durable` is called on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, durable: Callable[[int], None]) -> None:
        self._loop = loop
        self._store = store
        self._durable = durable

    def persist(self, persist: Persist) -> None:
        done = self._store.write(rows.changes(persist))
        done.add_done_callback(lambda written: self._written(persist.number, written))

    def _written(self, number: int, done: Future[None]) -> None:
        """On the store's thread. What failed was never durable: that is so only when the store is closed."""
        if done.exception() is None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._durable, number)
