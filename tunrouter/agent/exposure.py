"""Addresses that this host itself has in the pods' network, beside its gateway's: `tunrouter expose` and `hide`.

    expose ──> a lease, on disk ──> on the bridge        hide ──> off the bridge ──> the lease is released

Law: the lease comes before the address and goes after it. An address whose lease was lost, with its block or to a pod
that was found living there, leaves the bridge and is told of until it is hidden; it returns with its lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, TypeVar

from tunrouter.agent import rows
from tunrouter.agent.attachments import HOST, Attachments, asked
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.tickets import Tickets
from tunrouter.core.journal import LeaseRow, Persist, Row
from tunrouter.core.node import Node
from tunrouter.edge.store import Store, inspect
from tunrouter.errors import AgentError, HostError, TunrouterError

CHOSEN: Final = "auto"
"""Interface of the lease that the allocator chose; one that was asked for has its own address there."""
MAX_EXPOSED: Final = 64
T = TypeVar("T")
Addresses = dict[str, IPv4Address]
"""By the interface of their leases."""
log = logging.getLogger("tunrouter")


class Exposure:
    """`kept` is what the disk has; it is on the bridge already."""

    def __init__(
        self, node: Node, host: HostSide, tickets: Tickets, attachments: Attachments, kept: Mapping[str, IPv4Address]
    ) -> None:
        self._node = node
        self._host = host
        self._tickets = tickets
        self._attachments = attachments
        self._shown: Addresses = dict(kept)
        self._lost: Addresses = {}
        self._turn = asyncio.Lock()
        self._work: set[asyncio.Future[Any]] = set()

    async def expose(self, texts: Sequence[str]) -> tuple[str, ...]:
        """These addresses, all or none of them, or without any the one that the allocator chose. Idempotent."""
        wanted = dict.fromkeys(_addresses(texts))
        return tuple(map(str, await self._done(self._expose(list(wanted)))))

    async def hide(self, texts: Sequence[str]) -> None:
        """These addresses, or without any all of them; what is not exposed is hidden already."""
        await self._done(self._hide(set(_addresses(texts))))

    async def _done(self, work: Coroutine[Any, Any, T]) -> T:
        """Who gives up waiting leaves work that has begun: it is done, or undone."""
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    # --- up ----------------------------------------------------------------------------------------------------------
    async def _expose(self, wanted: list[IPv4Address]) -> list[IPv4Address]:
        async with self._turn:
            if self._attachments.closed:
                raise AgentError("this node is leaving its cluster", "expose an address of another node")
            there = set(self._shown.values())
            missing = {str(address): address for address in wanted if address not in there}
            self._admit(missing)
            if missing:
                await self._show(await self._lease(missing))
            elif not wanted and CHOSEN not in self._shown:
                if self._lost.pop(CHOSEN, None) is not None:
                    await self._tickets.release(HOST, CHOSEN)  # else it would return in place of its successor
                await self._show(await self._lease({CHOSEN: None}))
            return wanted or [self._shown[CHOSEN]]

    def _admit(self, missing: Addresses) -> None:
        """Raises AgentError for the first that cannot be, before anything is done for the others."""
        if missing and len(self._shown) + len(missing) > MAX_EXPOSED:
            raise AgentError(f"this host may expose {MAX_EXPOSED} addresses", "hide some of them: see tunrouter ps")
        for name, address in missing.items():
            refused = self._node.allocator.refusal(address)
            if refused is not None and not self._has(name, address):
                raise AgentError(refused.what, refused.fix)

    async def _lease(self, wanted: Mapping[str, IPv4Address | None]) -> Addresses:
        """All of them, on disk, or none."""
        asking = (self._tickets.allocate(HOST, name, address) for name, address in wanted.items())
        answers = dict(zip(wanted, await asyncio.gather(*asking, return_exceptions=True), strict=True))
        leased = {name: answer for name, answer in answers.items() if isinstance(answer, IPv4Address)}
        failed = [answer for answer in answers.values() if isinstance(answer, BaseException)]
        if failed:
            await self._release(leased)
            raise failed[0]
        return leased

    async def _show(self, leased: Addresses) -> None:
        before = self._shown
        self._shown = before | leased
        try:
            await self._host.expose_now(self._shown.values())
        except Exception:
            self._shown = before
            with suppress(TunrouterError):  # the repair will go on with it
                await self._host.expose_now(before.values())
            await self._release(leased)
            raise
        self.look()
        if not leased.keys() <= self._shown.keys():
            raise AgentError("the block of that address was lost just now", "see: tunrouter status ipam")
        self._lost = {name: address for name, address in self._lost.items() if name not in leased}

    # --- down --------------------------------------------------------------------------------------------------------
    async def _hide(self, unwanted: Collection[IPv4Address]) -> None:
        async with self._turn:
            gone = {n for n, address in (self._shown | self._lost).items() if not unwanted or address in unwanted}
            before = self._shown
            self._shown = {name: address for name, address in before.items() if name not in gone}
            if self._shown != before:
                try:
                    await self._host.expose_now(self._shown.values())
                except Exception:
                    self._shown = before  # it has its lease
                    raise
            self._lost = {name: address for name, address in self._lost.items() if name not in gone}
            await self._release(gone)

    async def _release(self, names: Iterable[str]) -> None:
        for name in names:
            await self._tickets.release(HOST, name)

    # --- what becomes of it ------------------------------------------------------------------------------------------
    def look(self) -> None:
        """What has lost its lease leaves the bridge, what has it again returns to it."""
        lost = {name: address for name, address in self._shown.items() if not self._has(name, address)}
        back = {name: address for name, address in self._lost.items() if self._has(name, address)}
        if not lost and not back:
            return
        self._shown = {name: address for name, address in self._shown.items() if name not in lost} | back
        self._lost = {name: address for name, address in self._lost.items() if name not in back} | lost
        for address in lost.values():
            log.error("%s", self._complaint(address))
        for address in back.values():
            log.info("%s is exposed again", address)
        self._host.expose(self._shown.values())

    def complaints(self) -> list[str]:
        return [self._complaint(address) for address in self._lost.values()]

    def _has(self, name: str, address: IPv4Address) -> bool:
        """A lease, in a block that others may know of: so it is on disk."""
        return self._node.allocator.addresses.held_by(HOST, name) == address and self._is_own(address)

    def _is_own(self, address: IPv4Address) -> bool:
        return any(address in block for block, _ in self._node.routes.own)

    def _complaint(self, address: IPv4Address) -> str:
        why = "a container has it" if self._is_own(address) else "its block is not this node's any more"
        return (
            f"{address} was exposed, and is not now: {why}; see tunrouter whois {address}, or tunrouter hide {address}"
        )


def kept_on(found: Iterable[Row]) -> Addresses:
    """What the disk says is exposed."""
    leases = (row for row in found if isinstance(row, LeaseRow) and row.held and row.container == HOST)
    return {row.interface: row.address for row in leases if row.interface}


def forget(state_dir: Path) -> list[str]:
    """Releases what is exposed while no agent runs; answers with what that was. Blocks."""
    try:
        columns, found = inspect(state_dir).tables.get("lease", ((), []))
        there = [dict(zip(columns, row, strict=True)) for row in found]
    except HostError:
        return []  # there is none, or none that can be read: nothing of it will be exposed
    if not any(lease.get("container") == HOST and not lease.get("release") for lease in there):
        return []
    store = Store(state_dir)
    try:
        leases = [row for row in rows.recall(store.rows()) if isinstance(row, LeaseRow)]
        exposed, last = kept_on(leases), max(row.order for row in leases)
        rest = [LeaseRow(address, "", "", last + 1 + number) for number, address in enumerate(exposed.values())]
        done = store.write(rows.changes(Persist(0, {row.key: row for row in rest})))
    finally:
        store.close()
    done.result()
    return [f"exposed address {address}" for address in exposed.values()]


def _addresses(texts: Iterable[str]) -> list[IPv4Address]:
    return [address for text in texts if (address := asked(text)) is not None]
