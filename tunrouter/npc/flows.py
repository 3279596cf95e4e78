"""Connections that policies forbid now are ended, however long they were permitted.

    rule set changed, and may forbid more ──> every connection of this node's pods is asked again ──> its entry deleted

Law: what is established passes without being asked, so an edit reaches it only here: the kernel forgets the connection,
and its next packet is a new one. What this node itself opens to its pods is never asked. At most once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Final, TypeVar

from tunrouter.core.policy.model import Address
from tunrouter.core.policy.ruleset import Ruleset
from tunrouter.edge.netlink.addresses import own_addresses
from tunrouter.edge.netlink.conntrack import Conntrack, Flow
from tunrouter.errors import HostError

EVERY_SECONDS: Final = 1.0
PROTOCOLS: Final = {6: "TCP", 17: "UDP", 132: "SCTP"}
K = TypeVar("K")
M = TypeVar("M")
log = logging.getLogger("tunrouter.npc")


class Flows:
    def __init__(self) -> None:
        self.cut = 0
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
                count = await asyncio.to_thread(_cut, self._ruleset)
            except HostError as error:
                log.warning("connections that are forbidden now go on: %s", error, extra={"event": "cut"})
            else:
                self.cut += count
                if count:
                    log.info("ended %d connections that policies forbid now", count, extra={"event": "cut"})
            await asyncio.sleep(EVERY_SECONDS)


def _may_forbid(before: Ruleset, after: Ruleset) -> bool:
    """Whether anything that was permitted may not be any more."""
    if any(isolation != after.pods.get(address, isolation) for address, isolation in before.pods.items()):
        return True
    if any(matches is not after.permits.get(chain) for chain, matches in before.permits.items()):
        return True
    return _lost(before.groups, after.groups) or _lost(before.named, after.named)


def _lost(before: Mapping[K, frozenset[M]], after: Mapping[K, frozenset[M]]) -> bool:
    return any(not members <= after.get(key, members) for key, members in before.items())


def _cut(ruleset: Ruleset) -> int:
    with Conntrack() as conntrack:
        doomed = list(forbidden(ruleset, conntrack.entries(), own_addresses()))
        conntrack.delete(*doomed)
    return len(doomed)


def forbidden(ruleset: Ruleset, flows: Iterable[Flow], own: Collection[Address]) -> Iterator[Flow]:
    """`own` are the addresses of this node."""
    pods, node = {address.packed for address in ruleset.pods}, {address.packed for address in own}
    for flow in flows:
        # After a Service's address was translated, before anything was masqueraded: as the rules saw it.
        source, destination = flow.original.source, flow.reply.source
        if (source not in pods and destination not in pods) or (source in node and source not in pods):
            continue
        protocol = PROTOCOLS.get(flow.protocol, "")
        port = flow.reply.source_port if protocol else 0
        if not ruleset.passes(ip_address(source), ip_address(destination), protocol, port):
            yield flow
