"""What operators ask about addresses and blocks, here and at other nodes.

    ps, whois ──> our leases, or `LeasesAsk` to another agent ──> pages of `LeasesAnswer`
    rmpeer, leave, electors ──> a request of the node, by ticket

Law: a node that does not answer in time is named as missing, never taken for one without addresses. A question is said
again until it is answered; answers to others' questions are made from what is there now and change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv4Address
from itertools import count
from typing import Final, TypeVar

from tunrouter.agent import peers
from tunrouter.agent.attachments import RESERVED, asked, check_name
from tunrouter.agent.control import Control
from tunrouter.agent.tickets import Tickets
from tunrouter.core import bounds, leave, reclaim, requests, status, wire
from tunrouter.edge import api
from tunrouter.errors import AgentError, ConfigError

ANSWER_SECONDS: Final = 3.0
"""How long another agent may take for all its leases."""
REPEAT_SECONDS: Final = 0.4
ELECTORS_SECONDS: Final = 20.0
AT_ONCE: Final = 64
"""Nodes that are asked at one time."""
T = TypeVar("T")
Lease = tuple[int, str, str]
"""Address, container, interface: as it travels."""


class Addressing:
    def __init__(self, control: Control, tickets: Tickets) -> None:
        self._control = control
        self._node = control.node
        self._tickets = tickets
        self._questions = count(self._node.local.random_id())
        self._asked: dict[int, tuple[int, asyncio.Queue[wire.LeasesAnswer]]] = {}

    async def answer(self, call: api.AddressCall) -> object:
        match call:
            case api.PsCall(everywhere):
                return await self.ps(everywhere=everywhere)
            case api.WhoisCall(address):
                return await self.whois(address)
            case api.ReserveCall():
                return await self.reserve(call)
            case api.ReleaseCall(name):
                await self.release(name)
            case api.RmpeerCall():
                return await self.rmpeer(call)
            case api.SetElectorsCall(chosen):
                await self.set_electors(chosen)
        return None

    # --- what other agents say ---------------------------------------------------------------------------------------
    def heard(self, node: int, body: wire.AgentBody) -> None:
        if isinstance(body, wire.LeasesAsk):
            self._control.tell(node, self._page(body))
        elif isinstance(body, wire.LeasesAnswer) and body.id in self._asked:
            asked, queue = self._asked[body.id]
            if asked == node:
                queue.put_nowait(body)

    def _page(self, ask: wire.LeasesAsk) -> wire.LeasesAnswer:
        """As many leases after that address as one message takes."""
        following = sorted(lease for lease in self._own() if lease[0] > ask.after)
        space, page = wire.LEASES_BYTES, list[Lease]()
        for lease in following:
            space -= wire.LEASE_BYTES + len(lease[1].encode()) + len(lease[2].encode())
            if space < 0:
                break
            page.append(lease)
        return wire.LeasesAnswer(ask.id, tuple(page), len(page) < len(following))

    def _own(self) -> Iterable[Lease]:
        for lease in self._node.allocator.addresses.leases():
            yield int(lease.address), lease.container, lease.interface

    async def _ask(self, node: int) -> list[Lease] | None:
        """All leases of another node; None if it does not answer in time."""
        found: list[Lease] = []
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    answer = await self._ask_page(node, found[-1][0] if found else 0)
                    found += [lease for lease in answer.leases if not found or lease[0] > found[-1][0]]
                    if not answer.more or not answer.leases:
                        return found
        except TimeoutError:
            return None

    async def _ask_page(self, node: int, after: int) -> wire.LeasesAnswer:
        number = next(self._questions) & 0xFFFF_FFFF
        queue: asyncio.Queue[wire.LeasesAnswer] = asyncio.Queue()
        self._asked[number] = node, queue
        try:
            while True:
                self._control.tell(node, wire.LeasesAsk(number, after))
                try:
                    async with asyncio.timeout(REPEAT_SECONDS):
                        return await queue.get()
                except TimeoutError:
                    continue  # said again until the caller's own time is over
        finally:
            del self._asked[number]

    # --- who has which address ---------------------------------------------------------------------------------------
    async def ps(self, *, everywhere: bool) -> api.Leases:
        ours = self._leases(self._node.local.id, self._own())
        if not everywhere:
            return api.Leases(tuple(ours))
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(node: int) -> list[Lease] | None:
            async with gate:
                return await self._ask(node)

        others = self._node.mesh.nodes
        answers = await asyncio.gather(*map(ask, others))
        for node, leases in zip(others, answers, strict=True):
            ours += self._leases(node, leases or ())
        missing = tuple(self._name(node) for node, leases in zip(others, answers, strict=True) if leases is None)
        return api.Leases(tuple(sorted(ours, key=lambda lease: IPv4Address(lease.address))), missing)

    def _leases(self, node: int, leases: Iterable[Lease]) -> list[api.Lease]:
        name = self._name(node)
        return [
            api.Lease(str(IPv4Address(address)), container, interface, name.node, name.nickname)
            for address, container, interface in sorted(leases)
        ]

    def _name(self, node: int) -> api.NodeName:
        return api.NodeName(status.peer_name(node), self._node.name_of(node))

    async def whois(self, text: str) -> api.Whois:
        try:
            address = IPv4Address(text)
        except ValueError:
            raise ConfigError(f"{text!r} is no IPv4 address", "for example: tunrouter whois 10.32.0.2") from None
        if address not in self._node.routes.range:
            return api.Whois(address=text, state="outside")
        found = peers.owner(self._node, address)
        if found is None:
            return api.Whois(address=text, state="unowned")
        node, block = found
        say = partial(api.Whois, address=text, block=str(block), owner=self._name(node))
        if address in (block.network_address, block.network_address + 1, block.broadcast_address):
            return say(state="bridge")
        own = node == self._node.local.id
        leases = list(self._own()) if own else await self._ask(node)
        if leases is None:
            return say(state="silent")
        for lease in self._leases(node, leases):
            if lease.address == text:
                return say(state="held", lease=lease)
        resting = own and self._node.allocator.addresses.rests(address)
        return say(state="resting" if resting else "free")

    # --- addresses without a device ----------------------------------------------------------------------------------
    async def reserve(self, call: api.ReserveCall) -> api.Lease:
        if not call.name.isprintable() or not 0 < len(call.name.encode()) <= bounds.MAX_NAME_BYTES:
            raise ConfigError(
                f"{call.name!r} is no name for an address", f"use at most {bounds.MAX_NAME_BYTES} printable bytes"
            )
        check_name(call.name)
        address = await self._tickets.allocate(call.name, RESERVED, asked(call.address))
        (lease,) = self._leases(self._node.local.id, [(int(address), call.name, RESERVED)])
        return lease

    async def release(self, name: str) -> None:
        await self._tickets.release(name, RESERVED)

    # --- whose blocks are whose --------------------------------------------------------------------------------------
    async def rmpeer(self, call: api.RmpeerCall) -> tuple[api.Removed, ...]:
        nodes = tuple(peers.known(self._node, peer) for peer in call.peers)
        make = partial(requests.Remove, nodes=nodes, force=call.force, dry_run=call.dry_run)
        removed = await self._request(make)
        assert isinstance(removed, tuple)
        return tuple(self._removed(one) for one in removed)

    def _removed(self, removed: reclaim.Removed) -> api.Removed:
        name = self._name(removed.node)
        return api.Removed(name.node, name.nickname, len(removed.blocks) * self._block_addresses)

    @property
    def _block_addresses(self) -> int:
        return 1 << (32 - self._node.local.block_length)

    async def leave(self, *, force: bool) -> api.Left:
        left = await self._tickets.ask(lambda number: requests.Leave(number, force), leave.Left)
        return api.Left(left.blocks, left.blocks * self._block_addresses)

    async def set_electors(self, chosen: tuple[str, ...]) -> None:
        """Returns when they are the electors."""
        nodes = frozenset(peers.known(self._node, peer) for peer in chosen)
        await self._request(partial(requests.SetElectors, nodes=tuple(sorted(nodes))))
        try:
            async with asyncio.timeout(ELECTORS_SECONDS):
                while self._node.allocator.electors.electors != nodes:
                    await asyncio.sleep(bounds.ROUND_RETRY_SECONDS[0])
        except TimeoutError:
            raise AgentError(
                "the electors are not changed yet: a majority of the old and of the new ones must answer",
                "see: tunrouter electors",
            ) from None

    async def _request(self, make: Callable[..., requests.Request]) -> object:
        return await self._tickets.ask(lambda number: make(ticket=number), object)
