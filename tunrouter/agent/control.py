"""The node in its loop: messages and deadlines go in, and its effects are carried out, in order.

    workers ─> node.on_messages ──┐
    clock ───> node.on_timer ─────┼──> effects ──> workers | host thread | disk | log
    API ─────> node.connect … ────┘

Law: the core decides, this file only carries. One barrier stands around each step and each effect: what fails is given
up alone, and the timer is armed whatever happens. After `stop` the node is never called again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Final, TypeVar

from tunrouter.agent.barrier import COUNTER, Barrier
from tunrouter.core import seam, status, wire
from tunrouter.core.journal import Persist
from tunrouter.core.leases import News
from tunrouter.core.node import Node
from tunrouter.core.outbox import (
    Answer,
    CreateLease,
    DeleteLease,
    Echo,
    Effect,
    Fatal,
    Fenced,
    KernelMtu,
    Log,
    Own,
    Remember,
    Said,
    TakeLease,
)
from tunrouter.core.requests import Request
from tunrouter.daemon.logs import OncePerKey

FAILED_SECONDS: Final = 0.25
"""Pause after a deadline that the node could not meet: it stays in the past, and the loop must not spin on it."""
LONGEST_SECONDS: Final = 3600.0

T = TypeVar("T")


class Control:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        node: Node,
        send: Callable[[seam.ToWorker], None],
        once: OncePerKey,
        barrier: Barrier,
        *,
        remember: Callable[[tuple[seam.Endpoint, ...]], None],
        set_path_mtu: Callable[[IPv4Network, int | None], None],
        own: Callable[[tuple[IPv4Network, ...]], None],
        fence: Callable[[tuple[IPv4Address, ...]], None],
    ) -> None:
        """`send` reaches the data plane; `said` may be set, it hears what peers' agents say."""
        self.node = node
        self.said: Callable[[int, wire.AgentBody], None] = lambda node, body: None
        self.persist: Callable[[Persist], None] = lambda persist: None
        self.answered: Callable[[int, object], None] = lambda ticket, result: None
        self.fatal: Callable[[str, str], None] = lambda what, fix: None
        self.echoed: Callable[[Echo], None] = lambda echo: None
        self.leased: Callable[[CreateLease | TakeLease | DeleteLease], None] = lambda effect: None
        self.stopped = False
        self._loop = loop
        self._send = send
        self._once = once
        self._barrier = barrier
        self._remember = remember
        self._set_path_mtu = set_path_mtu
        self._own = own
        self._fence = fence
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        """When the timer fires: what uvloop gives for something that is due at once has no `when`."""

    @property
    def counters(self) -> dict[str, int]:
        return self.node.counters | {COUNTER: self._barrier.errors}

    # --- steps -------------------------------------------------------------------------------------------------------
    def hear(self, messages: Iterable[seam.ToControl]) -> None:
        """What the data plane says, in its order."""
        if self.stopped:
            return
        waiting = deque(messages)
        left = len(waiting) + 1
        while len(waiting) < left:
            # One message was too much for the node: it loses that one and hears the others.
            left = len(waiting)
            if self._try(lambda now: self.node.on_messages(_drained(waiting), now)):
                break

    def lanes_lost(self, maimed: Collection[int]) -> None:
        """A worker was lost with its lanes of these sessions, perhaps with all that they had."""
        if not self.stopped:
            self._try(lambda now: self.node.on_lanes_lost(maimed, now))

    def _on_timer(self) -> None:
        self._timer = None
        done = self._try(self.node.on_timer)
        self._arm(0.0 if done else FAILED_SECONDS)

    def _try(self, step: Callable[[float], list[Effect]]) -> bool:
        """False if the node raised."""
        with self._barrier:
            self.carry_out(step(time.monotonic()))
            return True
        return False

    def readdressed(self, endpoints: tuple[seam.Endpoint, ...]) -> None:
        """Packets leave in another way from now on, and this is where the host knows itself to be."""
        if not self.stopped:
            self._try(lambda now: self.node.readdressed(endpoints, now))

    def tell(self, node: int, body: wire.AgentBody) -> None:
        """To a peer's agent, which may not hear it."""
        if not self.stopped:
            self._try(lambda now: self.node.tell(node, body, now))

    def ping(self, node: int, ticket: int) -> None:
        """`echoed` hears of its answer, if there is one."""
        if not self.stopped:
            self._try(lambda now: self.node.ping(node, ticket, now))

    def ask(self, request: Request) -> None:
        """About addresses; `answered` hears what became of it."""
        if not self.stopped:
            self._try(lambda now: self.node.ask(request, now))

    def durable(self, number: int) -> None:
        """What `persist` was given is on disk."""
        if not self.stopped:
            self._try(lambda now: self.node.on_durable(number, now))

    def hear_api(self, *news: News) -> None:
        """What the cluster's API says."""
        if not self.stopped:
            self._try(lambda now: self.node.hear_api(news, now))

    # --- effects -----------------------------------------------------------------------------------------------------
    def carry_out(self, effects: list[Effect]) -> None:
        """Every one of them, whatever becomes of the others."""
        for effect in effects:
            with self._barrier:
                self._carry(effect)
        self._arm()

    def _carry(self, effect: Effect) -> None:
        match effect:
            case Log(level, key, text, peer, address, reason):
                name = status.peer_name(peer) if peer else ""
                self._once.say(level, key, text, time.monotonic(), peer=name, address=address, reason=reason)
            case KernelMtu(prefix, mtu):
                self._set_path_mtu(prefix, mtu)
            case Own(blocks):
                self._own(blocks)
            case Fenced(addresses):
                self._fence(addresses)
            case Remember(endpoints):
                self._remember(endpoints)
            case Said(node, body):
                self.said(node, body)
            case Persist():
                self.persist(effect)
            case Answer(ticket, result):
                self.answered(ticket, result)
            case CreateLease() | TakeLease() | DeleteLease():
                self.leased(effect)
            case Echo():
                self.echoed(effect)
            case Fatal(what, fix):
                self.fatal(what, fix)
            case _:
                self._send(effect)

    def _arm(self, least: float = 0.0) -> None:
        """Sooner than planned, never later: a stream of messages must not put off what is due."""
        if self.stopped:
            return
        pause = FAILED_SECONDS
        with self._barrier:
            pause = self.node.deadline - time.monotonic()
        # Timers have millisecond resolution: one that fires early must not spin.
        at = self._loop.time() + min(max(pause, least, 0.001), LONGEST_SECONDS)
        if self._timer is not None:
            if self._due <= at:
                return
            self._timer.cancel()
        self._due, self._timer = at, self._loop.call_at(at, self._on_timer)

    # --- the end -----------------------------------------------------------------------------------------------------
    def stop(self, *, leave: bool = False) -> None:
        """The node's last step, which says goodbye, or leaves that to be said if no other agent comes. Idempotent."""
        if self.stopped:
            return
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._try(self.node.depart if leave else self.node.stop)


def _drained(waiting: deque[T]) -> Iterator[T]:
    while waiting:
        yield waiting.popleft()
