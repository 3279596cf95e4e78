"""Attaching: the address is the allocator's, the devices are the host's, and neither is left without the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from tunrouter.agent.attachments import HOST, RESERVED, Attachments, Wish, asked
from tunrouter.agent.hostside import HostSide
from tunrouter.core.pool import Lease
from tunrouter.edge.api import DetachCall
from tunrouter.edge.netns import Namespace
from tunrouter.errors import AgentError, ConfigError, HostError
from tunrouter.host import Attached, Unwanted, Wanted
from tunrouter.host.blocks import is_usable

ONE, TWO = IPv4Network("10.32.1.0/30"), IPv4Network("10.32.2.0/29")
MTU = 1376


class FakeHost:
    """Namespaces are their own names; `fail` is raised by the next `attach`."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], Attached] = {}
        self.fail: Exception | None = None
        self.went = asyncio.Event()
        self.went.set()

    async def find(self, namespace: Namespace, interface: str) -> Attached | None:
        return self.pods.get((namespace.path, interface))

    async def attach(self, wanted: Wanted) -> Attached:
        await self.went.wait()
        if self.fail is not None:
            raise self.fail
        namespace, name, address, interface, mtu, _ = wanted
        path = namespace.path
        pod = Attached(port=f"port of {path}", name=name, address=address, interface=interface, mtu=mtu)
        self.pods[path, interface] = pod
        return pod

    async def detach(self, unwanted: Unwanted) -> list[Attached]:
        """Done by a thread, whoever gives up waiting for it."""
        return await asyncio.shield(asyncio.ensure_future(self._detach(unwanted)))

    async def _detach(self, unwanted: Unwanted) -> list[Attached]:
        await self.went.wait()
        path, name, interface = unwanted
        key = next((key for key, pod in self.pods.items() if (pod.name, pod.interface) == (name, interface)), None)
        pod = self.pods.pop((path, interface) if path else key or ("", ""), None)
        return [pod] if pod is not None else []

    async def attached(self) -> list[Attached]:
        return list(self.pods.values())

    def holds(self, name: str, interface: str) -> bool:
        return any((pod.name, pod.interface) == (name, interface) for pod in self.pods.values())


class FirstFree:
    """An allocator without memory: the lowest address that nobody has. It is told what is attached already."""

    def __init__(self, blocks: Callable[[], tuple[IPv4Network, ...]], pods: Iterable[Attached]) -> None:
        self._blocks = blocks
        self._given = {(pod.name, pod.interface): pod.address for pod in pods}

    async def allocate(self, container: str, interface: str, wanted: IPv4Address | None, pod: str) -> IPv4Address:
        key, blocks = (container, interface), self._blocks()
        if not blocks:
            raise AgentError("this node has no block of addresses", "wait until it has one: see tunrouter status")
        given = self._given.get(key)
        address = wanted or (given if given is not None and _usable(given, blocks) else self._free(blocks))
        if not _usable(address, blocks):
            where = ", ".join(map(str, blocks))
            raise ConfigError(f"address {address} cannot be a pod's on this node", f"choose one from {where}")
        holder = next((other for other, taken in self._given.items() if taken == address), key)
        if holder != key:
            raise ConfigError(f"address {address} is held by {holder[0]}", "detach it first, or choose another")
        self._given[key] = address
        return address

    async def release(self, container: str, interface: str) -> None:
        self._given.pop((container, interface), None)

    async def claim(self, container: str, interface: str, address: IPv4Address) -> bool:
        self._given[container, interface] = address
        return True

    def _free(self, blocks: tuple[IPv4Network, ...]) -> IPv4Address:
        taken = set(self._given.values())
        for block in blocks:
            for address in block.hosts():
                if is_usable(address, block) and address not in taken:
                    return address
        where = ", ".join(map(str, blocks))
        raise AgentError(f"no address is free in {where}", "detach a pod, or give the node a larger --block")


def _usable(address: IPv4Address, blocks: tuple[IPv4Network, ...]) -> bool:
    return any(is_usable(address, block) for block in blocks)


def there(path: str) -> Namespace:
    return cast("Namespace", SimpleNamespace(path=path))


class World:
    def __init__(self, *pods: Attached) -> None:
        self.host = FakeHost()
        self.blocks: tuple[IPv4Network, ...] = (ONE, TWO)
        self.allocator = FirstFree(lambda: self.blocks, pods)
        self.attachments = Attachments(cast("HostSide", self.host), self.allocator)

    async def attach(self, path: str, *, name: str = "", address: str | None = None, interface: str = "eth0") -> str:
        pod = await self.attachments.attach(Wish(there(path), name or path, interface, MTU, asked(address)))
        return f"{pod.address}/32"

    async def detach(self, path: str, *, name: str = "", interface: str = "eth0") -> None:
        await self.attachments.detach(DetachCall(path, name or path, interface))

    @property
    def given(self) -> dict[tuple[str, str], IPv4Address]:
        return self.allocator._given


