"""Joining pods to the network and taking them off: the address from an allocator, the devices from the host.

Law: an address belongs to a container's interface from before the pod can use it until after the pod is gone. A
container is known by the name under which it was attached first, whatever it is called later; the kernel remembers it.
One thing at a time is done to one interface of one container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol
from weakref import WeakValueDictionary

from tunrouter.agent.hostside import HostSide
from tunrouter.edge.api import AttachCall, Attachment, DetachCall
from tunrouter.errors import AgentError, ConfigError
from tunrouter.host import Attached, is_usable


class Allocator(Protocol):
    """Gives addresses of this node's blocks to interfaces of containers."""

    async def allocate(self, container: str, interface: str, wanted: IPv4Address | None) -> IPv4Address:
        """The same again for the same; `wanted` and no other, where it is given. Raises TunrouterError."""
        ...

    async def release(self, container: str, interface: str) -> None:
        """It has no address any more; nothing happens where it had none."""
        ...


class Attachments:
    def __init__(self, host: HostSide, allocator: Allocator) -> None:
        self._host = host
        self._allocator = allocator
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def _turn(self, name: str, interface: str) -> asyncio.Lock:
        return self._turns.setdefault((name, interface), asyncio.Lock())

    async def attach(self, call: AttachCall, mtu: int) -> Attachment:
        wanted = _asked(call.address)
        there = await self._host.find(call.netns, call.interface)
        name = there.name if there is not None else call.name
        async with self._turn(name, call.interface):
            address = await self._allocator.allocate(name, call.interface, wanted)
            try:
                pod = await self._host.attach(call.netns, name, address, call.interface, mtu)
            except Exception:
                if not self._host.holds(name, call.interface):
                    await self._allocator.release(name, call.interface)
                raise
        return Attachment(name=call.name, address=f"{pod.address}/32", interface=pod.interface, mtu=pod.mtu)

    async def detach(self, call: DetachCall) -> None:
        removed = await self._host.detach(call.netns, call.name, call.interface)
        await self.release({(pod.name, pod.interface) for pod in removed} | {(call.name, call.interface)})

    async def release(self, gone: Iterable[tuple[str, str]]) -> None:
        """These interfaces of containers are gone, unless they are there again."""
        for name, interface in gone:
            async with self._turn(name, interface):
                if not self._host.holds(name, interface):
                    await self._allocator.release(name, interface)


class FirstFree:
    """An allocator without memory: the lowest address that nobody has. It is told what is attached already."""

    def __init__(self, blocks: Callable[[], tuple[IPv4Network, ...]], pods: Iterable[Attached]) -> None:
        self._blocks = blocks
        self._given = {(pod.name, pod.interface): pod.address for pod in pods}

    async def allocate(self, container: str, interface: str, wanted: IPv4Address | None) -> IPv4Address:
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


def _asked(text: str | None) -> IPv4Address | None:
    if text is None:
        return None
    try:
        return IPv4Address(text.partition("/")[0])
    except ValueError:
        raise ConfigError(f"{text!r} is no IPv4 address", "give one of this node's block, or leave --ip out") from None
