"""A cluster of real cores: each node's `core.Node` with its own identity, on one clock and one network.

Law: handshakes, codecs and signatures are the real ones. Only what would be the same work a thousand times is done
once: a record that many nodes get is read into one object, whose signature is checked once.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Network
from random import Random
from typing import Final

from tunrouter.core import record, seam
from tunrouter.core.journal import Persist
from tunrouter.core.keys import Identity, KeyRing
from tunrouter.core.local import Local
from tunrouter.core.node import Node
from tunrouter.core.outbox import Effect, Log, Remember
from tunrouter.core.record import Link, LinksBody, Record
from tunrouter.core.routes import Announced
from tunrouter.sim.clock import Clock
from tunrouter.sim.network import Network, address
from tunrouter.sim.plane import Plane

RANGE: Final = IPv4Network("10.0.0.0/8")
POD_MTU: Final = 1376
MAX_NODES: Final = 60_000
"""Blocks of /24 in the range, and some."""
_SECRET: Final = KeyRing((blake2b(b"a password for simulations", digest_size=32).digest(),))
RINGS: Final = 4
NEVER: Final = float("inf")


class Member:
    """One node, through all its lives."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.number = number
        self.alive = False
        self.node: Node
        self.plane: Plane
        self.version = 0
        """How often it announced something new."""
        self.errors: list[str] = []
        """What it would log as errors."""
        self.targets: tuple[int, ...] = ()
        """Numbers of the nodes that its operator named."""
        self.identity = Identity(blake2b(f"{cluster.seed} {number}".encode(), digest_size=32).digest())
        self.name = f"node{number}"
        self.block = IPv4Network((int(RANGE.network_address) + (number << 8), 24))
        self._cluster = cluster
        self._random = Random(f"{cluster.seed} node {number}")
        self.incarnation = 0
        self._disk: tuple[seam.Endpoint, ...] = ()
        self._wake_at = NEVER

    @property
    def id(self) -> int:
        return self.identity.node_id

    def boot(self, *, connect: bool = True) -> None:
        """A new life, with what the disk has kept of the last one."""
        self.incarnation = (self.node.local.incarnation if self.incarnation else 0) + 1
        self.alive = True
        network = self._cluster.network
        local = Local(
            identity=self.identity,
            incarnation=self.incarnation,
            ring=_SECRET,
            network="simulated",
            name=self.name,
            blocks=(Announced(self.block),),
            block_length=self.block.prefixlen,
            pod_mtu=POD_MTU,
            random=self._random.randbytes,
            endpoints=(address(self.number),),
        )
        self.plane = Plane(self.number, network, self.hear)
        self.node = Node(local, RANGE, read)
        self._wake_at = NEVER
        network.receivers[self.number] = self.plane.receive
        self.carry_out(self.node.start(self._disk, self.now))
        if connect:
            self.connect()

    def connect(self) -> None:
        for target in self.targets:
            self.carry_out(self.node.connect(f"node{target}", address(target), "", self.now))

    def kill(self) -> None:
        self.alive = False
        self._cluster.network.receivers.pop(self.number, None)

    @property
    def now(self) -> float:
        return self._cluster.clock.now

    def hear(self, message: seam.ToControl) -> None:
        self.carry_out(self.node.on_messages((message,), self.now))

    def tick(self, node: Node, at: float) -> None:
        """The timer that `node` asked for, perhaps in an earlier life; it may have asked for another one since."""
        if node is not self.node or not self.alive or at != self._wake_at:
            return
        self._wake_at = NEVER
        self.carry_out(node.on_timer(self.now) if node.deadline <= self.now else [])

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Log):
                if effect.level == "error":
                    self.errors.append(effect.text)
            elif isinstance(effect, Remember):
                self._disk = effect.endpoints
            elif isinstance(effect, Persist):
                effects += self.node.on_durable(effect.number, self.now)
            elif isinstance(effect, seam.ToWorker):
                self.plane.tell(effect)
        deadline = self.node.deadline
        if deadline < self._wake_at:
            self._wake_at = deadline
            self._cluster.clock.at(deadline, self.tick, self.node, deadline)

    def change(self) -> Record:
        """It has something new to say of its blocks, as large as such news is."""
        self.version += 1
        self.carry_out(self.node.own((Announced(self.block, self.version),), self.now))
        own = self.node.mesh.gossip.replica.get(self.id, record.BLOCKS)
        assert own is not None
        return own

    def has(self, news: Record) -> bool:
        mine = self.node.mesh.gossip.replica.newest(news.key)
        return mine is not None and mine.version >= news.version

    def view(self) -> tuple[int, int, tuple[str, ...]]:
        """Digest of all records, how many nodes it can reach, and its routes."""
        mesh = self.node.mesh
        routed = tuple(f"{block} {node:016x}" for node in mesh.nodes for block in self.node.routes.routed(node))
        return mesh.gossip.replica.digest, len(mesh.topology.ways()), routed


@lru_cache(1 << 18)
def read(data: bytes) -> Record:
    return record.read(data)


