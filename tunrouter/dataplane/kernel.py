"""The batch kernel's interface: what the worker's loop drives, and what a kernel itself needs of the host.

A kernel moves packets between one TUN queue and the UDP sockets and obeys the messages of `core.seam`; it never waits
and never raises for what a packet or a datagram holds. Every implementation does the same byte for byte.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tunrouter.core import seam

Emit = Callable[[seam.ToControl], bool | None]
"""Takes a message to control; False if it had to be dropped. Must not call back into the kernel."""

Datagram = tuple[int, int, seam.Endpoint]
"""Offset and size in the socket's receive buffer, and the sender."""

Loop = Callable[[int], object]
"""Waits and works until the descriptor that it is given is readable, or one of its own is gone."""

Buffer = bytes | bytearray | memoryview
Memory = bytearray | mmap.mmap
"""What datagrams are received into and opened in."""


class Tun(Protocol):
    """One queue of a TUN device; frames carry a 10-byte virtio-net header."""

    @property
    def features(self) -> tuple[str, ...]:
        """What the kernel leaves to us, of "csum", "tso4", "tso6", "ecn", "uso4", "uso6"."""

    def fileno(self) -> int: ...

    def read_into(self, buffer: memoryview) -> int:
        """Reads one frame; 0 when there is none."""

    def write(self, parts: Sequence[Buffer]) -> None:
        """Writes one frame given in parts; raises OSError."""

    def close(self) -> None: ...


class Udp(Protocol):
    """One UDP socket. `receive` fills `buffer`, and what it tells of holds until the next call."""

    @property
    def version(self) -> int:
        """4 or 6."""

    @property
    def buffer(self) -> Memory: ...

    def fileno(self) -> int: ...

    def receive(self) -> Iterable[Datagram]:
        """Reads at most bounds.RECEIVE_BATCH times, splits what the kernel had coalesced; empty when there is none."""

    def send(self, data: Buffer, endpoint: seam.Endpoint) -> None:
        """Sends one datagram; raises OSError."""

    def send_train(self, train: memoryview, size: int, endpoint: seam.Endpoint) -> None:
        """Sends datagrams of `size` bytes, the last perhaps shorter, in one call; raises OSError."""

    def close(self) -> None: ...


class Kernel(Protocol):
    """What the worker's loop drives. `now` is CLOCK_MONOTONIC in seconds."""

    @property
    def name(self) -> str:
        """What `status` calls it."""

    @property
    def counters(self) -> dict[str, int]: ...

    def apply(self, message: seam.ToWorker, now: float) -> None:
        """Obeys control."""

    def drain_tun(self, now: float) -> bool:
        """Moves what waits in the TUN, within a budget; true if there may be more."""

    def drain_udp(self, udp: Udp, now: float) -> bool:
        """Moves what waits in `udp`, within a budget; true if there may be more."""

    def loops(self, tun: Tun, udps: Sequence[Udp]) -> Sequence[Loop]:
        """What moves the packets of these descriptors in threads of their own; none: the worker's loop drains them."""

    def report(self, now: float) -> bool:
        """Emits what was used and counted since the last report; false if nothing was."""
