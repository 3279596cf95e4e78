"""The host set-up as the agent uses it: every blocking call on one thread of its own, in the order asked.

Law: netlink fails inside a running loop and nft forks, so neither is ever called on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Final, ParamSpec, TypeVar

from tunrouter.agent.batches import Batches
from tunrouter.core import bounds
from tunrouter.daemon.logs import OncePerKey
from tunrouter.edge.netns import Namespace
from tunrouter.errors import HostError, TunrouterError
from tunrouter.host import Attached, Host, HostPlan, Unwanted, Wanted

REPAIR_SECONDS: Final = 2.0
SETTLE_SECONDS: Final = 0.05
"""After a notification: a flush and its successors come as many."""
REPAIRED_SHOWN: Final = 4
SHARE: Final = 0.1
"""Of the time that looking at links, addresses and routes takes at most where they change without end."""

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("tunrouter.host")


class HostSide:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="host")
        self._repair_at: asyncio.TimerHandle | None = None
        self._repairing = False
        self._rested_at = 0.0
        """Until then nobody looks at links, addresses and routes, whatever they do."""
        self._news = False
        """They have changed since somebody began to look."""
        self._complaint = ""
        self._strangers: frozenset[str] = frozenset()
        self._once = OncePerKey(log)
        self._mtus: dict[IPv4Network, int | None] = {}
        """Path MTUs that wait, while a job has the earlier ones."""
        self._setting_mtus = False
        self._closed = False
        self._attaching = Batches[Wanted, Attached](
            loop, self._submit, lambda batch, done: self._ready().attach(batch, done)
        )
        self._detaching = Batches[Unwanted, list[Attached]](
            loop, self._submit, lambda batch, done: self._ready().detach(batch, done)
        )
        self.host: Host | None = None
        self._applied = False
        self.repairs = 0
        """Things that somebody changed and that are as they were again."""
        self.repaired: deque[str] = deque(maxlen=REPAIRED_SHOWN)
        """The last of these, the newest first."""
        self.changed: Callable[[], None] = lambda: None
        """Is called after each look at the host, and when it was given something."""

    async def call(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        return await self._loop.run_in_executor(self._thread, lambda: function(*arguments, **options))

    async def prepare(self, plan: HostPlan, peers: list[str]) -> None:
        """Looks whether this host can be set up, `peers` being addresses outside of it; changes nothing."""
        self.host = await self.call(Host, plan)
        await self.call(self.host.preflight, peers)

    async def apply(
        self,
        blocks: tuple[IPv4Network, ...] = (),
        fenced: tuple[IPv4Address, ...] = (),
        exposed: Collection[IPv4Address] = (),
    ) -> None:
        """Sets the host up, and keeps it so from then on; what is given is what is known of that already."""
        assert self.host is not None
        await self.call(self.host.own, blocks)
        await self.call(self.host.fence, fenced)
        await self.call(self.host.expose, exposed)
        for line in await self.call(self.host.apply):
            log.debug("%s", line)
        self._applied = True
        self._loop.add_reader(self.host.monitor.fileno(), self._on_change)
        self._loop.add_reader(self.host.links.fileno(), self._on_links)
        self._schedule(REPAIR_SECONDS)

    def _on_change(self) -> None:
        assert self.host is not None
        self.host.monitor.drain()
        self._schedule(SETTLE_SECONDS)

    def _on_links(self) -> None:
        """A router's routes may change all the time, and the more there are the longer it takes to look at them."""
        assert self.host is not None
        self.host.links.drain()
        self._news = True
        if not self._repairing:
            self._schedule(max(SETTLE_SECONDS, self._rested_at - self._loop.time()))

    def _schedule(self, seconds: float) -> None:
        """Sooner than planned, never later: others may change rule sets all the time."""
        if self._closed:
            return
        if self._repair_at is not None:
            if self._repair_at.when() <= self._loop.time() + seconds:
                return
            self._repair_at.cancel()
        self._repair_at = self._loop.call_later(seconds, self._start_repair)

    def _start_repair(self) -> None:
        self._repair_at = None
        if self._repairing:
            self._schedule(SETTLE_SECONDS)
            return
        self._repairing = True
        began = self._loop.time()
        rested = began >= self._rested_at
        if rested:
            self._news = False
        host = self._ready()
        self._submit(lambda: host.repair(links=rested), lambda done: self._repaired(done, began if rested else None))

    def _repaired(self, done: Future[list[str]], looked_at: float | None) -> None:
        """`looked_at`: when it began to look at the links, if it did."""
        self._repairing = False
        now, error = self._loop.time(), done.exception()
        if looked_at is not None:
            self._rested_at = now + max(SETTLE_SECONDS, min((now - looked_at) / SHARE, REPAIR_SECONDS))
        if error is not None:
            self._complain(f"the host's set-up could not be repaired: {error}")
        else:
            self._complaint = ""
            for line in done.result():
                self.note_repaired(line)
        self._name_strangers()
        self._schedule(max(SETTLE_SECONDS, self._rested_at - now) if self._news else REPAIR_SECONDS)
        self.changed()

    def note_repaired(self, what: str) -> None:
        """It was changed by somebody and is as it was."""
        self.repairs += 1
        self.repaired.appendleft(what)
        log.warning("repaired: %s", what)

    def _name_strangers(self) -> None:
        """Other networks in our place: once when they come, once when they go."""
        before, self._strangers = self._strangers, frozenset(self._ready().strangers)
        for text in sorted(self._strangers - before):
            self._once.say("warning", f"stranger {text}", text, time.monotonic())
        for text in sorted(before - self._strangers):
            self._once.say("info", f"gone {text}", f"not any more: {text.partition(',')[0]}", time.monotonic())

    def _submit(self, work: Callable[[], R], then: Callable[[Future[R]], None]) -> None:
        self._thread.submit(work).add_done_callback(lambda done: self._loop.call_soon_threadsafe(then, done))

    @property
    def gateway(self) -> IPv4Address | None:
        """What new pods are configured with; None while there is no block."""
        return self.host.gateway if self.host is not None else None

    @property
    def trouble(self) -> str:
        """Why this host is not as it should be; empty if it is, as of the last look."""
        return self._complaint or ("" if self._applied else "this host is not set up yet")

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.error("%s", text)

    def own(self, blocks: tuple[IPv4Network, ...]) -> None:
        """Asks for it and goes on: whoever asks later finds it done. What fails is tried again with the next repair."""
        host = self._ready()
        self._submit(lambda: host.own(blocks), self._changed)

    def fence(self, addresses: tuple[IPv4Address, ...]) -> None:
        """As `own`."""
        host = self._ready()
        self._submit(lambda: host.fence(addresses), self._changed)

    def expose(self, addresses: Iterable[IPv4Address]) -> None:
        """As `own`: this host has exactly these beside its gateways'."""
        host, exactly = self._ready(), tuple(addresses)
        self._submit(lambda: host.expose(exactly), partial(self._changed, what="addresses"))

    async def expose_now(self, addresses: Iterable[IPv4Address]) -> None:
        """The same, done when this returns. Raises HostError."""
        for line in await self.call(self._ready().expose, tuple(addresses)):
            log.debug("%s", line)

    def _changed(self, done: Future[list[str]], what: str = "blocks") -> None:
        error = done.exception()
        if error is not None:
            self._complain(f"the host could not be given its {what}: {error}")
        else:
            for line in done.result():
                log.debug("%s", line)
        self.changed()

    def set_path_mtu(self, prefix: IPv4Network, mtu: int | None) -> None:
        """Asks for it and goes on; a failure is logged. However many ask, one job stands before others' work."""
        if prefix not in self._mtus and len(self._mtus) >= bounds.MAX_ROUTES:
            self._once.say("error", "path-mtu full", f"too many path MTUs wait; {prefix} has none", time.monotonic())
            return
        self._mtus[prefix] = mtu
        self._submit_mtus()

    def _submit_mtus(self) -> None:
        if self._setting_mtus or self._closed or not self._mtus:
            return
        assert self.host is not None
        self._setting_mtus = True
        paths, self._mtus = self._mtus, {}
        host = self.host
        self._submit(lambda: host.set_path_mtus(paths), self._set_mtus)

    def _set_mtus(self, done: Future[list[HostError]]) -> None:
        self._setting_mtus = False
        error = done.exception()
        for problem in done.result() if error is None else [error]:
            self._once.say("error", "path-mtu", f"a path MTU could not be set: {problem}", time.monotonic())
        self._submit_mtus()

    async def attached(self) -> list[Attached]:
        return await self.call(self._ready().attached)

    def seen(self) -> Collection[Attached]:
        """The same, as of the last look or `attach`."""
        return self._ready().seen()

    async def open(self, path: str) -> Namespace:
        """The namespace at `path`. Raises ConfigError if it is none, or this host's own."""
        return await self.call(self._ready().open, path)

    async def find(self, namespace: Namespace, interface: str) -> Attached | None:
        """The pod that is attached from there."""
        return await self.call(self._ready().find, namespace, interface)

    async def attach(self, wanted: Wanted) -> Attached:
        return await self._attaching.do(wanted)

    async def faults(self, namespace: Namespace, interface: str, routes: Collection[IPv4Network]) -> list[str]:
        """What is not as `attach` left it."""
        return await self.call(self._ready().faults, namespace, interface, routes)

    def holds(self, name: str, interface: str) -> bool:
        """Whether it is attached, as of the last look or `attach`."""
        return self._ready().holds(name, interface)

    async def detach(self, unwanted: Unwanted) -> list[Attached]:
        return await self._detaching.do(unwanted)

    def _ready(self) -> Host:
        if self.host is None:
            raise TunrouterError("the agent is still starting", "try again in a second")
        return self.host

    async def close(self) -> None:
        """Leaves the host as it is: pods go on reaching each other and the outside."""
        self._closed = True
        if self._repair_at is not None:
            self._repair_at.cancel()
        if self.host is not None:
            for wakes in (self.host.monitor, self.host.links):
                self._loop.remove_reader(wakes.fileno())
            await self.call(self.host.close)
        self._thread.shutdown(wait=True)
