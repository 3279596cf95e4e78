"""Commits batches to the store in argv[1] from number argv[2] on, many at once, until it is killed.

Says the number of each on standard output, one a line, when it is durable. With a third argument: one at a time, that
many, and the line says `early` instead where data was not synced (`synced.c` is preloaded).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from concurrent.futures import Future
from itertools import count
from pathlib import Path

from tunrouter.edge.store import Change, Store

PARTS = ("a", "b", "c", "d")
KEPT = 100
AT_ONCE = 20


def batch(number: int) -> list[Change]:
    """One number in four places, a new lease, and an old one removed."""
    return [
        *(Change("cluster", (part,), (b"%d" % number,)) for part in PARTS),
        Change("lease", (number,), ("container", "eth0", 0, "")),
        Change("lease", (number - KEPT,), None),
    ]


def say(word: object) -> None:
    os.write(1, f"{word}\n".encode())


def many(store: Store, first: int) -> None:
    under_way: deque[tuple[int, Future[None]]] = deque()
    for number in count(first):
        under_way.append((number, store.write(batch(number))))
        if len(under_way) > AT_ONCE:
            oldest, future = under_way.popleft()
            future.result()
            say(oldest)


def one_by_one(store: Store, first: int, total: int) -> None:
    unsynced = ctypes.CDLL(None).unsynced
    for number in range(first, first + total):
        store.write(batch(number)).result()
        say("early" if unsynced() else number)


if __name__ == "__main__":
    start = int(sys.argv[2])
    if len(sys.argv) > 3:
        one_by_one(Store(Path(sys.argv[1])), start, int(sys.argv[3]))
    else:
        many(Store(Path(sys.argv[1])), start)
