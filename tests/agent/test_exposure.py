"""Exposing: the lease before the address and after it, all or nothing, and what is lost is off the bridge and told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest

from tests.core.villages import local
from tunrouter.agent import exposure, rows
from tunrouter.agent.addressing import Addressing
from tunrouter.agent.attachments import HOST, Attachments, Wish
from tunrouter.agent.control import Control
from tunrouter.agent.exposure import CHOSEN, Exposure, forget, kept_on
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.tickets import Tickets
from tunrouter.core.journal import Key, LeaseRow, Persist, Row
from tunrouter.core.node import Node
from tunrouter.core.outbox import Answer, Effect
from tunrouter.core.requests import Allocate, Request
from tunrouter.core.routes import Announced
from tunrouter.edge.api import DetachCall, ReleaseCall, ReserveCall
from tunrouter.edge.netns import Namespace
from tunrouter.edge.store import Store
from tunrouter.errors import AgentError, ConfigError, HostError

RANGE, BLOCK, OTHER = (IPv4Network(text) for text in ("10.32.0.0/12", "10.32.7.0/24", "10.32.8.0/24"))


class FakeHost:
    """What lies on the bridge."""

    def __init__(self, disk: dict[Key, Row]) -> None:
        self.shown: frozenset[IPv4Address] = frozenset()
        self.seen: list[set[str]] = []
        self.fail: Exception | None = None
        self.went = asyncio.Event()
        self.went.set()
        self._disk = disk

    def expose(self, addresses: Iterable[IPv4Address]) -> None:
        self.shown = frozenset(addresses)
        self.seen.append(set(map(str, self.shown)))
        assert self.shown <= leased(self._disk), "each one's lease is on disk before it is there, and until it is not"

    async def expose_now(self, addresses: Iterable[IPv4Address]) -> None:
        exactly = tuple(addresses)
        await self.went.wait()
        if self.fail is not None:
            raise self.fail
        self.expose(exactly)


def leased(disk: dict[Key, Row]) -> set[IPv4Address]:
    return set(kept_on(disk.values()).values())


class World:
    """A real node, with the block 10.32.`number`.0/24, whose disk waits for `write` when `writes` is unset."""

    def __init__(self, disk: dict[Key, Row] | None = None, number: int = 7) -> None:
        self.disk: dict[Key, Row] = disk if disk is not None else {}
        self.pending: list[Persist] = []
        self.writes = True
        self.node = Node(local(number), RANGE, static=True)
        self.tickets = Tickets(asyncio.get_running_loop(), self._ask)
        self.host = FakeHost(self.disk)
        self.attachments = Attachments(cast("HostSide", self.host), self.tickets)
        kept = kept_on(self.disk.values())
        self.host.shown = frozenset(kept.values())
        self.carry(self.node.start((), time.monotonic(), list(self.disk.values())))
        self.exposure = Exposure(self.node, cast("HostSide", self.host), self.tickets, self.attachments, kept)
        self.exposure.look()

    def _ask(self, request: Request) -> None:
        self.carry(self.node.ask(request, time.monotonic()))

    def carry(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.pending.append(effect)
            elif isinstance(effect, Answer):
                self.tickets.answered(effect.ticket, effect.result)
        if self.writes:
            self.write()

    def write(self) -> None:
        while self.pending:
            batch = self.pending.pop(0)
            for key, row in batch.changes.items():
                if row is None:
                    self.disk.pop(key, None)
                else:
                    self.disk[key] = row
            self.carry(self.node.on_durable(batch.number, time.monotonic()))

    async def expose(self, *addresses: str) -> tuple[str, ...]:
        return await self.exposure.expose(addresses)

    async def hide(self, *addresses: str) -> None:
        await self.exposure.hide(addresses)

    async def attach(self, container: str, address: str | None = None) -> IPv4Address:
        return await self.tickets.allocate(container, "eth0", IPv4Address(address) if address else None)

    @property
    def shown(self) -> set[str]:
        return set(map(str, self.host.shown))

    @property
    def held(self) -> dict[str, str]:
        """By interface, as `ps` shows them."""
        leases = self.node.allocator.addresses.leases()
        return {lease.interface: str(lease.address) for lease in leases if lease.container == HOST}

    def lose(self) -> None:
        """Its block, as when the electors say that it is another's."""
        lost = self.node.allocator.addresses.drop_block(BLOCK)
        self.node.allocator._on_lost(lost)
        self.carry(self.node.own((), time.monotonic()))

    def regain(self) -> None:
        self.node.allocator.addresses.add_block(BLOCK, time.monotonic(), rested=True)
        self.node.allocator._on_gained(BLOCK, time.monotonic())
        self.carry(self.node.on_timer(time.monotonic()))
        if self.writes:
            self.announce()

    def announce(self) -> None:
        """Its blocks, which is done when they are on disk."""
        own = tuple(map(Announced, self.node.allocator.addresses.blocks))
        self.carry(self.node.own(own, time.monotonic()))


