"""Joining pods to the network and taking them off: the address from an allocator, the devices from the host.

Law: an address belongs to a container's interface from before the pod can use it until after the pod is gone. A
container is known by the name under which it was attached first, whatever it is called later; the kernel remembers it.
One thing at a time is done to one interface of one container, and none is attached while the node leaves its cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

from tunrouter.agent.hostside import HostSide
from tunrouter.core.pool import Lease
from tunrouter.edge.api import AttachCall, Attachment, DetachCall
from tunrouter.edge.netns import Namespace
from tunrouter.errors import AgentError, ConfigError
from tunrouter.host import EVERYTHING, Attached, Unwanted, Wanted

HOST: Final = "weave:expose"
"""Container of the addresses that this host itself has, as Weave called it."""
RESERVED: Final = ""
"""Interface of a lease that no device of ours carries."""

T = TypeVar("T")


class Wish(NamedTuple):
    """A pod as it shall be."""

    namespace: Namespace
    name: str
    interface: str
    mtu: int
    address: IPv4Address | None = None
    """This one and no other."""
    routes: Sequence[IPv4Network] = EVERYTHING
    pod: str = ""
    """What the container is for, where its successor shall have the same address."""


class Allocator(Protocol):
    """Gives addresses of this node's blocks to interfaces of containers."""

    async def allocate(self, container: str, interface: str, wanted: IPv4Address | None, pod: str) -> IPv4Address:
        """The same again for the same; `wanted` and no other, where it is given. Raises TunrouterError."""
        ...

    async def release(self, container: str, interface: str) -> None:
        """It has no address any more; nothing happens where it had none."""
        ...

    async def claim(self, container: str, interface: str, address: IPv4Address) -> bool:
        """It was found to have this one; whether that can be."""
        ...


class Attachments:
    def __init__(self, host: HostSide, allocator: Allocator) -> None:
        self._host = host
        self._allocator = allocator
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._leaving = False
        self._known = asyncio.Event()
        """Who is attached, and who went while no agent ran."""
        self._known.set()
        self._attaching: set[asyncio.Future[Any]] = set()
        self._detaching: set[asyncio.Future[Any]] = set()
        self._quiet = asyncio.Event()
        """Nothing is being attached."""
        self._quiet.set()
        self.changed: Callable[[], None] = lambda: None
        """Is called when somebody was attached, or went."""

    def _turn(self, name: str, interface: str) -> asyncio.Lock:
        return self._turns.setdefault((name, interface), asyncio.Lock())

    async def answer(self, call: AttachCall, mtu: int) -> Attachment:
        namespace = await self._host.open(call.netns)
        pod = await self.attach(Wish(namespace, call.name, call.interface, mtu, asked(call.address)))
        return Attachment(name=call.name, address=f"{pod.address}/32", interface=pod.interface, mtu=pod.mtu)

    async def attach(self, wish: Wish) -> Attached:
        """Idempotent: the same wish again has the same address."""
        _check(wish.name, wish.interface)
        await self._known.wait()
        if self._leaving:
            raise AgentError("this node is leaving its cluster", "attach the container on another node")
        self._quiet.clear()
        return await self._whole(self._attach(wish), self._attaching)

    async def _whole(self, work: Coroutine[Any, Any, T], among: set[asyncio.Future[Any]]) -> T:
        """Who gives up waiting leaves work that has begun: its turn lasts until it is done, or undone."""
        begun = asyncio.ensure_future(work)
        among.add(begun)
        begun.add_done_callback(partial(self._ended, among))
        return await asyncio.shield(begun)

    def _ended(self, among: set[asyncio.Future[Any]], work: asyncio.Future[Any]) -> None:
        among.discard(work)
        if not self._attaching:
            self._quiet.set()
        if not work.cancelled():
            work.exception()  # whoever waited has it

    async def _attach(self, wish: Wish) -> Attached:
        there = await self._host.find(wish.namespace, wish.interface)
        name, interface = there.name if there is not None else wish.name, wish.interface
        async with self._turn(name, interface):
            address = await self._allocator.allocate(name, interface, wish.address, wish.pod)
            try:
                pod = await self._host.attach(Wanted(wish.namespace, name, address, interface, wish.mtu, wish.routes))
            except Exception:
                if not self._host.holds(name, interface):
                    await self._allocator.release(name, interface)
                raise
        self.changed()
        return pod

    def reconcile(self, here: Sequence[Attached], held: Callable[[], Iterable[Lease]]) -> Coroutine[Any, Any, None]:
        """What is attached has its address, whatever the disk says; what is gone has none.

        From now on until that is done whoever comes waits: what an earlier container had may be its own.
        """
        self._known.clear()
        return self._reconcile(here, held)

    async def _reconcile(self, here: Sequence[Attached], held: Callable[[], Iterable[Lease]]) -> None:
        try:
            await asyncio.gather(*(self._allocator.claim(pod.name, pod.interface, pod.address) for pod in here))
            there = {(pod.name, pod.interface) for pod in here}
            known = {(lease.container, lease.interface) for lease in held()}
            await self.release(key for key in known - there if key[0] != HOST and key[1] != RESERVED)
        finally:
            self._known.set()
            self.changed()

    @property
    def closed(self) -> bool:
        """Nothing is attached any more: the node leaves."""
        return self._leaving

    @asynccontextmanager
    async def leaving(self) -> AsyncIterator[None]:
        """Nothing is attached any more, and what was being attached is; if what follows fails, all is as before."""
        if self._leaving:
            raise AgentError("this node is leaving its cluster already", "wait until it has left")
        self._leaving = True
        try:
            await self._quiet.wait()
            yield
        except BaseException:
            self._leaving = False
            raise

    async def detach(self, call: DetachCall) -> None:
        _check(call.name, call.interface)
        await self._whole(self._detach(call), self._detaching)

    async def _detach(self, call: DetachCall) -> None:
        async with self._turn(call.name, call.interface):
            removed = await self._host.detach(Unwanted(call.netns, call.name, call.interface))
        await self.release({(pod.name, pod.interface) for pod in removed} | {(call.name, call.interface)})

    async def detach_all(self) -> None:
        """By their names: whether their namespaces are there still does not matter."""
        for pod in await self._host.attached():
            await self.detach(DetachCall("", pod.name, pod.interface))

    async def release(self, gone: Iterable[tuple[str, str]]) -> None:
        """These interfaces of containers are gone, unless they are there again. All wait for the disk at once."""
        self.changed()
        await asyncio.gather(*(self._release(name, interface) for name, interface in gone))

    async def _release(self, name: str, interface: str) -> None:
        async with self._turn(name, interface):
            if not self._host.holds(name, interface):
                await self._allocator.release(name, interface)


def _check(name: str, interface: str) -> None:
    check_name(name)
    if not interface:
        raise ConfigError("an attachment's interface has a name", "for example: eth0")


def check_name(name: str) -> None:
    """Raises ConfigError for one that is no container's."""
    if name == HOST:
        raise ConfigError(f"{HOST} is this host itself", "use another name, or: tunrouter expose, tunrouter hide")


def asked(text: str | None) -> IPv4Address | None:
    """The address that is wanted. Raises ConfigError."""
    if text is None:
        return None
    try:
        return IPv4Address(text.partition("/")[0])
    except ValueError:
        raise ConfigError(f"{text!r} is no IPv4 address", "give one of this node's blocks, or leave it out") from None
