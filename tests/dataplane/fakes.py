"""A TUN and a UDP socket in memory: tests put frames and datagrams in and read what came out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence

from tunrouter.core import bounds, seam
from tunrouter.dataplane.kernel import Buffer, Datagram

ALL_FEATURES = ("csum", "tso4", "tso6", "ecn", "uso4", "uso6")
SLOT = 2048


class FakeTun:
    """Frames with their virtio-net headers."""

    def __init__(self, features: tuple[str, ...] = ALL_FEATURES) -> None:
        self.features = features
        self.readable: deque[bytes] = deque()
        self.written: list[bytes] = []
        self.error: OSError | None = None

    def fileno(self) -> int:
        return 3

    def read_into(self, buffer: memoryview) -> int:
        if not self.readable:
            return 0
        frame = self.readable.popleft()
        buffer[: len(frame)] = frame
        return len(frame)

    def write(self, parts: Sequence[Buffer]) -> None:
        if self.error:
            raise self.error
        self.written.append(b"".join(parts))

    def close(self) -> None:
        pass


class FakeUdp:
    """Datagrams with their other end; an errno that is set is raised, and so is EMSGSIZE above `large` bytes."""

    def __init__(self, version: int = 4, large: int = 65_535, batch: int = bounds.RECEIVE_BATCH) -> None:
        """`batch` datagrams at most are received at once: more than are read where the kernel had coalesced some."""
        self.version = version
        self.batch = batch
        self.buffer = bytearray(batch * SLOT)
        self.readable: deque[tuple[bytes, seam.Endpoint]] = deque()
        self.sent: list[tuple[bytes, seam.Endpoint]] = []
        self.trains: list[tuple[int, int]] = []
        """Bytes and segment size of each train."""
        self.large = large
        self.train_errno = 0
        self.send_errno = 0

    def fileno(self) -> int:
        return 4

    def send(self, data: Buffer, endpoint: seam.Endpoint) -> None:
        if self.send_errno or len(data) > self.large:
            number = self.send_errno or 90
            raise OSError(number, os.strerror(number))
        self.sent.append((bytes(data), endpoint))

    def send_train(self, train: memoryview, size: int, endpoint: seam.Endpoint) -> None:
        if self.train_errno:
            raise OSError(self.train_errno, os.strerror(self.train_errno))
        if size > self.large:
            raise OSError(90, os.strerror(90))
        assert len(train) <= bounds.MAX_TRAIN_BYTES
        assert len(train) <= size * bounds.MAX_TRAIN_SEGMENTS
        self.trains.append((len(train), size))
        self.sent += [(bytes(train[at : at + size]), endpoint) for at in range(0, len(train), size)]

    def receive(self) -> Iterable[Datagram]:
        found: list[Datagram] = []
        while self.readable and len(found) < self.batch:
            data, source = self.readable.popleft()
            at = len(found) * SLOT
            self.buffer[at : at + len(data)] = data
            found.append((at, len(data), source))
        return found

    def close(self) -> None:
        pass
