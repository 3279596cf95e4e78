"""The host set-up as the agent uses it: every blocking call on one thread of its own, in the order asked.

Law: netlink fails inside a running loop and nft forks, so neither is ever called on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from typing import Final, ParamSpec, TypeVar

from tunrouter.agent.logs import OncePerKey
from tunrouter.core import bounds
from tunrouter.edge import netns
from tunrouter.edge.api import AttachCall, Attachment, DetachCall
from tunrouter.errors import ConfigError, HostError, TunrouterError
from tunrouter.host import Host, HostPlan, pods, underlay_mtu

REPAIR_SECONDS: Final = 2.0
SETTLE_SECONDS: Final = 0.05
"""After a notification: a flush and its successors come as many."""
SHARE: Final = 0.25
"""Of the time that repairs take at most where links, addresses or routes change without end."""

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("tunrouter.host")


class HostSide:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="host")
        self._repair_at: asyncio.TimerHandle | None = None
        self._repairing = False
        self._began = self._rested_at = 0.0
        """When the last repair began, and until when the next one waits whatever links and routes do."""
        self._news = False
        """They have changed since it began."""
        self._complaint = ""
        self._once = OncePerKey(log)
        self._mtus: dict[IPv4Network, int | None] = {}
        """Path MTUs that wait, while a job has the earlier ones."""
        self._setting_mtus = False
        self._closed = False
        self.host: Host | None = None

    async def call(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        return await self._loop.run_in_executor(self._thread, lambda: function(*arguments, **options))

    async def underlay_mtu(self, addresses: list[str]) -> int:
        return await self.call(underlay_mtu, addresses)

    async def prepare(self, plan: HostPlan, peers: list[str]) -> None:
        """Looks whether this host can be set up, `peers` being addresses outside of it; changes nothing."""
        self.host = await self.call(Host, plan)
        await self.call(self.host.preflight, peers)

    async def apply(self) -> None:
        """Sets the host up, and keeps it so from then on."""
        assert self.host is not None
        for line in await self.call(self.host.apply):
            log.debug("%s", line)
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
        self._repairing, self._news = True, False
        self._began = self._loop.time()
        assert self.host is not None
        self._thread.submit(self.host.repair).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._repaired, done.exception(), done)
        )

    def _repaired(self, error: BaseException | None, done: object) -> None:
        self._repairing = False
        now = self._loop.time()
        rest = max(SETTLE_SECONDS, min((now - self._began) / SHARE, REPAIR_SECONDS))
        self._rested_at = now + rest
        if error is not None:
            self._complain(f"the host's set-up could not be repaired: {error}")
        else:
            self._complaint = ""
            for line in done.result():  # type: ignore[attr-defined]
                log.warning("repaired: %s", line)
        self._schedule(rest if self._news else REPAIR_SECONDS)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.error("%s", text)

    def set_path_mtu(self, prefix: IPv4Network, mtu: int | None) -> None:
        """Asks for it and goes on; a failure is logged. However many ask, one job stands before others' work."""
        if prefix not in self._mtus and len(self._mtus) >= bounds.MAX_ROUTES:
            self._once.say("error", "path mtu full", f"too many path MTUs wait; {prefix} has none", time.monotonic())
            return
        self._mtus[prefix] = mtu
        self._submit_mtus()

    def _submit_mtus(self) -> None:
        if self._setting_mtus or self._closed or not self._mtus:
            return
        assert self.host is not None
        self._setting_mtus = True
        paths, self._mtus = self._mtus, {}
        self._thread.submit(self.host.set_path_mtus, paths).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._set_mtus, done)
        )

    def _set_mtus(self, done: Future[list[HostError]]) -> None:
        self._setting_mtus = False
        error = done.exception()
        for problem in done.result() if error is None else [error]:
            self._once.say("error", "path mtu", f"a path MTU could not be set: {problem}", time.monotonic())
        self._submit_mtus()

    async def attach(self, call: AttachCall, mtu: int) -> Attachment:
        return await self.call(_attach, self._ready(), call, mtu)

    async def detach(self, call: DetachCall) -> None:
        await self.call(self._ready().detach, call.netns, call.name, call.interface)

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


def _attach(host: Host, call: AttachCall, mtu: int) -> Attachment:
    with netns.namespace(call.netns) as descriptor:
        port = pods.port_name(netns.inode(descriptor), call.interface)
    there = {pod.port: pod for pod in host.attached()}
    taken = {pod.address for name, pod in there.items() if name != port}
    plan = host.plan
    if call.address is not None:
        address = _asked(call.address, plan)
    elif port in there:
        address = there[port].address
    else:
        address = _free(plan, taken)
    pod = host.attach(call.netns, call.name, address, call.interface, mtu)
    return Attachment(name=call.name, address=f"{pod.address}/32", interface=pod.interface, mtu=pod.mtu)


def _asked(text: str, plan: HostPlan) -> IPv4Address:
    try:
        return IPv4Address(text.partition("/")[0])
    except ValueError:
        raise ConfigError(f"{text!r} is no IPv4 address", f"give one inside {plan.block}, or leave --ip out") from None


def _free(plan: HostPlan, taken: set[IPv4Address]) -> IPv4Address:
    for address in plan.block.hosts():
        if address != plan.gateway and address not in taken:
            return address
    raise TunrouterError(f"no address is free in {plan.block}", "detach a pod, or give the node a larger --block")
