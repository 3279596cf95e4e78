"""Two kernels with static keys: node 1 owns 10.32.1.0/24 and fd00:1::/64, node 2 the next.

`Side.forge` and `Side.opened` make and read datagrams by the letter of the format, without any kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from nacl import bindings

from tests.dataplane.fakes import ALL_FEATURES, FakeTun, FakeUdp
from tests.dataplane.kernels import REFERENCE, open_kernel
from tunrouter.core import bounds, seam, wire

EXPIRES = 1000.0
NOW = 10.0


def endpoint(node: int) -> seam.Endpoint:
    return (f"192.0.2.{node}", 6783)


def secret(sender: int, receiver: int, size: int) -> bytes:
    return bytes((sender, receiver)) * (size // 2)


def widened(install: seam.Install, count: int) -> tuple[seam.Lane, ...]:
    """Lanes 0 to `count` - 1, all with the one lane's keys."""
    return tuple(msgspec.structs.replace(install.lanes[0], number=number) for number in range(count))


class Side:
    """One node: its kernel, and what goes in and out of it."""

    def __init__(
        self,
        node: int,
        peer: int,
        *,
        kernel: str = REFERENCE,
        sealed: bool = True,
        features: tuple[str, ...] = ALL_FEATURES,
        batch: int = bounds.RECEIVE_BATCH,
    ) -> None:
        """`batch` is how many datagrams one call of the socket gives at most."""
        self.node = node
        self.peer = peer
        self.sealed = sealed
        self.tun = FakeTun(features)
        self.udp = FakeUdp(batch=batch)
        self.events: list[seam.ToControl] = []
        self.room: dict[type, int] = {}
        """How many more messages of a type control takes, if not any number."""
        self.kernel = open_kernel(kernel, self.tun, [self.udp], self._emit)
        for owner, target in ((node, seam.SELF), (peer, peer)):
            self.apply(seam.Route(bytes((10, 32, owner, 0)), 24, target))
            self.apply(seam.Route(bytes((0xFD, 0, 0, owner)) + bytes(12), 64, target))

    def _emit(self, message: seam.ToControl) -> bool:
        left = self.room.get(type(message), 1)
        if not left:
            return False
        if type(message) in self.room:
            self.room[type(message)] = left - 1
        self.events.append(message)
        return True

    @property
    def session(self) -> int:
        return self.node * 16

    def apply(self, message: seam.ToWorker, now: float = NOW) -> None:
        self.kernel.apply(message, now)

    def install(self, *arguments: int, generation: int = 0) -> None:
        self.apply(self.installing(*arguments, generation=generation))

    def installing(self, session: int | None = None, remote: int | None = None, *, generation: int = 0) -> seam.Install:
        me, peer, size = self.node, self.peer, 32 if self.sealed else 16
        lane = seam.Lane(
            0,
            secret(me + generation, peer, size),
            secret(me, peer, 8),
            secret(peer + generation, me, size),
            secret(peer, me, 8),
        )
        return seam.Install(
            session=self.session if session is None else session,
            node=peer,
            remote=peer * 16 if remote is None else remote,
            lanes=(lane,),
            endpoint=endpoint(peer),
            expires=EXPIRES,
            sealed=self.sealed,
        )

    def open(self) -> None:
        """Installs, delivers and uses the session."""
        self.install()
        self.apply(seam.Deliver(self.session))
        self.apply(seam.Use(self.peer, self.session))

    def send(self, *frames: bytes, now: float = NOW) -> list[bytes]:
        """What leaves when the TUN holds `frames`."""
        self.udp.sent.clear()
        self.tun.readable.extend(frames)
        while self.kernel.drain_tun(now):
            pass
        return [datagram for datagram, _ in self.udp.sent]

    def receive(self, *datagrams: bytes, source: seam.Endpoint | None = None, now: float = NOW) -> list[bytes]:
        """What the TUN gets when `datagrams` arrive."""
        self.tun.written.clear()
        self.udp.readable.extend((datagram, source or endpoint(self.peer)) for datagram in datagrams)
        while self.kernel.drain_udp(self.udp, now):
            pass
        return list(self.tun.written)

    def forge(self, kind: int, body: bytes, counter: int, remote: int | None = None) -> bytes:
        """The datagram with which this side would say `body`, sealed here; generation 0, sealed mode."""
        header = wire.HEADER.pack(wire.DATA, 0, 0, self.peer * 16 if remote is None else remote, counter)
        nonce = header[:8] + secret(self.node, self.peer, 8) + header[8:]
        return header + bindings.crypto_secretbox(bytes((kind,)) + body, nonce, secret(self.node, self.peer, 32))

    def opened(self, datagrams: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Kind and body of each datagram for this side, opened here; generation 0, sealed mode."""
        found = []
        for datagram in datagrams:
            nonce = datagram[:8] + secret(self.peer, self.node, 8) + datagram[8:16]
            plain = bindings.crypto_secretbox_open(datagram[16:], nonce, secret(self.peer, self.node, 32))
            found.append((plain[0], plain[1:]))
        return found

    def count(self, name: str) -> int:
        return self.kernel.counters[name]

    def told(self, kind: type) -> list[seam.ToControl]:
        return [event for event in self.events if isinstance(event, kind)]


def joined(kernel: str = REFERENCE, *, sealed: bool = True) -> tuple[Side, Side]:
    """Both nodes with an open session."""
    one, two = Side(1, 2, kernel=kernel, sealed=sealed), Side(2, 1, kernel=kernel, sealed=sealed)
    one.open()
    two.open()
    return one, two
