"""Nodes that agree on blocks and give out addresses: the real allocators, on a virtual clock, network and disks.

Law: nothing here knows what is right; it carries, delays, loses, crashes, and writes down who held which address when.
The mesh is played: who can reach whom, with the time that takes to notice, and records that spread by exchange.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Set
from ipaddress import IPv4Address, IPv4Network
from itertools import count
from typing import NamedTuple, cast

from tests.core.villages import local as local_of
from tests.sim.kubernetes import Api
from tunrouter.core import wire
from tunrouter.core.allocator import Allocator
from tunrouter.core.asking import RegisterBody
from tunrouter.core.clones import INCARNATION
from tunrouter.core.electorate import Founding
from tunrouter.core.electors import DISK
from tunrouter.core.ipam import Ipam
from tunrouter.core.journal import ClusterRow, Key, Persist, RegisterRow, Row
from tunrouter.core.leases import News
from tunrouter.core.leave import Left
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Answer, CreateLease, DeleteLease, Fatal, Fenced, Log, Outbox, TakeLease
from tunrouter.core.record import ClusterBody, NodeBody
from tunrouter.core.registers import BLOCK
from tunrouter.core.requests import Allocate, Claim, Leave, Release, Remove
from tunrouter.core.routes import Announced, Owner

NETWORK = IPv4Network("10.32.0.0/22")
LENGTH = 28
NOTICED_SECONDS = 3.0
EXCHANGE_SECONDS = 0.2

Holder = tuple[str, str]
"""Machine, container."""


class Said(NamedTuple):
    """All that one node's records say, in one."""

    version: tuple[int, int]
    cluster: ClusterBody
    blocks: tuple[Announced, ...]
    uid: str = ""


