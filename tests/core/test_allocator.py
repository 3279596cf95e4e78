"""The door to addresses: who waits costs nothing until something changes, and what is in use is never forgotten."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import count
from typing import cast
from unittest.mock import Mock

from tests.core.villages import local
from tunrouter.core import bounds
from tunrouter.core.allocator import Allocator
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Answer, Outbox, Refusal
from tunrouter.core.requests import Allocate, Claim, Release
from tunrouter.core.routes import Announced

RANGE = IPv4Network("10.32.0.0/12")
BLOCKS = tuple(RANGE.subnets(new_prefix=24))[:5]


class Untold:
    """Nobody knows of later lives of this node."""

    usurper = outlived = 0


class World:
    """Blocks given by hand, so that no electors are asked; the disk is quick."""

    def __init__(self, *blocks: IPv4Network) -> None:
        self.out, self.tickets = Outbox(), count(1)
        node = local(1)
        node.blocks = tuple(map(Announced, blocks))
        self.allocator = Allocator(
            node, cast("Mesh", Untold()), self.out, lambda *_: None, RANGE, lambda *_: None, static=True
        )
        self.allocator.start(0.0)
        self.addresses = self.allocator.addresses
        self.answers: dict[int, object] = {}
        self.tries = Mock(wraps=self.addresses.allocate)
        self.addresses.allocate = self.tries  # type: ignore[method-assign]

    @property
    def tried(self) -> int:
        """So often since this was asked last."""
        tried = self.tries.call_count
        self.tries.reset_mock()
        return tried

    def step(self, now: float) -> None:
        self.allocator.tick(now)
        self.allocator.finish(now)
        journal = self.allocator.journal
        journal.committed(journal.durable + journal.behind, now)
        for effect in self.out.take():
            if isinstance(effect, Answer):
                self.answers[effect.ticket] = effect.result

    def add(self, container: str, now: float, wanted: IPv4Address | None = None) -> int:
        ticket = next(self.tickets)
        self.allocator.ask(Allocate(ticket, container, "eth0", wanted), now)
        self.step(now)
        return ticket

    def drop(self, container: str, now: float) -> None:
        self.allocator.ask(Release(next(self.tickets), container, "eth0"), now)
        self.step(now)


def test_who_waits_is_tried_when_something_changed_and_when_its_time_is_over() -> None:
    world = World(*BLOCKS)
    had = {f"c{one}": world.add(f"c{one}", 0.0) for one in range(300)}
    before = {container: world.answers[ticket] for container, ticket in had.items()}
    for container in had:
        world.drop(container, 0.0)
    for block in BLOCKS:
        world.addresses.close(block)
    assert world.tried == 300
    tickets = {container: world.add(container, 1.0) for container in had}
    assert world.tried == 300, "who asks is tried once, and nobody again because of it"
    for at in range(20):
        world.step(1.0 + at / 10)
    world.drop("stranger", 3.0)
    assert world.tried == 0, "nothing has changed"
    assert world.allocator.deadline == 1.0 + bounds.ALLOCATE_SECONDS
    for block in BLOCKS:
        world.addresses.open(block)
    world.step(3.0)
    assert world.tried == 300
    assert {container: world.answers[ticket] for container, ticket in tickets.items()} == before


def test_what_is_released_in_closed_blocks_has_nobody_tried() -> None:
    world = World(BLOCKS[0])
    for one in range(100):
        world.add(f"c{one}", 0.0)
    world.addresses.close(BLOCKS[0])
    for one in range(50):
        world.add(f"waits{one}", 1.0)
    assert world.tried == 150
    for one in range(100):
        world.drop(f"c{one}", 2.0)
    assert world.tried == 0
    world.step(1.0 + bounds.ALLOCATE_SECONDS)
    assert world.tried == 50
    assert sum(isinstance(answer, Refusal) for answer in world.answers.values()) == 50


def test_who_has_no_chance_stands_in_nobodys_way() -> None:
    block = IPv4Network("10.32.5.0/29")
    world = World(block)
    for one in range(5):
        world.add(f"c{one}", 0.0)
    world.addresses.close(block)
    world.drop("c3", 1.0)
    stranger, again = world.add("stranger", 1.0), world.add("c3", 1.0)
    assert not world.answers.keys() & {stranger, again}
    world.addresses.open(block)
    world.step(2.0)
    assert world.answers[again] == block[5]
    assert stranger not in world.answers
    world.step(1.0 + bounds.ALLOCATE_SECONDS)
    assert isinstance(world.answers[stranger], Refusal)


def test_all_that_is_found_in_use_is_remembered_until_its_block_is_here() -> None:
    """A database was lost with more pods on this host than may wait for an address."""
    world = World()
    pods = [BLOCKS[one // 250][2 + one % 250] for one in range(1250)]
    assert len(pods) > bounds.MAX_PENDING
    for one, address in enumerate(pods):
        world.allocator.ask(Claim(next(world.tickets), f"pod{one}", "eth0", address), 0.0)
    assert len(world.allocator.claims) == len(pods)
    for block in BLOCKS:
        world.addresses.add_block(block, 0.0, rested=True)
        world.allocator._on_gained(block, 0.0)
    given = {world.answers[world.add(f"new{one}", 1.0)] for one in range(15)}
    assert len(given) == 15
    assert not given & set(pods)
    assert isinstance(world.answers[world.add("thief", 1.0, pods[-1])], Refusal)