class Cluster:
    def __init__(self, *, seed: int, delay: tuple[float, float] = (0.001, 0.050), loss: float = 0.0) -> None:
        self.seed = seed
        self.clock = Clock()
        self.network = Network(self.clock, seed, delay, loss)
        self.members: list[Member] = []
        self.random = Random(f"{seed} cluster")

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.alive]

    def add(self, *targets: int) -> Member:
        """A node that knows these, by their numbers; started at once."""
        member = Member(self, len(self.members))
        member.targets = targets
        self.members.append(member)
        member.boot()
        return member

    def join(self, count: int) -> None:
        """So many new nodes, each of which knows one that is there."""
        for _ in range(count):
            here = self.alive
            self.add(*((self.random.choice(here).number,) if here else ()))

    def preload(self, count: int, quiet: float = 3.0) -> None:
        """So many nodes in the middle of their lives: all records are everywhere, the control graph stands.

        The graph is four random rings: each node was told of four others, and four others of it. The sessions are
        opened by real handshakes; what the links records will say is known before.
        """
        rings = [self.random.sample(range(count), count) for _ in range(RINGS)]
        named: dict[int, set[int]] = {number: set() for number in range(count)}
        for ring in rings:
            for one, other in zip(ring, [*ring[1:], ring[0]], strict=True):
                free = one != other and one not in named[other] and other not in named[one]
                named[one].add(other if free else self._stranger(named, one))
        self.members = [Member(self, number) for number in range(count)]
        linked: dict[int, set[int]] = {number: set(others) - {number} for number, others in named.items()}
        for number, others in named.items():
            for other in others - {number}:
                linked[other].add(number)
        for member in self.members:
            member.targets = tuple(sorted(named[member.number] - {member.number}))
            member.boot(connect=False)
            member.node.local.discovery = False
        records = [record for member in self.members for record in self._records(member, linked[member.number])]
        first, until = self.members[0].node.mesh, self.clock.now + quiet
        first.preload(records, until)
        for member in self.members:
            if member.node.mesh is not first:
                member.node.mesh.preload_like(first, until)
            member.connect()
        self.run(quiet)
        for member in self.members:
            member.node.local.discovery = True
        self.run(1)

    def _stranger(self, named: dict[int, set[int]], one: int) -> int:
        """Somebody that `one` has no link with yet; where there is nobody, itself, which is nobody's link."""
        others = [node for node in named if node != one and node not in named[one] and one not in named[node]]
        return self.random.choice(others) if others else one

    def _records(self, member: Member, linked: set[int]) -> list[Record]:
        """What the node has said, and will say of its links."""
        ids = {self.members[other].id: 2 * self.network.delay(member.number, other) for other in sorted(linked)}
        links = tuple(Link(node, record.rtt_class(rtt)) for node, rtt in sorted(ids.items()))
        links_record = record.write(member.identity, member.incarnation, 3, LinksBody(links))
        links_record.verified = True
        return [*member.node.mesh.gossip.replica, links_record]

    def kill(self, count: int) -> None:
        """So many of those that live, by chance, though at once."""
        here = self.alive
        for member in self.random.sample(here, min(count, len(here))):
            member.kill()

    def restart(self, count: int = 0) -> None:
        """So many of the dead, 0 for all."""
        dead = [member for member in self.members if not member.alive]
        for member in self.random.sample(dead, min(count, len(dead)) if count else len(dead)):
            member.boot()

    def partition(self, groups: int) -> None:
        """Every node, dead ones too, is on one of so many sides."""
        self.network.side = {member.number: self.random.randrange(groups) for member in self.members}

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)

    def agreed(self) -> bool:
        """Whether all nodes that live have the same view, by which they reach each other."""
        here = self.alive
        if len({member.node.mesh.gossip.replica.digest for member in here}) > 1:
            return False
        # The same links lead to all from everywhere, if they do from somewhere.
        return not here or len(here[0].node.mesh.topology.ways()) == len(here) - 1

    def until_agreed(self, seconds: float, step: float = 0.25) -> float | None:
        """How long it took, or None if it did not come to that."""
        start = self.clock.now
        while self.clock.now - start <= seconds:
            if self.agreed():
                return self.clock.now - start
            self.run(step)
        return None

    def spread(self, author: Member, seconds: float = 10.0, step: float = 0.005) -> float | None:
        """How long a change of `author` takes to reach every node that lives; None: longer than `seconds`."""
        news, start = author.change(), self.clock.now
        lacking = self.alive
        while self.clock.now - start < seconds:
            self.run(step)
            lacking = [member for member in lacking if not member.has(news)]
            if not lacking:
                return self.clock.now - start
        return None

    def faults(self) -> list[str]:
        """Invariants that do not hold for nodes that live, once their views agree."""
        found = []
        owners = {member.block: member.id for member in self.alive}
        for member in self.alive:
            counters = member.node.counters
            found += [
                f"{member.name} counts {name}" for name in ("gossip_forged", "gossip_malformed") if name in counters
            ]
            found += [f"{member.name}: {text}" for text in member.errors]
            routes = member.node.routes
            for block, owner in owners.items():
                if owner != member.id and block not in routes.routed(owner):
                    found.append(f"{member.name} has no route to {block}")
        return found
