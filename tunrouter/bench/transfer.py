"""A stream of deterministic pseudo-random bytes over TCP, hashed at both ends: `python -m tunrouter.bench.transfer`.

    receive PORT SIZE            prints progress lines, then one JSON line of a `Result`
    send ADDRESS PORT SIZE RATE  the same; RATE in bytes a second, 0 for as fast as it goes

Law: no block of the stream repeats (each begins with its number), so a lost, doubled or swapped block changes the hash.
"""

from __future__ import annotations

import hashlib
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

BLOCK: Final = 1 << 18
SEED: Final = 1
PROGRESS_SECONDS: Final = 0.1
STALL_SECONDS: Final = 30.0


class Result(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str
    seconds: float
    longest_pause: float
    """The longest time without a byte moving."""


class Progress:
    """Counts, prints at most ten lines a second, and remembers the longest pause."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self.started = self._last = self._printed = time.monotonic()
        self.total = 0
        self.longest_pause = 0.0

    def add(self, count: int) -> None:
        now = time.monotonic()
        self.longest_pause = max(self.longest_pause, now - self._last)
        self._last = now
        self.total += count
        if now - self._printed > PROGRESS_SECONDS:
            self._printed = now
            self._show(f"progress {self.total}")

    def result(self, digest: str) -> Result:
        return Result(self.total, digest, time.monotonic() - self.started, self.longest_pause)


def blocks(size: int) -> Iterator[bytes]:
    """`size` bytes in blocks: the same pseudo-random bytes, each time with the block's number in front."""
    base = random.Random(SEED).randbytes(BLOCK)  # noqa: S311  (a test pattern, not a secret)
    for number in range((size + BLOCK - 1) // BLOCK):
        block = number.to_bytes(8, "big") + base[8:]
        yield block[: min(BLOCK, size - number * BLOCK)]


def send(address: str, port: int, size: int, rate: int, show: Callable[[str], None]) -> Result:
    digest = hashlib.sha256()
    with socket.create_connection((address, port), timeout=STALL_SECONDS) as connection:
        progress = Progress(show)
        for block in blocks(size):
            if rate:
                time.sleep(max(0.0, progress.started + progress.total / rate - time.monotonic()))
            connection.sendall(block)
            digest.update(block)
            progress.add(len(block))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the receiver closes when it has all
    return progress.result(digest.hexdigest())


def receive(port: int, size: int, show: Callable[[str], None]) -> Result:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    with socket.create_server(("", port)) as listener:
        listener.settimeout(STALL_SECONDS)
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(STALL_SECONDS)
        progress = Progress(show)
        while count := connection.recv_into(buffer):
            digest.update(buffer[:count])
            progress.add(count)
        if progress.total != size:
            show(f"short: {progress.total} of {size} bytes")
    return progress.result(digest.hexdigest())


def main(argv: list[str]) -> int:
    def show(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        match argv:
            case ["send", address, port, size, rate]:
                result = send(address, int(port), int(size), int(rate), show)
            case ["receive", port, size]:
                result = receive(int(port), int(size), show)
            case _:
                show("usage: transfer send ADDRESS PORT SIZE RATE | receive PORT SIZE")
                return 2
    except OSError as error:
        show(f"failed: {error}")
        return 1
    show(msgspec.json.encode(result).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