class PlayedMesh:
    """What an allocator sees of the mesh."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.here: frozenset[int] = frozenset()
        self.view: dict[int, Said] = {}
        self.usurper = self.outlived = 0
        self.changes = 0
        """How often `view` has changed."""
        self.heard: dict[Seat, tuple[int, int]] = {}
        """For each other, its life and how often its view had changed when it was heard last."""
        self._sequence = 0
        self._said = Said((0, 0), ClusterBody(0, 0, 0, None), ())

    def say_cluster(self, body: ClusterBody) -> None:
        self._say(self._said._replace(cluster=body))

    def say_blocks(self, blocks: tuple[Announced, ...]) -> None:
        self._say(self._said._replace(blocks=blocks))

    def say_node(self, now: float) -> None:
        self._say(self._said._replace(uid=self._seat.local.uid))

    def node(self, node: int) -> NodeBody | None:
        said = self.view.get(node)
        return NodeBody(self.name_of(node), 1376, (), said.uid) if said is not None else None

    def reconsider(self, place: int, nodes: Set[int]) -> None:
        """What is announced is not filtered here: who judges it is asked by the checks."""

    @property
    def away(self) -> list[int]:
        return [node for node in self.nodes if node not in self.here]

    def say_again(self) -> None:
        self._say(self._said)

    def _say(self, said: Said) -> None:
        self._sequence += 1
        self.changes += 1
        self._said = self.view[self._seat.id] = said._replace(version=(self._seat.incarnation, self._sequence))

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(sorted(self.view.keys() - {self._seat.id}))

    def knows(self, node: int) -> bool:
        return node in self.view

    def name_of(self, node: int) -> str:
        return self._seat.parliament.seats[node].name

    def cluster(self, node: int) -> ClusterBody | None:
        said = self.view.get(node)
        return said.cluster if said is not None else None

    def incarnation(self, node: int) -> int:
        return self.view[node].version[0] if node in self.view else 0

    def bury(self, node: int) -> None:
        self._seat.buried[node] = self.incarnation(node)
        self.view.pop(node, None)
        self.changes += 1
        self.heard.clear()

    def owners(self) -> Mapping[int, Owner]:
        found: dict[int, Owner] = {}
        for node, said in self.view.items():
            for block, version in said.blocks:
                place = (int(block.network_address) - int(NETWORK.network_address)) >> (32 - LENGTH)
                owner = Owner(node, version)
                found[place] = min(found.get(place, owner), owner, key=lambda one: (-one.version, one.node))
        return found


class Seat:
    """One node through all its lives, with its disk and its containers."""

    def __init__(self, parliament: Parliament, number: int, founding: Founding | None) -> None:
        self.parliament = parliament
        self.number = number
        self.machine = number
        """A copy is another one."""
        self.name = f"n{number}"
        self.id = local_of(number).id
        self.founding = founding
        self.life = 0
        self.local = local_of(number)
        self.alive = False
        self.disk: dict[Key, Row] = {}
        self.unwritten: list[Persist] = []
        self.slow = 0.0
        """So many seconds more until something is on disk."""
        self.containers: dict[str, IPv4Address] = {}
        """That run, with the address that each uses."""
        self.asked: dict[int, str] = {}
        self.answers: dict[int, object] = {}
        self.buried: dict[int, int] = {}
        self.log: list[str] = []
        self.fenced: set[IPv4Address] = set()
        self.stopped_until = 0.0
        self.due = 0.0
        """When its allocator wants to be woken."""

    @property
    def incarnation(self) -> int:
        return self.local.incarnation

    def boot(self, *, claim: bool = True, moved: bool = False) -> None:
        """Without `claim` it has only its disk to go by; `moved` if that may be a copy."""
        parliament = self.parliament
        self.life += 1
        self.alive = True
        self.due = 0.0
        self.asked.clear()
        self.unwritten.clear()
        self.buried.clear()
        self.out = Outbox()
        self.local = local = local_of(self.number, max(self.incarnation, self._asserted) + 1)
        local.block_length = LENGTH
        local.random = random.Random(f"{parliament.seed} {self.number} {self.life}").randbytes
        self.mesh = PlayedMesh(self)
        played, founding = cast("Mesh", self.mesh), self.founding
        self.allocator = Allocator(
            local, played, self.out, self._tell, NETWORK, self._own,
            static=False, kubernetes=parliament.api is not None, founding=founding,
        )  # fmt: skip
        self.allocator.restore(list(self.disk.values()), parliament.now)
        self.allocator.start(parliament.now, moved=ClusterRow("boot", b"") if moved else None)
        for container, address in self.containers.items() if claim else ():
            self.allocator.ask(Claim(next(parliament.tickets), container, "eth0", address), parliament.now)
        self.mesh.here = parliament.reachable(self)
        if parliament.api is not None:
            parliament.api.sync(self)
        self.step()

    @property
    def _asserted(self) -> int:
        """The incarnation that was taken during a life."""
        row = self.disk.get(("cluster", INCARNATION))
        return int.from_bytes(row.data, "big") if isinstance(row, ClusterRow) else 0

    @property
    def ipam(self) -> Ipam:
        return self.allocator.ipam

    def doubt_if_contested(self) -> None:
        owners = self.mesh.owners()
        for place, own in self.ipam.own.items():
            if place in owners and owners[place].node != self.id and owners[place].version > own.version:
                self.ipam.doubt(self.parliament.now)

    def _own(self, blocks: tuple[Announced, ...], now: float) -> None:
        self.mesh.say_blocks(blocks)

    def _tell(self, node: int, body: RegisterBody, now: float) -> None:
        self.parliament.carry(self, node, body)

    def step(self) -> None:
        now = self.parliament.now
        self.allocator.tick(now)
        self.allocator.finish(now)
        for effect in self.out.take():
            match effect:
                case Persist():
                    self.unwritten.append(effect)
                    takes = self.slow + self.parliament.rng.uniform(0.001, 0.02)
                    self.parliament.at(takes, self._written, self.life, effect)
                case CreateLease() | TakeLease() | DeleteLease():
                    assert self.parliament.api is not None
                    self.parliament.api.request(self, effect)
                case Answer(ticket, result):
                    self._answered(ticket, result)
                case Fenced(addresses):
                    self._fence(frozenset(addresses))
                case Log(level, _, text):
                    self.log.append(f"{level}: {text}")
                case Fatal(what):
                    self.log.append(f"fatal: {what}")
                    self.kill(written=99, host=self.is_copy)
                    return
        deadline = self.allocator.deadline
        if deadline != self.due and deadline < float("inf"):
            self.parliament.at(max(deadline - now, 0.0), self._wake, self.life, deadline)
        self.due = deadline

    def hear_api(self, news: News) -> None:
        self.allocator.hear_api(news, self.parliament.now)
        self.step()

    def _wake(self, life: int, deadline: float) -> None:
        if self.stopped:
            self.parliament.at(self.stopped_until - self.parliament.now, self._wake, life, deadline)
        elif self.alive and life == self.life and deadline == self.due:
            self.due = 0.0
            self.step()

    def _written(self, life: int, persist: Persist) -> None:
        """In order: a later batch never becomes durable before an earlier one."""
        if self.stopped:
            self.parliament.at(self.stopped_until - self.parliament.now, self._written, life, persist)
        elif self.alive and life == self.life and persist in self.unwritten:
            while self.unwritten:
                if self.parliament.crashes(self):
                    return
                first = self.unwritten.pop(0)
                self._write(first)
                if self.parliament.crashes(self):
                    return
                if first is persist:
                    break
            self.allocator.committed(persist.number, self.parliament.now)
            self.step()

    def _write(self, persist: Persist) -> None:
        for key, row in persist.changes.items():
            if row is None:
                self.disk.pop(key, None)
            else:
                self.disk[key] = row

    # --- containers --------------------------------------------------------------------------------------------------
    def add(self, container: str, wanted: IPv4Address | None = None) -> int:
        ticket = next(self.parliament.tickets)
        self.asked[ticket] = container
        self.allocator.ask(Allocate(ticket, container, "eth0", wanted), self.parliament.now)
        self.step()
        return ticket

    def drop(self, container: str) -> None:
        """The container is gone, and then its address is released."""
        address = self.containers.pop(container, None)
        if address is not None:
            self.parliament.freed(self, container, address)
        self.allocator.ask(Release(next(self.parliament.tickets), container, "eth0"), self.parliament.now)
        self.step()

    def _answered(self, ticket: int, result: object) -> None:
        self.answers[ticket] = result
        container = self.asked.pop(ticket, None)
        if container is not None and isinstance(result, IPv4Address):
            self.containers[container] = result
            self.parliament.held(self, container, result)
        if isinstance(result, Left):
            self.kill(written=99)
            self.disk.clear()
            self.founding = None

    def _fence(self, addresses: frozenset[IPv4Address]) -> None:
        self.fenced = set(addresses)
        for container, address in list(self.containers.items()):
            if address in addresses:
                del self.containers[container]
                self.parliament.freed(self, container, address)

    # --- faults ------------------------------------------------------------------------------------------------------
    @property
    def is_copy(self) -> bool:
        return self.parliament.seats.get(self.id) is not self

    @property
    def disk_id(self) -> int:
        row = self.disk.get(("cluster", DISK))
        return int.from_bytes(row.data, "big") if isinstance(row, ClusterRow) else 0

    def lose_disk(self) -> None:
        """All but its key; a node that had one founds no cluster in its place.

        Not where a majority of electors would be without their disks: who loses that has lost the registers.
        """
        if not self.alive and self.parliament.can_spare(self):
            self.disk.clear()
            self.founding = None

    def pause(self, seconds: float) -> None:
        """It stands still; what comes meanwhile waits."""
        self.stopped_until = max(self.stopped_until, self.parliament.now + seconds)

    def resume(self) -> None:
        self.stopped_until = 0.0

    @property
    def stopped(self) -> bool:
        return self.parliament.now < self.stopped_until

    def kill(self, written: int = 0, *, host: bool = False) -> None:
        """`written` of the batches that wait got to the disk; with the `host` its containers die, too."""
        if not self.alive:
            return
        self.alive = False
        for persist in self.unwritten[:written]:
            self._write(persist)
        self.unwritten.clear()
        if host:
            for container, address in self.containers.items():
                self.parliament.freed(self, container, address)
            self.containers.clear()


class Parliament:
    def __init__(
        self,
        size: int,
        *,
        seed: int = 1,
        foundings: Callable[[int], Founding | None] | None = None,
        kubernetes: bool = False,
    ) -> None:
        """The first founds alone and the others join, unless `foundings` says otherwise of each number.

        With `kubernetes` the API of a cluster decides.
        """
        self.api = Api(self) if kubernetes else None
        self.seed = seed
        self.rng = random.Random(f"parliament {seed}")
        self.now = 100.0
        self.loss = 0.0
        self.side: dict[int, int] = {}
        self.tickets = count(1)
        self.seats: dict[int, Seat] = {}
        self.copies: list[Seat] = []
        """Other machines with a copy of a disk."""
        self.holders: dict[IPv4Address, set[Holder]] = {}
        self.released: dict[IPv4Address, tuple[float, Holder]] = {}
        """When, and by whom: an address is still that one's until it is released."""
        self.violations: list[str] = []
        self.excused: set[IPv4Address] = set()
        """Addresses of blocks that were taken from a node by force: two may hold them for a while."""
        self.crash_at = 0
        """The node whose disk is written to as the so manieth stops there, between two writes or before the answer."""
        self.writes = 0
        self.crashed: Seat | None = None
        self._cut_at: dict[frozenset[int], float] = {}
        self._order = count()
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        for number in range(1, size + 1):
            alone = Founding(1) if number == 1 else None
            self.join(number, foundings(number) if foundings is not None else alone)
        self.at(EXCHANGE_SECONDS, self._exchange)

    def join(self, number: int, founding: Founding | None = None) -> Seat:
        seat = Seat(self, number, founding)
        self.seats[seat.id] = seat
        if self.api is not None:
            self.api.add_node(number)
        seat.boot()
        return seat

    def copy(self, seat: Seat, number: int = 0) -> Seat:
        """Another machine is started with a copy of its disk, as it is now, and has no containers yet."""
        copy = Seat(self, seat.number, None)
        copy.machine = number or seat.number
        copy.name += "'"
        copy.disk, copy.local, copy.life = dict(seat.disk), local_of(seat.number, seat.incarnation), 1 << 16
        self.copies.append(copy)
        copy.boot(moved=True)
        return copy

    @property
    def all(self) -> list[Seat]:
        return list(self.seats.values())

    @property
    def alive(self) -> list[Seat]:
        return [seat for seat in self.seats.values() if seat.alive]

    # --- the history -------------------------------------------------------------------------------------------------
    def held(self, seat: Seat, container: str, address: IPv4Address) -> None:
        holder = seat.name, container
        others = self.holders.get(address, set()) - {holder}
        if others and address not in self.excused:
            self.violations.append(f"{self.now:.2f} {address} of {seat.name}/{container} is held by {others}")
        released, by = self.released.get(address, (-1e9, holder))
        since = self.now - released
        if not others and since < 59.9 and by != holder and address not in self.excused:
            self.violations.append(f"{self.now:.2f} {address} of {seat.name}/{container} rested {since:.1f} s only")
        if not any(address in own_block for own_block in (seat.ipam.block(place) for place in seat.ipam.own)):
            self.violations.append(f"{self.now:.2f} {address} lies in no block of {seat.name}")
        self.holders.setdefault(address, set()).add(holder)

    def freed(self, seat: Seat, container: str, address: IPv4Address) -> None:
        holder = seat.name, container
        self.holders.get(address, set()).discard(holder)
        self.released[address] = self.now, holder

    def crashes(self, seat: Seat) -> bool:
        """Counted twice a write: just before it and just after."""
        self.writes += 1
        if self.writes == self.crash_at:
            self.crashed = seat
            seat.kill()
            return True
        return False

    # --- time and the network ----------------------------------------------------------------------------------------
    def at(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action, arguments))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            at, _, action, arguments = heapq.heappop(self._events)
            self.now = max(self.now, at)
            action(*arguments)
        self.now = end

    def until(self, condition: Callable[[], bool], seconds: float, step: float = 0.05) -> float:
        start = self.now
        while not condition():
            assert self.now - start < seconds, f"not within {seconds} s"
            self.run(step)
        return self.now - start

    # --- operators ---------------------------------------------------------------------------------------------------
    def remove(self, executor: Seat, victim: Seat, *, force: bool = False) -> int:
        """`rmpeer`. What a node still uses that is alive, or has containers, may be held twice for a while."""
        ticket = next(self.tickets)
        if not executor.alive:
            return ticket
        if (victim.alive or victim.containers) and (force or victim.id not in executor.mesh.here):
            for place in [place for place, owner in executor.mesh.owners().items() if owner.node == victim.id]:
                self.excused.update(executor.ipam.block(place))
            for place in victim.ipam.own:
                self.excused.update(victim.ipam.block(place))
        executor.allocator.ask(Remove(ticket, (victim.id,), force=force), self.now)
        executor.step()
        return ticket

    def leave(self, seat: Seat, *, force: bool = False) -> int:
        """With `force` its containers are stopped before."""
        ticket = next(self.tickets)
        if seat.alive:
            for container in list(seat.containers) if force else ():
                seat.drop(container)
            seat.allocator.ask(Leave(ticket, force=force), self.now)
            seat.step()
        return ticket

    def can_spare(self, seat: Seat) -> bool:
        """Whether a majority of the electors of each epoch in use would be left with its disks."""
        electors = [one.allocator.electors for one in self.all]
        known = {one.configuration for one in electors} | {one.booth.serves for one in electors}
        epochs = [configuration for configuration in known if configuration is not None]
        newest = max((configuration.epoch for configuration in epochs), default=0)
        for configuration in epochs:
            whole = [e for e in configuration.electors if e.node != seat.id and self.seats[e.node].disk_id == e.disk]
            if configuration.epoch >= newest - 1 and len(whole) < configuration.quorum:
                return False
        return True

    def chosen(self) -> dict[int, int]:
        """Of each register the newest version that a majority of its epoch's electors has on disk under one ballot."""
        votes: dict[tuple[int, tuple[int, int, int], int], set[int]] = {}
        sizes: dict[int, int] = {}
        for seat in self.all:
            configuration = seat.allocator.electors.configuration
            if configuration is not None:
                sizes[configuration.epoch] = configuration.quorum
            for row in seat.disk.values():
                if isinstance(row, RegisterRow) and row.kind == BLOCK and row.accepted[0]:
                    votes.setdefault((row.number, row.accepted, row.version), set()).add(seat.id)
        found: dict[int, int] = {}
        for (place, ballot, version), seats in votes.items():
            if len(seats) >= sizes.get(ballot[0], 99):
                found[place] = max(found.get(place, 0), version)
        return found

    def connected(self, one: Seat, other: Seat) -> bool:
        return one.alive and other.alive and self.side.get(one.machine, 0) == self.side.get(other.machine, 0)

    def partition(self, sides: Mapping[int, int]) -> None:
        self.side = dict(sides)

    def heal(self) -> None:
        self.side = {}

    def carry(self, source: Seat, node: int, body: RegisterBody) -> None:
        known = [seat for seat in (*self.all, *self.copies) if seat.id == node and (seat.alive or not seat.is_copy)]
        if not known or self.rng.random() < self.loss:
            return
        target = self.rng.choice(known) if len(known) > 1 else known[0]
        data = wire.encode_control(body)
        assert len(data) <= 1102, len(data)
        self.at(self.rng.uniform(0.001, 0.05), self._arrive, source, target, data)

    def _arrive(self, source: Seat, target: Seat, data: bytes) -> None:
        if target.stopped:
            self.at(target.stopped_until - self.now, self._arrive, source, target, data)
        elif self.connected(source, target):
            body = wire.decode_control(data)
            assert isinstance(body, RegisterBody)
            target.allocator.hear(source.id, body, self.now)
            target.step()

    def reachable(self, seat: Seat) -> frozenset[int]:
        """As the node sees it: who is cut off is missed after a while, who is back is back."""
        found = set()
        for other in self.all:
            if other.id == seat.id:
                continue
            pair = frozenset((seat.number, other.number))
            if self.connected(seat, other):
                self._cut_at.pop(pair, None)
                found.add(other.id)
            elif self.now - self._cut_at.setdefault(pair, self.now) < NOTICED_SECONDS and other.id in seat.mesh.here:
                found.add(other.id)
        return frozenset(found)

    def _exchange(self) -> None:
        """Everybody hears the newest records of everybody that it is connected with."""
        awake = [seat for seat in (*self.all, *self.copies) if seat.alive and not seat.stopped]
        for seat in awake:
            here = self.reachable(seat)
            news = here != seat.mesh.here
            seat.mesh.here = here
            for other in awake:
                if other is not seat and self.connected(seat, other):
                    news |= self._hear(seat, other)
            if news:
                seat.step()
        self.at(EXCHANGE_SECONDS, self._exchange)

    def _hear(self, seat: Seat, other: Seat) -> bool:
        """Whether there was anything new."""
        if seat.mesh.heard.get(other) == (other.life, other.mesh.changes):
            return False
        seat.mesh.heard[other] = other.life, other.mesh.changes
        for node, said in list(other.mesh.view.items()):
            mine = seat.mesh.view.get(node)
            buried = seat.buried.get(node, -1)
            if node == seat.id:
                seat.mesh.usurper = max(seat.mesh.usurper, said.version[0])
            elif said.version[0] <= buried:
                if self.connected(seat, self.seats[node]):
                    self.seats[node].mesh.outlived = said.version[0]
            elif mine is None or said.version > mine.version:
                seat.mesh.view[node] = said
                seat.mesh.changes += 1
                seat.allocator.on_cluster(node, said.cluster, self.now)
                seat.doubt_if_contested()
        return True