def running(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def turns(count: int = 10) -> None:
    """Whoever can go on does."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_allocator_chooses_one_and_the_same_again_and_others_are_asked_for() -> None:
    async def scenario() -> None:
        world = World()
        assert await world.expose() == await world.expose() == ("10.32.7.2",)
        assert await world.expose("10.32.7.9", "10.32.7.2", "10.32.7.9") == ("10.32.7.9", "10.32.7.2")
        assert world.held == {CHOSEN: "10.32.7.2", "10.32.7.9": "10.32.7.9"}
        assert world.shown == {"10.32.7.2", "10.32.7.9"}
        assert await world.expose() == ("10.32.7.2",), "whatever was asked for meanwhile"

    running(scenario())


def test_it_is_on_disk_before_it_is_on_the_bridge() -> None:
    async def scenario() -> None:
        world = World()
        world.writes = False
        exposed = asyncio.ensure_future(world.expose("10.32.7.9"))
        await turns()
        world.exposure.look()
        assert (world.shown, exposed.done()) == (set(), False)
        world.write()
        assert await exposed == ("10.32.7.9",)
        assert world.shown == {"10.32.7.9"}

    running(scenario())


def test_it_is_off_the_bridge_before_it_is_free() -> None:
    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.9")
        world.host.went.clear()
        hidden = asyncio.ensure_future(world.hide())
        await turns()
        assert world.held == {"10.32.7.9": "10.32.7.9"}
        world.host.went.set()
        await hidden
        assert (world.held, world.shown) == ({}, set())

    running(scenario())


def test_some_or_all_are_hidden_and_what_is_not_exposed_is_hidden_already() -> None:
    async def scenario() -> None:
        world = World()
        await world.hide()
        await world.expose("10.32.7.8", "10.32.7.9")
        await world.expose()
        await world.hide("10.32.7.9", "192.0.2.1")
        assert world.held == {"10.32.7.8": "10.32.7.8", CHOSEN: "10.32.7.2"}
        await world.hide("10.32.7.2")
        assert world.shown == {"10.32.7.8"}
        await world.hide()
        assert (world.held, world.shown) == ({}, set())

    running(scenario())


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.32.7.0", "broadcast address, or a gateway; choose another address"),
        ("10.32.7.1", "broadcast address, or a gateway; choose another address"),
        ("10.32.7.255", "broadcast address, or a gateway; choose another address"),
        ("10.32.8.9", r"10\.32\.8\.9: it is in no block of this node; choose one of 10\.32\.7\.0/24"),
        ("10.32.7.3", r"10\.32\.7\.3: another interface holds it \(web\); choose another"),
    ],
)
def test_if_one_cannot_be_none_is(address: str, words: str) -> None:
    async def scenario() -> None:
        world = World()
        await world.attach("web", "10.32.7.3")
        with pytest.raises(AgentError, match=words):
            await world.expose("10.32.7.9", address)
        assert (world.held, world.shown) == ({}, set())
        assert await world.expose("10.32.7.9") == ("10.32.7.9",), "it does not even rest"

    running(scenario())


def test_one_that_a_container_has_just_released_may_be_asked_for() -> None:
    async def scenario() -> None:
        world = World()
        await world.attach("gone", "10.32.7.4")
        await world.tickets.release("gone", "eth0")
        assert await world.expose("10.32.7.4") == ("10.32.7.4",)

    running(scenario())


def test_one_that_is_given_away_at_the_last_moment_ends_them_all() -> None:
    async def scenario() -> None:
        world = World()
        ask = world.tickets._ask

        def beaten(request: Request) -> None:
            """A container is quicker."""
            if isinstance(request, Allocate) and request.wanted == IPv4Address("10.32.7.9"):
                ask(Allocate(0, "web", "eth0", request.wanted))
            ask(request)

        world.tickets._ask = beaten
        with pytest.raises(AgentError, match=r"10\.32\.7\.9: another interface holds it \(web\)"):
            await world.expose("10.32.7.8", "10.32.7.9")
        assert (world.held, world.shown) == ({}, set())

    running(scenario())


def test_no_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "MAX_EXPOSED", 3)

    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.8", "10.32.7.9")
        with pytest.raises(AgentError, match="may expose 3 addresses; hide some"):
            await world.expose("10.32.7.10", "10.32.7.11")
        assert await world.expose("10.32.7.8", "10.32.7.9", "10.32.7.10")
        assert world.shown == {"10.32.7.8", "10.32.7.9", "10.32.7.10"}

    running(scenario())


def test_what_the_host_refuses_is_undone() -> None:
    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.8")
        world.host.fail = HostError("no bridge", "make one")
        with pytest.raises(HostError, match="no bridge"):
            await world.expose("10.32.7.9")
        assert (world.held, world.shown) == ({"10.32.7.8": "10.32.7.8"}, {"10.32.7.8"})
        with pytest.raises(HostError, match="no bridge"):
            await world.hide()
        assert world.held == {"10.32.7.8": "10.32.7.8"}, "it is on the bridge"
        world.host.fail = None
        world.exposure.look()
        await world.hide()
        assert (world.held, world.shown) == ({}, set())

    running(scenario())


def test_who_gives_up_waiting_leaves_it_to_be_done() -> None:
    async def scenario() -> None:
        world = World()
        world.host.went.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await world.expose("10.32.7.9")
        hidden = asyncio.ensure_future(world.hide())
        await turns()
        assert (world.held, world.shown) == ({"10.32.7.9": "10.32.7.9"}, set()), "one after the other"
        world.host.went.set()
        await hidden
        assert (world.held, world.shown) == ({}, set())
        assert world.host.seen == [{"10.32.7.9"}, set()], "it was done"

    running(scenario())


def test_a_node_that_leaves_exposes_nothing() -> None:
    async def scenario() -> None:
        world = World()
        async with world.attachments.leaving():
            with pytest.raises(AgentError, match="is leaving its cluster"):
                await world.expose()
        assert world.held == {}

    running(scenario())


def test_the_next_life_has_it_and_it_is_this_ones_until_it_is_hidden() -> None:
    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.9")
        await world.expose()
        again = World(world.disk)
        assert again.shown == {"10.32.7.2", "10.32.7.9"}
        assert await again.expose() == ("10.32.7.2",)
        assert await again.attach("web") == IPv4Address("10.32.7.3"), "a container gets another"
        await again.hide()
        assert World(again.disk).shown == set()

    running(scenario())


def test_what_was_lost_with_its_block_leaves_the_bridge_and_comes_back_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.9")
        world.lose()
        world.exposure.look()
        assert world.shown == set()
        (complaint,) = world.exposure.complaints()
        assert complaint.startswith("10.32.7.9 was exposed, and is not now: its block is not this node's any more; see")
        assert complaint in caplog.text
        with pytest.raises(AgentError, match=r"10\.32\.7\.9: it is in no block"):
            await world.expose("10.32.7.9")
        world.writes = False
        world.regain()
        world.exposure.look()
        assert world.shown == set(), "that is not on disk yet"
        world.write()
        world.announce()
        world.exposure.look()
        assert (world.shown, world.exposure.complaints()) == ({"10.32.7.9"}, [])
        assert "10.32.7.9 is exposed again" in caplog.text

    running(scenario())


def test_who_hides_what_was_lost_hears_of_it_no_more() -> None:
    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.9")
        world.lose()
        world.exposure.look()
        await world.hide("10.32.7.9")
        assert world.exposure.complaints() == []
        world.regain()
        world.exposure.look()
        assert (world.held, world.shown) == ({}, set())

    running(scenario())


def test_the_successor_of_one_that_was_lost_stays_when_the_block_comes_back() -> None:
    async def scenario() -> None:
        world = World()
        await world.expose()
        world.lose()
        world.exposure.look()
        waits = asyncio.ensure_future(world.expose())
        await turns()
        world.node.allocator.addresses.add_block(OTHER, time.monotonic(), rested=True)
        world.carry(world.node.own((Announced(OTHER),), time.monotonic()))
        assert await waits == ("10.32.8.2",)
        world.regain()
        world.exposure.look()
        assert (world.held, world.exposure.complaints()) == ({CHOSEN: "10.32.8.2"}, [])

    running(scenario())


def test_a_container_that_was_found_living_there_is_right(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.9")
        await world.tickets.claim("web", "eth0", IPv4Address("10.32.7.9"))
        world.exposure.look()
        assert world.shown == set()
        (complaint,) = world.exposure.complaints()
        assert "10.32.7.9 was exposed, and is not now: a container has it" in complaint
        assert complaint in caplog.text

    running(scenario())


def test_a_block_that_the_operator_changed_takes_it_along_and_hiding_it_is_for_good() -> None:
    async def scenario() -> None:
        world = World()
        await world.expose("10.32.7.9")
        elsewhere = World(world.disk, number=8)
        assert elsewhere.shown == set()
        assert len(elsewhere.exposure.complaints()) == 1
        back = World(dict(elsewhere.disk))
        assert back.shown == {"10.32.7.9"}
        await elsewhere.hide()
        assert World(elsewhere.disk, number=8).exposure.complaints() == []
        assert World(elsewhere.disk).shown == set()

    running(scenario())


def test_no_container_is_called_so() -> None:
    async def scenario() -> None:
        world = World()
        await world.expose()
        wish = Wish(cast("Namespace", None), HOST, "eth0", 1376)
        refused = world.attachments.attach(wish), world.attachments.detach(DetachCall("", HOST, CHOSEN))
        for work in refused:
            with pytest.raises(ConfigError, match="weave:expose is this host itself"):
                await work
        addressing = Addressing(cast("Control", type("Asked", (), {"node": world.node})), world.tickets)
        with pytest.raises(ConfigError, match="weave:expose is this host itself"):
            await addressing.reserve(ReserveCall(HOST))
        await addressing.answer(ReleaseCall(HOST))
        assert world.held == {CHOSEN: "10.32.7.2"}

    running(scenario())


def test_what_is_exposed_is_forgotten_while_no_agent_runs(tmp_path: Path) -> None:
    assert forget(tmp_path / "nothing") == []
    store = Store(tmp_path)
    web, old = LeaseRow(BLOCK[3], "web", "eth0", 0), LeaseRow(BLOCK[4], "", "", 7)
    mine = LeaseRow(BLOCK[9], HOST, "10.32.7.9", 0), LeaseRow(BLOCK[2], HOST, CHOSEN, 0)
    store.write(rows.changes(Persist(1, {row.key: row for row in (web, old, *mine)}))).result()
    store.close()
    assert sorted(forget(tmp_path)) == ["exposed address 10.32.7.2", "exposed address 10.32.7.9"]
    store = Store(tmp_path)
    found = {row for row in rows.recall(store.rows()) if isinstance(row, LeaseRow)}
    store.close()
    assert {web, old} < found
    resting = found - {web, old}
    assert {row.address for row in resting} == {BLOCK[2], BLOCK[9]}
    assert {(row.container, row.order) for row in resting} == {("", 8), ("", 9)}, "they rest, as all that was released"
    assert forget(tmp_path) == []
