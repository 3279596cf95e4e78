"""The underlay of a simulated cluster: a delay for each link, loss, duplication, and ways that lead nowhere.

Law: the delay between two nodes is theirs for the whole run, drawn by the seed from a uniform range. Bytes are counted
where they leave, with the 28 bytes of IPv4 and UDP around each datagram. The trace is a checksum of all that was sent:
two runs are the same if it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Final

from tunrouter.core.seam import Endpoint
from tunrouter.core.wire import IP_UDP_BYTES
from tunrouter.sim.clock import Clock

PORT: Final = 6783
_TRACED: Final = struct.Struct("=dIII")
_MIX: Final = 0x9E37_79B9_7F4A_7C15

Receive = Callable[[int, object], None]
"""Takes the sender's number and what it sent."""


def address(number: int) -> Endpoint:
    return f"172.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", PORT


def number_of(endpoint: Endpoint) -> int:
    """-1 for an address that is nobody's here."""
    parts = [int(part) for part in endpoint[0].split(".")]
    return (parts[1] - 16) << 16 | parts[2] << 8 | parts[3] if parts[0] == 172 and endpoint[1] == PORT else -1


class Network:
    def __init__(self, clock: Clock, seed: int, delay: tuple[float, float], loss: float = 0.0) -> None:
        """`delay` is a range in seconds, one way; `loss` a share of all datagrams."""
        self.clock = clock
        self.loss = loss
        self.duplicated = 0.0
        """Share of datagrams that arrive twice."""
        self.receivers: dict[int, Receive] = {}
        self.side: dict[int, int] = {}
        """Partition: only nodes of one side reach each other; who is not named is on side 0."""
        self.cut: set[tuple[int, int]] = set()
        """Ways, from and to, that lead nowhere."""
        self.bytes: dict[int, int] = {}
        """Sent, by node."""
        self.datagrams = 0
        self.trace = 0
        self._seed = seed
        self._least, self._span = delay[0], delay[1] - delay[0]
        self._chance = Random(f"{seed} network")

    def delay(self, one: int, other: int) -> float:
        low, high = min(one, other), max(one, other)
        mixed = (self._seed + low * 0x1_0000_0001 + high) * _MIX & (1 << 64) - 1
        mixed = (mixed ^ mixed >> 29) * 0xBF58_476D_1CE4_E5B9 & (1 << 64) - 1
        return self._least + self._span * ((mixed ^ mixed >> 32) & 0xFFFF_FFFF) / 0xFFFF_FFFF

    def send(self, source: int, to: Endpoint, item: object, size: int) -> None:
        """`size` bytes of UDP payload leave; `item` is what the receiver gets."""
        target = number_of(to)
        self.bytes[source] = self.bytes.get(source, 0) + size + IP_UDP_BYTES[4]
        self.datagrams += 1
        self.trace = zlib.crc32(_TRACED.pack(self.clock.now, source, target & 0xFFFF_FFFF, size), self.trace)
        if self.side.get(source, 0) != self.side.get(target, 0) or (source, target) in self.cut:
            return
        if self.loss and self._chance.random() < self.loss:
            return
        copies = 2 if self.duplicated and self._chance.random() < self.duplicated else 1
        for _ in range(copies):
            self.clock.at(self.clock.now + self.delay(source, target), self._arrive, source, target, item)

    def _arrive(self, source: int, target: int, item: object) -> None:
        receive = self.receivers.get(target)
        if receive is not None:
            receive(source, item)
