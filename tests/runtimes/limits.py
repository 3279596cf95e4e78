"""How fast a pod can send and receive, as TCP's receiver sees it.

Law: a limit has a bucket, full at first, which containerd makes as large as it can: tens of megabytes pass before a
rate holds. A busy machine may also stop a stream for a moment while the bucket is half full. So a limit holds once a
whole second's rate is its rate, and that has to come before the bucket's time is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

from tests.runtimes.inside import Place, Talk
from tunrouter.bench.namespaces import wait_until

PIECE: Final = 1 << 18
WINDOW_SECONDS: Final = 0.1
MEASURED_SECONDS: Final = 1.0
BUCKET_SECONDS: Final = 20.0
LEAST, MOST = 0.7, 1.1


def unlimited(sender: Place, receiver: Place) -> float:
    """Bits a second."""
    with _stream(sender, receiver) as talk:
        return _rate(talk, WINDOW_SECONDS)


def wait_limited(sender: Place, receiver: Place, limit: float) -> None:
    """Until the stream is as fast as `limit` says, in bits a second."""
    with _stream(sender, receiver) as talk:
        wait_until(
            f"{sender} to {receiver} at {limit:.0f} bits a second",
            lambda: LEAST * limit < _rate(talk, MEASURED_SECONDS) < MOST * limit,
            BUCKET_SECONDS,
        )


@contextmanager
def _stream(sender: Place, receiver: Place) -> Iterator[Talk]:
    """As much as goes, until the end of the context."""
    with Talk(sender, receiver) as talk, ThreadPoolExecutor(1) as pool:
        talk.near.settimeout(None)
        sending = pool.submit(_send, talk)
        try:
            yield talk
        finally:
            talk.stop()
        sending.result()


def _send(talk: Talk) -> None:
    piece = bytes(PIECE)
    with suppress(BrokenPipeError, ConnectionResetError):
        while True:
            talk.near.send(piece)


def _rate(talk: Talk, seconds: float) -> float:
    began, received = time.monotonic(), 0
    while (took := time.monotonic() - began) < seconds:
        received += len(talk.far.recv(PIECE))
    return received * 8 / took
