"""Every request that came, for tests that count them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

ENTRIES: Final = 200_000
WRITES: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Entry(NamedTuple):
    at: float
    """time.monotonic of this machine."""
    verb: str
    plural: str
    path: str
    query: str
    user: str
    user_agent: str
    node: str
    code: int
    """0: it was not answered."""


class Journal:
    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=ENTRIES)

    def note(self, entry: Entry) -> None:
        self._entries.append(entry)

    def clear(self) -> None:
        self._entries.clear()

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def writes(self, node: str = "", *, since: float = 0.0) -> list[Entry]:
        """Of one of our nodes or of all, since then by time.monotonic."""
        return [each for each in self if each.verb in WRITES and each.at >= since and node in ("", each.node)]

    def requests(self, *verbs: str, node: str = "", since: float = 0.0) -> list[Entry]:
        return [each for each in self if each.verb in verbs and each.at >= since and node in ("", each.node)]


def now() -> float:
    return time.monotonic()
