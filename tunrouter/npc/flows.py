"""Connections that policies forbid now are ended, however long they were permitted.

    rule set changed, and may forbid more ──> every connection of this node's pods is asked again
        ──> its answers are to begin nothing ──> its entry deleted

Law: what is established passes without being asked, so an edit reaches it only here: the kernel forgets the connection,
and its next packet is a new one. Were that an answer, which is on its way meanwhile, then it would begin the same the
other way round, and policies may permit that: so answers are refused first. What this node itself opens to its pods is
never asked. At most once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, TypeVar

from tunrouter.core.policy.model import Address
from tunrouter.core.policy.nftables import Answer
from tunrouter.core.policy.ruleset import OPEN, Ruleset
from tunrouter.edge.netlink.addresses import own_addresses
from tunrouter.edge.netlink.conntrack import Conntrack, Flow
from tunrouter.errors import HostError

EVERY_SECONDS: Final = 1.0
REFUSE_SECONDS: Final = 0.5
"""So long the kernel is waited for; then they end all the same."""
MOST_REFUSED: Final = 20_000
ALIKE: Final = 1 << 16
"""Verdicts that are remembered: most connections are one of many from the same address to the same port."""
PROTOCOLS: Final = {6: "TCP", 17: "UDP", 132: "SCTP"}
K = TypeVar("K")
M = TypeVar("M")
log = logging.getLogger("tunrouter.npc")


Refuse = Callable[[list[Answer]], Awaitable[None]]


class Flows:
    """`refuse` returns when the kernel lets these packets begin nothing."""

    def __init__(self, refuse: Refuse) -> None:
        self.cut = 0
        self._refuse = refuse
        self._ruleset: Ruleset | None = None
        self._wake = asyncio.Event()

    def changed(self, before: Ruleset | None, after: Ruleset) -> None:
        """That is in force now."""
        self._ruleset = after
        if before is None or _may_forbid(before, after):
            self._wake.set()

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            assert self._ruleset is not None
            try:
                count = await self._end(self._ruleset)
            except HostError as error:
                log.warning("connections that are forbidden now go on: %s", error, extra={"event": "cut"})
            else:
                self.cut += count
                if count:
                    some = "1 connection" if count == 1 else f"{count} connections"
                    log.info("ended %s that policies forbid now", some, extra={"event": "cut"})
            await asyncio.sleep(EVERY_SECONDS)

    async def _end(self, ruleset: Ruleset) -> int:
        """How many."""
        doomed = await asyncio.to_thread(_forbidden, ruleset)
        if doomed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSE_SECONDS):
                    await self._refuse([_answer(flow) for flow in doomed[:MOST_REFUSED]])
            await asyncio.to_thread(_delete, doomed)
        return len(doomed)


def _may_forbid(before: Ruleset, after: Ruleset) -> bool:
    """Whether anything that was permitted may not be any more."""
    # An address that is new here had perhaps another owner, whose connections are on record still.
    if any(isolation != before.pods.get(address, OPEN) for address, isolation in after.pods.items()):
        return True
    if any(matches is not after.permits.get(chain) for chain, matches in before.permits.items()):
        return True
    return _lost(before.groups, after.groups) or _lost(before.named, after.named)


def _lost(before: Mapping[K, frozenset[M]], after: Mapping[K, frozenset[M]]) -> bool:
    return any(not members <= after.get(key, members) for key, members in before.items())


def _forbidden(ruleset: Ruleset) -> list[Flow]:
    with Conntrack() as conntrack:
        return list(forbidden(ruleset, conntrack.entries(), own_addresses()))


def _delete(flows: list[Flow]) -> None:
    with Conntrack() as conntrack:
        conntrack.delete(*flows)


def _answer(flow: Flow) -> Answer:
    reply = flow.reply
    source, destination = ip_address(reply.source), ip_address(reply.destination)
    return Answer(source, destination, flow.protocol, reply.source_port, reply.destination_port)


def forbidden(ruleset: Ruleset, flows: Iterable[Flow], own: Collection[Address]) -> Iterator[Flow]:
    """`own` are the addresses of this node."""
    pods, node = {address.packed for address in ruleset.pods}, {address.packed for address in own}

    @lru_cache(ALIKE)
    def passes(source: bytes, destination: bytes, protocol: str, port: int) -> bool:
        return ruleset.passes(ip_address(source), ip_address(destination), protocol, port)

    for flow in flows:
        # After a Service's address was translated, before anything was masqueraded: as the rules saw it.
        source, destination = flow.original.source, flow.reply.source
        if (source not in pods and destination not in pods) or (source in node and source not in pods):
            continue
        protocol = PROTOCOLS.get(flow.protocol, "")
        port = flow.reply.source_port if protocol else 0
        if not passes(source, destination, protocol, port):
            yield flow