def running(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_addresses_come_from_the_first_block_that_has_one_and_the_gateways_are_kept_free() -> None:
    async def scenario() -> None:
        world = World()
        assert [await world.attach(f"p{n}") for n in range(3)] == ["10.32.1.2/32", "10.32.2.2/32", "10.32.2.3/32"]
        assert await world.attach("p0", interface="net1") == "10.32.2.4/32"
        assert await world.attach("p0") == "10.32.1.2/32", "the same again"
        await world.attach("p5")
        await world.attach("p6")
        with pytest.raises(AgentError, match=r"no address is free in 10\.32\.1\.0/30, 10\.32\.2\.0/29"):
            await world.attach("p7")
        await world.detach("p1")
        assert await world.attach("p7") == "10.32.2.2/32"

    running(scenario())


def test_who_was_attached_before_the_agent_keeps_its_address() -> None:
    async def scenario() -> None:
        pod = Attached(port="x", name="old", address=ONE[2], interface="eth0", mtu=MTU)
        world = World(pod)
        world.host.pods["old", "eth0"] = pod
        assert await world.attach("new") == "10.32.2.2/32"
        assert await world.attach("old") == "10.32.1.2/32"

    running(scenario())


def test_a_wanted_address_is_given_or_refused_and_a_pod_may_move() -> None:
    async def scenario() -> None:
        world = World()
        assert await world.attach("a", address="10.32.2.5/32") == "10.32.2.5/32"
        with pytest.raises(ConfigError, match=r"10\.32\.2\.5 is held by a"):
            await world.attach("b", address="10.32.2.5")
        for address in ("10.32.2.1", "10.32.2.7", "10.40.0.2"):
            with pytest.raises(ConfigError, match="cannot be a pod's"):
                await world.attach("a", address=address)
        with pytest.raises(ConfigError, match="'no' is no IPv4 address"):
            await world.attach("a", address="no")
        assert await world.attach("a", address="10.32.2.6") == "10.32.2.6/32"
        assert world.given == {("a", "eth0"): TWO[6]}

    running(scenario())


def test_without_a_block_there_is_no_address_and_without_its_old_block_another_one() -> None:
    async def scenario() -> None:
        world = World()
        world.blocks = ()
        with pytest.raises(AgentError, match="has no block of addresses"):
            await world.attach("a")
        world.blocks = (ONE, TWO)
        assert await world.attach("a") == "10.32.1.2/32"
        world.blocks = (TWO,)
        assert await world.attach("a") == "10.32.2.2/32"

    running(scenario())


def test_what_the_host_refuses_leaves_no_address_behind_unless_the_pod_is_there() -> None:
    async def scenario() -> None:
        world = World()
        world.host.fail = HostError("no veth", "")
        with pytest.raises(HostError):
            await world.attach("a")
        assert world.given == {}
        world.host.fail = None
        await world.attach("a")
        world.host.fail = HostError("no veth", "")
        with pytest.raises(HostError):
            await world.attach("a")
        assert world.given == {("a", "eth0"): ONE[2]}

    running(scenario())


def test_a_container_keeps_the_name_under_which_it_was_attached_first() -> None:
    async def scenario() -> None:
        world = World()
        await world.attach("/proc/7/ns/net", name="7")
        assert await world.attach("/proc/7/ns/net", name="web") == "10.32.1.2/32"
        assert world.given == {("7", "eth0"): ONE[2]}
        await world.detach("/proc/7/ns/net", name="web")
        assert world.given == {}

    running(scenario())


def test_a_pod_that_vanished_frees_its_address_unless_its_container_is_there_again() -> None:
    async def scenario() -> None:
        world = World()
        await world.attach("a")
        await world.attach("b")
        world.host.pods.clear()
        world.host.went.clear()
        again = asyncio.ensure_future(world.attach("b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone = asyncio.ensure_future(world.attachments.release([("a", "eth0"), ("b", "eth0")]))
        await asyncio.sleep(0)
        world.host.went.set()
        assert await again == "10.32.2.2/32"
        await gone
        assert world.given == {("b", "eth0"): TWO[2]}
        assert len(world.attachments._turns) == 0, "nothing is kept of turns that are over"

    running(scenario())


def test_who_gives_up_waiting_for_a_deletion_leaves_no_address_held() -> None:
    async def scenario() -> None:
        world = World()
        await world.attach("a")
        world.host.went.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await world.detach("a")
        world.host.went.set()
        async with asyncio.timeout(5):
            while world.given:
                await asyncio.sleep(0)
        assert world.host.pods == {}

    running(scenario())


def test_what_is_gone_may_be_detached_and_is_free() -> None:
    async def scenario() -> None:
        world = World()
        await world.attach("a")
        world.host.pods.clear()
        await world.detach("a")
        await world.detach("never was")
        assert world.given == {}

    running(scenario())


def test_a_node_that_leaves_waits_for_what_is_being_attached_and_attaches_nothing_more() -> None:
    async def scenario() -> None:
        world = World()
        world.host.went.clear()
        late = asyncio.ensure_future(world.attach("a"))
        await asyncio.sleep(0)
        left = asyncio.ensure_future(leave(world, AgentError("no majority", "")))
        await asyncio.sleep(0)
        with pytest.raises(AgentError, match="is leaving its cluster; attach"):
            await world.attach("b")
        with pytest.raises(AgentError, match="is leaving its cluster already"):
            await leave(world)
        world.host.went.set()
        assert await late == "10.32.1.2/32"
        with pytest.raises(AgentError, match="no majority"):
            await left
        assert world.given == {}, "what was attached last was detached too"
        await world.attach("b")  # it did not leave
        await leave(world)
        with pytest.raises(AgentError, match="is leaving its cluster; attach"):
            await world.attach("a")

    async def leave(world: World, refusal: AgentError | None = None) -> None:
        async with world.attachments.leaving():
            await world.attachments.detach_all()
            if refusal is not None:
                raise refusal

    running(scenario())


def test_who_gives_up_waiting_leaves_the_pod_and_its_turn_to_the_work() -> None:
    async def scenario() -> None:
        world = World()
        world.host.went.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await world.attach("a")
        gone = asyncio.ensure_future(world.detach("a"))
        await asyncio.sleep(0.01)
        assert world.given == {("a", "eth0"): ONE[2]}, "it is being attached"
        world.host.went.set()
        await gone
        assert (world.given, world.host.pods) == ({}, {}), "and is taken off after that"

    running(scenario())


def test_what_fails_after_its_caller_has_gone_gives_the_address_back() -> None:
    async def scenario() -> None:
        world = World()
        world.host.went.clear()
        world.host.fail = HostError("no veth", "")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await world.attach("a")
        world.host.went.set()
        async with world.attachments.leaving():
            assert world.given == {}

    running(scenario())


def test_what_is_released_as_stale_stays_with_a_pod_that_came_meanwhile() -> None:
    async def scenario() -> None:
        world = World()
        await world.attach("a")
        await world.attachments.release([("a", "eth0"), ("b", "eth0")])
        assert world.given == {("a", "eth0"): ONE[2]}

    running(scenario())


def test_who_comes_before_it_is_known_who_is_gone_waits_and_then_finds_what_they_had_free() -> None:
    async def scenario() -> None:
        pods = [Attached(port=name, name=name, address=ONE[2], interface="eth0", mtu=MTU) for name in ("gone", "here")]
        world = World(pods[0])
        world.host.pods["here", "eth0"] = here = msgspec.structs.replace(pods[1], address=TWO[2])
        held = [Lease(ONE[2], "gone", "eth0"), Lease(TWO[2], "here", "eth0"), Lease(TWO[3], HOST, "auto")]
        held.append(Lease(TWO[4], "kept", RESERVED))
        for address, container, interface, _ in held[2:]:
            world.given[container, interface] = address
        work = world.attachments.reconcile([here], lambda: held)
        coming = asyncio.ensure_future(world.attach("new"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not coming.done(), "from the moment on in which it is said"
        await work
        assert await coming == "10.32.1.2/32"
        names = {name for name, _ in world.given}
        assert names == {"new", "here", HOST, "kept"}

    running(scenario())


def test_who_waits_is_let_in_also_where_the_disk_fails() -> None:
    async def scenario() -> None:
        world = World()

        async def fail(container: str, interface: str, address: IPv4Address) -> bool:
            raise AgentError("no room on disk", "free some")

        world.allocator.claim = fail  # type: ignore[method-assign]
        pod = Attached(port="x", name="a", address=ONE[2], interface="eth0", mtu=MTU)
        with pytest.raises(AgentError, match="no room"):
            await world.attachments.reconcile([pod], list)
        assert await world.attach("new") == "10.32.1.2/32"

    running(scenario())
