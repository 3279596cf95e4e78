"""Two kernels that live the same life: whatever one does, the other does, and what comes out of both is compared.

Law: the compiled kernel is the reference byte for byte. Compared are, after each thing that happens: the datagrams sent
(bytes, endpoints, order), the frames written to the TUN, the messages to control, what a report returns, and every
counter. One freedom is left: in one drain of the TUN the order between refusals of datagrams, missing hops and other
messages, for a kernel may seal several trains before it sends the first.

`Keys` is the other side of all sessions: it seals what arrives by the letter of the format, without any kernel.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from nacl import bindings
from nacl import hash as digest
from nacl.encoding import RawEncoder

from tests.dataplane.fakes import FakeTun, FakeUdp
from tests.dataplane.kernels import KERNELS, open_kernel
from tests.dataplane.wires import take_read
from tunrouter.core import bounds, seam, wire
from tunrouter.dataplane.kernel import Datagram

BATCH_BYTES: Final = 256 << 10
TRAIN_BYTES: Final = 100_000
"""Sealed bytes of one drain below which both kernels make the same trains: a refused train is counted as one."""
TRAIN_WAGONS: Final = 60
"""And their trains."""

Arrival = tuple[bytes, seam.Endpoint]


class FailingTun(FakeTun):
    """A TUN whose next read fails with the errno `once`."""

    once = 0

    def read_into(self, buffer: memoryview) -> int:
        number, self.once = self.once, 0
        if number:
            raise OSError(number, os.strerror(number))
        return super().read_into(buffer)


class PackedUdp(FakeUdp):
    """Datagrams of any size, one behind the other in the buffer; one `receive` takes them all, or fails with `once`."""

    once = 0

    def __init__(self, version: int) -> None:
        super().__init__(version, large=65_507, batch=0)
        self.buffer = bytearray(BATCH_BYTES + 65_536)

    def receive(self) -> Iterable[Datagram]:
        number, self.once = self.once, 0
        if number:
            raise OSError(number, os.strerror(number))
        found: list[Datagram] = []
        at = 0
        while self.readable:
            data, source = self.readable.popleft()
            self.buffer[at : at + len(data)] = data
            found.append((at, len(data), source))
            at += len(data)
        return found


class Member:
    """One kernel with its fakes, and what came out of it since the last look."""

    def __init__(self, name: str, features: tuple[str, ...], versions: Sequence[int]) -> None:
        self.tun = FailingTun(features)
        self.udps = {version: PackedUdp(version) for version in versions}
        self.events: list[seam.ToControl] = []
        self.room = -1
        """How many more messages control takes, or -1."""
        self.kernel = open_kernel(name, self.tun, list(self.udps.values()), self._emit)

    def _emit(self, message: seam.ToControl) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.events.append(message)
        return True

    def seen(self) -> dict[str, object]:
        """All that can be seen from outside."""
        refusals = [event for event in self.events if isinstance(event, seam.TooBig)]
        hops = [event for event in self.events if isinstance(event, seam.HopWanted)]
        found: dict[str, object] = {
            "sent": {version: list(udp.sent) for version, udp in self.udps.items()},
            "written": list(self.tun.written),
            "told": [event for event in self.events if not isinstance(event, seam.TooBig | seam.HopWanted)],
            "refusals": refusals,
            "hops": hops,
            "counters": dict(self.kernel.counters),
        }
        self.events.clear()
        self.tun.written.clear()
        for udp in self.udps.values():
            udp.sent.clear()
        return found


class Twins:
    """All kernels at once."""

    def __init__(self, features: tuple[str, ...], versions: Sequence[int]) -> None:
        self.members = [Member(name, features, versions) for name in KERNELS]
        self.now = 10.0

    def compare(self, what: object) -> dict[str, object]:
        first, *others = [member.seen() for member in self.members]
        for other in others:
            for name, value in first.items():
                assert other[name] == value, f"{name} after {what!r}"
        return first

    def apply(self, message: seam.ToWorker) -> None:
        for member in self.members:
            member.kernel.apply(message, self.now)
        self.compare(message)

    def report(self) -> bool:
        first, *others = [member.kernel.report(self.now) for member in self.members]
        assert all(other == first for other in others)
        self.compare("report")
        return first

    def send(self, reads: Sequence[bytes]) -> None:
        """The host hands these frames to the TUN."""
        for member in self.members:
            member.tun.readable.extend(reads)
            while member.tun.readable:  # a read that fails leaves the rest for the next wake-up
                member.kernel.drain_tun(self.now)
        self.compare(("send", reads))

    def receive(self, version: int, arrivals: Sequence[Arrival]) -> None:
        """These datagrams arrive, in as few wake-ups as a socket would make of them."""
        waiting = deque(arrivals)
        while waiting:
            batch: list[Arrival] = []
            size = reads = 0
            while waiting and reads < bounds.RECEIVE_BATCH and size < BATCH_BYTES - 65_536:
                sender = waiting[0][1]
                read = take_read(waiting)
                batch += [(data, sender) for data in read]
                size, reads = size + sum(map(len, read)), reads + 1
            for member in self.members:
                udp = member.udps[version]
                udp.readable.extend(batch)
                while udp.readable:
                    member.kernel.drain_udp(udp, self.now)
            self.compare(("receive", batch))


class Place(NamedTuple):
    """One session as control would install it."""

    session: int
    node: int
    remote: int
    lanes: tuple[int, ...]
    endpoint: seam.Endpoint
    sealed: bool


class Keys:
    """The other side of one session: its keys, and the next counter of each lane."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.counters = dict.fromkeys(place.lanes, 0)

    def install(self, expires: float) -> seam.Install:
        place = self.place
        lanes = tuple(
            seam.Lane(number, *self._lane(number, "seal"), *self._lane(number, "open")) for number in place.lanes
        )
        return seam.Install(place.session, place.node, place.remote, lanes, place.endpoint, expires, place.sealed)

    def _lane(self, number: int, way: str) -> tuple[bytes, bytes]:
        made: bytes = digest.blake2b(f"{self.place.session} {number} {way}".encode(), 40, encoder=RawEncoder)
        return made[: 32 if self.place.sealed else 16], made[32:]

    def say(self, kind: int, body: bytes, lane: int, counter: int | None = None) -> bytes:
        """The next datagram of the lane at position `lane`, or one with a counter of its own."""
        number = self.place.lanes[lane % len(self.place.lanes)]
        if counter is None:
            counter = self.counters[number]
            self.counters[number] += 1
        key, salt = self._lane(number, "open")
        header = wire.HEADER.pack(wire.DATA, 0, 0, self.place.session + number & 0xFFFFFFFF, counter)
        plain = bytes((kind,)) + body
        if not self.place.sealed:
            return header + key + plain
        return header + bindings.crypto_secretbox(plain, header[:8] + salt + header[8:], key)
