"""An internet in one process: whole nodes (core and batch kernel) on a virtual clock, faults as lines of test code.

Nothing here knows of real time, sockets or threads: a datagram is an event in a heap, and so is a deadline. A seed
repeats a run exactly.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from itertools import count

from tests.dataplane.kernels import SIM_KERNEL
from tests.sim.plane import Plane
from tunrouter.core import keys, report, seam, status, wire
from tunrouter.core.local import Local
from tunrouter.core.node import Node
from tunrouter.core.outbox import Echo, Effect, Fenced, KernelMtu, Log, Own, Remember, Said
from tunrouter.core.routes import Announced
from tunrouter.core.session import Session
from tunrouter.core.states import STANDING

RANGE = IPv4Network("10.32.0.0/12")
Datagram = tuple[seam.Endpoint, seam.Endpoint, bytes]
Fate = Callable[[random.Random, seam.Endpoint, seam.Endpoint, bytes], list[tuple[float, bytes]]]
"""Which copies of a datagram arrive: delay in seconds and contents of each."""
MAX_STEPS_AT_ONCE = 2_000


def psk(secret: str) -> bytes:
    """A stand-in for argon2id, whose 0.1 s a time would be most of a test."""
    return secret.encode().ljust(32, b".")


def packet(source: str, destination: str, payload: bytes = b"", identity: int = 0) -> bytes:
    """A small IPv4 packet of an experimental protocol (253), header checksum included."""
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), identity, 0, 64, 253, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + struct.pack(">H", checksum) + header[12:] + payload


class Host:
    """One node with its data plane; `restart` is kill -9 and a new life on the same disk."""

    def __init__(
        self,
        internet: Internet,
        name: str,
        address: str,
        block: str,
        *,
        secrets: tuple[str, ...] = ("secret",),
        seed: int | None = None,
        pod_mtu: int = 1376,
        network: str = "weave",
        workers: int = 1,
        discovery: bool = False,
        blocks: tuple[Announced, ...] | None = None,
        cluster: int = 0,
    ) -> None:
        """`blocks` are its own when it boots; None: `block`, as the operator gave it."""
        self.internet = internet
        self.name = name
        self.endpoint: seam.Endpoint = (address, 6783)
        self.block = IPv4Network(block)
        self.blocks = (Announced(self.block),) if blocks is None else blocks
        self.cluster = cluster
        self.secrets = secrets
        self.pod_mtu = pod_mtu
        self.network = network
        self.workers = workers
        self.discovery = discovery
        self.identity = keys.Identity(internet.rng.randbytes(32) if seed is None else bytes([seed]) * 32)
        self.incarnation = 1000
        self.disk: tuple[seam.Endpoint, ...] = ()
        self.log: list[str] = []
        self.said: list[Said] = []
        self.echoes: list[Echo] = []
        """What peers' agents said to this one's."""
        self.kernel_mtus: dict[IPv4Network, int] = {}
        self.own: tuple[IPv4Network, ...] = ()
        """The blocks that this machine was given, and the addresses that were fenced on it."""
        self.fenced: tuple[IPv4Address, ...] = ()
        self.alive = False
        self._stopped: list[tuple[seam.Endpoint, bytes]] | None = None
        self._stalled = False
        internet.hosts[self.endpoint] = self
        self.boot()

    def boot(self, *peers: Host) -> None:
        """A new life; `peers` are its targets."""
        self.alive = True
        self.incarnation += 1
        version = 6 if ":" in self.endpoint[0] else 4
        self.plane = Plane(self.internet.kernel, version, self.workers, lambda: self.internet.now)
        self.tun = self.plane.workers[0].tun
        local = Local(
            identity=self.identity,
            incarnation=self.incarnation,
            ring=keys.KeyRing(tuple(psk(secret) for secret in self.secrets)),
            network=self.network,
            name=self.name,
            blocks=self.blocks,
            block_length=self.block.prefixlen,
            pod_mtu=self.pod_mtu,
            random=self.internet.rng.randbytes,
            workers=self.workers,
            discovery=self.discovery,
            cluster=self.cluster,
        )
        self.own = ()
        self.node = Node(local, RANGE)
        self.carry_out(self.node.start(self.disk, self.internet.now))
        for peer in peers:
            self.connect(peer)

    def kill(self) -> None:
        self.alive = False

    def pause(self) -> None:
        """SIGSTOP: what arrives waits in the socket."""
        self._stopped = []

    def resume(self) -> None:
        """SIGCONT: the timer is looked at first, as a loop does, and then what waits in the socket."""
        waiting, self._stopped = self._stopped or [], None
        self.tick()
        for source, datagram in waiting:
            self.arrive(source, datagram)

    def stall(self) -> None:
        """SIGSTOP of control alone: the workers go on."""
        self._stalled = True

    def recover(self) -> None:
        self._stalled = False
        self.settle()
        self.tick()

    def lose_worker(self, number: int = 0, *, replaced_after: float = 0.3) -> None:
        """kill -9 of one; its successor has all that it was told before it moves the first packet."""
        self.plane.kill(number)
        self.carry_out(self.node.on_lanes_lost(self.plane.shares.maimed(), self.internet.now))
        self.internet.at(replaced_after, lambda: self._replace_worker(number))

    def _replace_worker(self, number: int) -> None:
        self.plane.start(number)
        self.carry_out(self.node.on_lanes_lost(self.plane.shares.maimed(), self.internet.now))
        self.plane.read_socket(number)
        self.settle()

    def move(self, address: str) -> None:
        """The same life at another address."""
        del self.internet.hosts[self.endpoint]
        self.endpoint = (address, 6783)
        self.internet.hosts[self.endpoint] = self

    # --- what happens to it ------------------------------------------------------------------------------------------
    def connect(self, peer: Host) -> None:
        self.carry_out(self.node.connect(peer.name, peer.endpoint, "", self.internet.now))

    def take(self, *blocks: Announced) -> None:
        """Exactly these are its own from now on."""
        self.blocks = blocks
        self.carry_out(self.node.own(blocks, self.internet.now))
        self.settle()

    def send(self, destination: str, payload: bytes = b"", *, source: str | None = None, identity: int = 0) -> None:
        """A pod's packet leaves through the TUN."""
        source = source or str(self.block.network_address + 2)
        self.plane.send(bytes(10) + packet(source, destination, payload, identity))
        self.settle()

    def arrive(self, source: seam.Endpoint, datagram: bytes) -> None:
        if self._stopped is not None:
            self._stopped.append((source, datagram))
            return
        self.plane.arrive(source, datagram)
        self.settle()

    def tick(self) -> None:
        self.plane.report()
        if self.node.deadline <= self.internet.now:
            self.carry_out(self.node.on_timer(self.internet.now))
        self.settle()

    def settle(self) -> None:
        """Carries messages over the seam in both directions until there are none, and datagrams to the internet."""
        while self.plane.heard and not self._stalled:
            waiting, self.plane.heard[:] = list(self.plane.heard), []
            self.carry_out(self.node.on_messages(waiting, self.internet.now))
        self._depart()

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Log(level, _, text):
                    self.log.append(f"{level} {text}")
                case Remember(endpoints):
                    self.disk = endpoints
                case KernelMtu(prefix, None):
                    self.kernel_mtus.pop(prefix, None)
                case KernelMtu(prefix, int(mtu)):
                    self.kernel_mtus[prefix] = mtu
                case Said():
                    self.said.append(effect)
                case Echo():
                    self.echoes.append(effect)
                case Own(blocks):
                    self.own = blocks
                case Fenced(addresses):
                    self.fenced = addresses
                case _:
                    self.plane.tell(effect)  # type: ignore[arg-type]
        self._depart()

    def _depart(self) -> None:
        for datagram, endpoint in self.plane.departed():
            self.internet.transmit(self.endpoint, endpoint, datagram)

    # --- what tests look at ------------------------------------------------------------------------------------------
    @property
    def received(self) -> list[bytes]:
        """Inner packets that reached this host's pods."""
        return [frame[10:] for frame in self.plane.written]

    @property
    def payloads(self) -> list[bytes]:
        return [data[20:] for data in self.received]

    def session(self, peer: Host) -> Session | None:
        return self.node.sessions.get(peer.identity.node_id)

    def established(self, peer: Host) -> bool:
        session = self.session(peer)
        return session is not None and session.state in STANDING

    def connections(self) -> tuple[status.Connection, ...]:
        return report.connections(self.node, self.internet.now)

    @property
    def counters(self) -> dict[str, int]:
        return self.plane.counters | self.node.counters

    def deadline(self) -> float:
        idle = not self.alive or self._stopped is not None or self._stalled
        return float("inf") if idle else self.node.deadline


