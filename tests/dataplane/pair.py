"""Two reference kernels with static keys: node 1 owns 10.32.1.0/24 and fd00:1::/64, node 2 the next."""

from __future__ import annotations

from tests.dataplane.fakes import FakeTun, FakeUdp
from tunrouter.core import seam
from tunrouter.dataplane.reference import ReferenceKernel

EXPIRES = 1000.0
NOW = 10.0


def endpoint(node: int) -> seam.Endpoint:
    return (f"192.0.2.{node}", 6783)


def secret(sender: int, receiver: int, size: int) -> bytes:
    return bytes((sender, receiver)) * (size // 2)


class Side:
    """One node: its kernel, and what goes in and out of it."""

    def __init__(self, node: int, peer: int, *, sealed: bool = True) -> None:
        self.node = node
        self.peer = peer
        self.sealed = sealed
        self.tun = FakeTun()
        self.udp = FakeUdp()
        self.events: list[seam.ToControl] = []
        self.kernel = ReferenceKernel(self.tun, [self.udp], self.events.append)
        for owner, target in ((node, seam.SELF), (peer, peer)):
            self.apply(seam.Route(bytes((10, 32, owner, 0)), 24, target))
            self.apply(seam.Route(bytes((0xFD, 0, 0, owner)) + bytes(12), 64, target))

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

    def count(self, name: str) -> int:
        return self.kernel.counters[name]

    def told(self, kind: type) -> list[seam.ToControl]:
        return [event for event in self.events if isinstance(event, kind)]


def joined(*, sealed: bool = True) -> tuple[Side, Side]:
    """Both nodes with an open session."""
    one, two = Side(1, 2, sealed=sealed), Side(2, 1, sealed=sealed)
    one.open()
    two.open()
    return one, two
