"""Which address of this host the tunnel uses: the wish for it, what it comes to now, and that it changed.

    flag, file ──┐
    annotation ──┼──> wish ──> choice (host thread) ──> move: other sockets │ stir: the same, but packets may leave anew
    InternalIP ──┘      netlink: a link, an address ──┘

Law: the strongest wish counts, and what cannot be had now is waited for, at the start as well: at boot a network card
may come late. Until then nothing is bound elsewhere; later what was in use stays, for the address may come back. A look
is taken when netlink tells something, and every two seconds for what it did not tell (routes).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import IntEnum
from typing import Final

from tunrouter.agent.barrier import Barrier
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.plan import underlay_wish
from tunrouter.config import Config
from tunrouter.core import seam
from tunrouter.edge.netlink import Netlink, Watch
from tunrouter.edge.netlink.watch import ADDRESSES
from tunrouter.errors import HostError, TunrouterError
from tunrouter.host import choice, underlay_mtu
from tunrouter.host.choice import EVERY, Chosen, Here, Wish

LOOK_SECONDS: Final = 2.0
START_PAUSE_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.05
"""After a notification: an address comes with its routes."""
REST_SECONDS: Final = 0.2
"""Between two looks, where links come and go without end."""
log = logging.getLogger("tunrouter.underlay")

Move = Callable[[Chosen], Awaitable[None]]
"""Gives the data plane sockets of the new choice, or raises TunrouterError."""
Stir = Callable[[tuple[seam.Endpoint, ...]], None]
"""Is told that packets may leave in another way than before, and where this node knows itself to be."""


class Rank(IntEnum):
    """Whose wish it is, the strongest first."""

    CONFIGURATION = 0
    ANNOTATION = 1
    INTERNAL_IP = 2


class Underlay:
    def __init__(self, config: Config, host: HostSide, barrier: Barrier) -> None:
        self._host = host
        self._barrier = barrier
        self._own = (config.bridge, config.tun)
        self._port = config.port
        self._wishes = {Rank.CONFIGURATION: underlay_wish(config)}
        self._peers: Sequence[str] = ()
        self._news = asyncio.Event()
        self._here: Here | None = None
        self._bound: str | None = ""
        """The sockets' address; None: they could not be moved to where they should be."""
        self._wanting = self._stuck = ""
        """Why the wish cannot be fulfilled now, and why the sockets cannot be moved to where it led."""
        self.waits: Callable[[str], None] = lambda why: None
        """Is told why the agent's start waits."""
        self.chosen = EVERY
        """What is in use, or was when it could be had."""
        self.mtu = 0

    @property
    def trouble(self) -> str:
        """What is wrong with it now; empty if nothing is."""
        return self._stuck or self._wanting

    @property
    def wish(self) -> Wish:
        """The strongest that says anything."""
        wishes = (self._wishes[rank] for rank in sorted(self._wishes))
        return next((wish for wish in wishes if not wish.of_all), Wish())

    def prefer(self, rank: Rank, wish: Wish | None) -> None:
        """What somebody wishes from now on; None takes it back."""
        before = self.wish
        self._wishes.pop(rank, None)
        if wish is not None:
            self._wishes[rank] = wish
        if self.wish != before:
            log.info("the underlay is now to be: %s", self.wish)
            self._news.set()

    @property
    def endpoints(self) -> tuple[seam.Endpoint, ...]:
        """Where this node knows itself to be; where all addresses are used peers tell it."""
        return ((self.chosen.told, self._port),) if self.chosen.told else ()

    async def settle(self, peers: Sequence[str], stopped: asyncio.Event) -> bool:
        """Returns when there is an address to bind, with its MTU; False if the agent was `stopped` before."""
        self._peers = peers
        while not stopped.is_set():
            await self._look()
            if not self._wanting:
                self._bound = self.chosen.address
                await self._measure()
                return True
            self.waits(self._wanting)
            await _either(self._news, stopped, START_PAUSE_SECONDS)
            self._news.clear()
        return False

    async def keep(self, move: Move, stir: Stir) -> None:
        """For as long as the agent runs."""
        watch = Watch(ADDRESSES)
        loop = asyncio.get_running_loop()
        loop.add_reader(watch.fileno(), self._on_news, watch)
        try:
            while True:
                heard = await self._wait()
                with self._barrier:
                    # What nobody told of matters where a route decides, and where something is to be mended.
                    if heard or self.wish.can_reach or self.trouble:
                        await self._follow(move, stir)
                await asyncio.sleep(REST_SECONDS)
        finally:
            loop.remove_reader(watch.fileno())
            watch.close()

    def _on_news(self, watch: Watch) -> None:
        watch.drain()
        self._news.set()

    async def _wait(self) -> bool:
        """Whether there is news."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._news.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(SETTLE_SECONDS)
        self._news.clear()
        return True

    async def _follow(self, move: Move, stir: Stir) -> None:
        trace = self._here.trace if self._here is not None else None
        await self._look()
        if not self._wanting and self.chosen.address != self._bound:
            await self._move(move, stir)
        elif self._here is not None and self._here.trace != trace:
            await self._measure()
            stir(self.endpoints)

    async def _move(self, move: Move, stir: Stir) -> None:
        if self._bound is not None:
            log.warning("the underlay is %s from now on; it was %s", self.chosen, self._bound or EVERY)
        self._bound = None
        await self._measure()
        try:
            await move(self.chosen)
        except TunrouterError as error:
            before, self._stuck = self._stuck, f"the tunnel's sockets cannot be opened at {self.chosen}: {error}"
            if self._stuck != before:
                log.error("%s", self._stuck)  # noqa: TRY400 (one line, no traceback)
            return
        self._stuck, self._bound = "", self.chosen.address
        stir(self.endpoints)

    async def _look(self) -> None:
        """At this host, and whether the wish can be fulfilled."""
        before = self._wanting
        try:
            self._here, found = await self._host.call(_choice, self.wish, self._own, self.chosen)
        except HostError as error:  # the kernel does not tell what there is
            found = error
        if isinstance(found, HostError):
            self._wanting = str(found)
            if self._wanting != before:
                log.error("%s", found)
            return
        self.chosen, self._wanting = found, ""
        if before:
            log.info("the underlay is there: %s", found)

    async def _measure(self) -> None:
        self.mtu = await self._host.call(underlay_mtu, self._peers, self.chosen)


def _choice(wish: Wish, own: Collection[str], before: Chosen) -> tuple[Here, Chosen | HostError]:
    """What there is, and what is chosen of it or why nothing is. Blocks: for the host's thread. Raises HostError."""
    with Netlink() as netlink:
        here = choice.look(netlink, own)
        try:
            return here, choice.choose(wish, here, lambda address: choice.way(netlink, address), before)
        except HostError as error:
            return here, error


async def _either(one: asyncio.Event, other: asyncio.Event, seconds: float) -> None:
    """Returns when one of them is set, or the time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
