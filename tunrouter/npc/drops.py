"""Connections that policies refused, told: in the log, as metrics and as Events at the pod that they isolate.

    the kernel's NFLOG ──> whose addresses are these? which policies isolate it? ──> a line, a count, an Event

Law: the kernel tells at most 200 packets a second; the same connection is a line once a minute, all of them together
thirty, and ten a pod: who is scanned leaves room for others. Events are few, for every node of a cluster writes them,
and one a pod and direction in half an hour. Ports are labels only while they are few.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Final

from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import Address, Direction
from tunrouter.core.policy.nftables import LOG_GROUP
from tunrouter.daemon.logs import OncePerKey
from tunrouter.edge.kube.events import Events
from tunrouter.edge.kube.objects import ObjectReference
from tunrouter.edge.netlink.nflog import Log, Logged
from tunrouter.errors import HostError

BLOCKED: Final = "ConnectionBlocked"
PORTS: Final = 100
"""Beyond so many pairs of protocol and port, others are counted as one."""
OTHER: Final = "other"
PENDING: Final = 32
"""Events that wait to be made; what is more is in the log all the same."""
A_POD: Final = 10
"""Lines of one pod in `MINUTE`."""
MINUTE: Final = 60.0
SILENT_SECONDS: Final = 1800.0
"""After an Event at a pod."""
PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP", 132: "SCTP"}
log = logging.getLogger("tunrouter.npc")


class Drops:
    """`heard`: the kernel can tell, and this process hears it."""

    def __init__(self, compiler: Compiler, events: Events) -> None:
        self._compiler = compiler
        self._events = events
        self._once = OncePerKey(log)
        self.counts: Counter[tuple[str, str]] = Counter()
        self._pending: asyncio.Queue[tuple[str, ObjectReference]] = asyncio.Queue(PENDING)
        self._lines: Counter[Address] = Counter()
        """Since `_counted_from`."""
        self._counted_from = 0.0
        self._told: dict[tuple[str, Direction], float] = {}
        """Pods, by their UIDs, at which an Event was made or waits to be."""
        self._log: Log | None = None
        try:
            self._log = Log(LOG_GROUP)
        except HostError as error:
            log.warning("connections that policies refuse are not told: %s", error)
        else:
            asyncio.get_running_loop().add_reader(self._log.fileno(), self._hear)

    @property
    def heard(self) -> bool:
        return self._log is not None

    @property
    def unread(self) -> int:
        return self._log.lost + self._log.unread if self._log is not None else 0

    async def keep(self) -> None:
        """Makes the Events, until it is cancelled."""
        while True:
            text, about = await self._pending.get()
            await self._events.say(BLOCKED, text, about=about)

    def close(self) -> None:
        if self._log is not None:
            asyncio.get_running_loop().remove_reader(self._log.fileno())
            self._log.close()
            self._log = None

    def _hear(self) -> None:
        assert self._log is not None
        for logged in self._log.packets():
            self._tell(logged)

    def _tell(self, logged: Logged) -> None:
        protocol = PROTOCOLS.get(logged.protocol, str(logged.protocol))
        port = str(logged.destination_port) if logged.destination_port else ""
        label = (protocol.lower(), port)
        self.counts[label if label in self.counts or len(self.counts) < PORTS else (protocol.lower(), OTHER)] += 1
        direction: Direction = "egress" if logged.prefix == "egress" else "ingress"
        what = f"{protocol} connection from {self._called(logged.source)} to {self._called(logged.destination)}"
        what += f" port {port}" if port else ""
        isolated = logged.source if direction == "egress" else logged.destination
        text = f"{what} blocked by Weave NPC: {self._why(isolated, direction)}"
        now = time.monotonic()
        self._line(f"blocked {direction} {what}", text, isolated, now)
        pod = self._compiler.memory.owner(isolated)
        if pod is not None and not self._pending.full() and self._is_news((pod.uid, direction), now):
            about = ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid)
            asked = f"{self._asked(logged.source)} {self._asked(logged.destination)} {port or 0}/{protocol.lower()}"
            self._pending.put_nowait((f"{text}; see: tunrouter policy explain {asked}", about))

    def _line(self, key: str, text: str, isolated: Address, now: float) -> None:
        if now - self._counted_from >= MINUTE:
            self._lines.clear()
            self._counted_from = now
        if self._lines[isolated] < A_POD and self._once.say("warning", key, text, now, address=str(isolated)):
            self._lines[isolated] += 1

    def _is_news(self, what: tuple[str, Direction], now: float) -> bool:
        self._told = {one: at for one, at in self._told.items() if now - at < SILENT_SECONDS}
        if what in self._told:
            return False
        self._told[what] = now
        return True

    def _called(self, address: Address) -> str:
        pod = self._compiler.memory.owner(address)
        return f"{pod.namespace}/{pod.name} ({address})" if pod is not None else str(address)

    def _asked(self, address: Address) -> str:
        pod = self._compiler.memory.owner(address)
        return f"{pod.namespace}/{pod.name}" if pod is not None else str(address)

    def _why(self, address: Address, direction: Direction) -> str:
        pod = self._compiler.memory.owner(address)
        if pod is None:
            return f"no pod is known to have {address} here"
        keys = self._compiler.isolating(pod, direction)
        if keys is None:
            return f"it came before the {direction} policies that hold now"
        names = ", ".join("/".join(key) for key in keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        return f"{direction} of {pod.namespace}/{pod.name} is isolated by {names}, and nothing permits this"
