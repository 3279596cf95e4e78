"""Gossip alone on a virtual clock: replicas whose neighbours talk over links with delay and loss."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from ipaddress import IPv4Network
from itertools import count

from tunrouter.core import keys, wire
from tunrouter.core.gossip import Gossip
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox
from tunrouter.core.record import Block, BlocksBody, Record
from tunrouter.core.routes import Announced


def local(seed: int, incarnation: int = 1) -> Local:
    return Local(
        identity=keys.Identity(seed.to_bytes(32, "big")),
        incarnation=incarnation,
        ring=keys.KeyRing(()),
        network="weave",
        name=f"n{seed}",
        blocks=(Announced(IPv4Network(f"10.32.{seed % 256}.0/24")),),
        block_length=24,
        pod_mtu=1376,
        random=random.Random(seed).randbytes,
    )


def body(version: int, address: str = "10.32.0.0/24") -> BlocksBody:
    return BlocksBody((Block(address, version),))


class Villager:
    def __init__(self, village: Village, seed: int, incarnation: int = 1) -> None:
        self.seed = seed
        self.out = Outbox()
        self.local = local(seed, incarnation)
        self.id = self.local.id
        self.news: list[Record] = []
        self.gossip = Gossip(self.local, self.out, lambda node, said: village.carry(self.id, node, said), village.now)

    @property
    def view(self) -> frozenset[bytes]:
        return frozenset(record.data for record in self.gossip.replica)


class Village:
    def __init__(self, size: int, *, degree: int = 8, seed: int = 1, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.now = 100.0
        self.loss = loss
        self.delay = (0.001, 0.05)
        """Seconds one way, the least and the most."""
        self.cut: Callable[[int, int], bool] = lambda source, target: False
        self.messages = 0
        self.bytes = 0
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.people: dict[int, Villager] = {}
        for number in range(1, size + 1):
            self.add(number)
        everybody = list(self.people)
        for number, one in enumerate(everybody):
            self.befriend(one, everybody[(number + 1) % size])
        while size > degree and sum(len(v.gossip.neighbours) for v in self.people.values()) < size * degree:
            self.befriend(*self.rng.sample(everybody, 2))

    def add(self, seed: int, incarnation: int = 1) -> Villager:
        villager = Villager(self, seed, incarnation)
        self.people[villager.id] = villager
        return villager

    def befriend(self, one: int, other: int) -> None:
        if one != other:
            self.people[one].gossip.up(other, self.now)
            self.people[other].gossip.up(one, self.now)

    def part(self, one: int, other: int) -> None:
        self.people[one].gossip.down(other)
        self.people[other].gossip.down(one)

    def carry(self, source: int, target: int, said: wire.GossipBody) -> None:
        encoded = wire.encode_control(said)
        assert len(encoded) <= 2 + 1100
        self.messages += 1
        self.bytes += len(encoded) + wire.OVERHEAD + 28
        if self.cut(source, target) or self.rng.random() < self.loss:
            return
        self.at(self.rng.uniform(*self.delay), lambda: self._arrive(source, target, encoded))

    def _arrive(self, source: int, target: int, encoded: bytes) -> None:
        villager = self.people.get(target)
        said = wire.decode_control(encoded)
        assert isinstance(said, wire.GossipBody)
        if villager is not None:
            villager.news += villager.gossip.hear(source, said, self.now)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            for villager in self.people.values():
                villager.gossip.tick(self.now)
            due = min(
                self._events[0][0] if self._events else end,
                *(villager.gossip.deadline for villager in self.people.values()),
            )
            if due > end:
                break
            assert due > self.now or self._events[0][0] <= self.now, "a deadline does not move on"
            self.now = max(due, self.now)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            if due == end:
                break
        self.now = end

    def until_equal(self, seconds: float) -> float:
        """Runs until all views are equal; how long it took."""
        start = self.now
        while len({villager.view for villager in self.people.values()}) > 1:
            assert self.now - start < seconds, f"views differ after {seconds} s"
            self.run(0.01)
        return self.now - start