class Internet:
    def __init__(self, seed: int = 1, delay: float = 0.005, kernel: str = SIM_KERNEL) -> None:
        """`kernel` is the name of every host's; see tests/dataplane/kernels.py."""
        self.kernel = kernel
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.delay = delay
        self.hosts: dict[seam.Endpoint, Host] = {}
        self.fate: Fate = lambda rng, source, destination, data: [(0.0, data)]
        self.wire: list[Datagram] = []
        """Everything that was sent, for tests that capture."""
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def host(self, name: str, number: int, **options: object) -> Host:
        return Host(self, name, f"192.0.2.{number}", f"10.32.{number}.0/24", **options)  # type: ignore[arg-type]

    def firsts(self, since: int = 0) -> list[bytes]:
        """The handshakes that were begun, repetitions included."""
        return [data for _, _, data in self.wire[since:] if data[0] == wire.FIRST]

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Does `action` so many seconds from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def transmit(self, source: seam.Endpoint, destination: seam.Endpoint, datagram: bytes) -> None:
        self.wire.append((source, destination, datagram))
        for delay, copy in self.fate(self.rng, source, destination, datagram):
            self.at(self.delay + delay, lambda copy=copy: self._deliver(source, destination, copy))  # type: ignore[misc]

    def _deliver(self, source: seam.Endpoint, destination: seam.Endpoint, datagram: bytes) -> None:
        host = self.hosts.get(destination)
        if host is not None and host.alive:
            host.arrive(source, datagram)

    def run(self, seconds: float) -> None:
        """Lets so much virtual time pass. Fails if a node's deadline does not move on: it would spin."""
        end = self.now + seconds
        steps = 0
        while True:
            events = self._events[0][0] if self._events else float("inf")
            due = min(events, min((host.deadline() for host in self.hosts.values()), default=float("inf")))
            if due > end:
                break
            steps = steps + 1 if due <= self.now else 0
            assert steps < MAX_STEPS_AT_ONCE, "a deadline does not move on"
            self.now = max(self.now, due)
            if events <= self.now:
                heapq.heappop(self._events)[2]()
            else:
                for host in list(self.hosts.values()):
                    if host.deadline() <= self.now:
                        host.tick()
        self.now = end

    def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Runs until `condition` holds; how long that took. Fails when it does not in time."""
        start = self.now
        while not condition():
            assert self.now - start < seconds, f"not within {seconds} s"
            self.run(0.01)
        return self.now - start


# --- fates -----------------------------------------------------------------------------------------------------------
def lossy(share: float) -> Fate:
    return lambda rng, source, destination, data: [] if rng.random() < share else [(0.0, data)]


def twice(
    rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
) -> list[tuple[float, bytes]]:
    return [(0.0, data), (0.001, data)]


def reordered(share: float, seconds: float) -> Fate:
    def fate(
        rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
    ) -> list[tuple[float, bytes]]:
        return [(rng.uniform(0.001, seconds) if rng.random() < share else 0.0, data)]

    return fate


def corrupted(share: float) -> Fate:
    def fate(
        rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
    ) -> list[tuple[float, bytes]]:
        if rng.random() >= share:
            return [(0.0, data)]
        at = rng.randrange(len(data) * 8)
        spoilt = bytearray(data)
        spoilt[at // 8] ^= 1 << at % 8
        return [(0.0, bytes(spoilt))]

    return fate


def no_larger_than(outer: int) -> Fate:
    """A hop that drops IPv4 packets of more than `outer` bytes without a word."""
    return lambda rng, source, destination, data: [(0.0, data)] if len(data) + 28 <= outer else []


def one_way(endpoint: seam.Endpoint) -> Fate:
    """Only what is meant for `endpoint` arrives."""
    return lambda rng, source, destination, data: [(0.0, data)] if destination == endpoint else []
