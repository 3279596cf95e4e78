"""The data plane's processes: started, joined into the one data plane that the node sees, watched and replaced.

    node ── effects ──> split ──> pipe ──> worker 0 (TUN queue, a UDP socket a family)
         <── messages ── merge <── pipe <── worker 1 …

Law: the UDP sockets stay open here as long as their address is in use, for a closed one would renumber the others; what
arrives for a worker that is being replaced waits in its socket. A worker that is gone, hung or cannot take state is
replaced at once, later only if the last one did not last; the newborn is told all state but keys, and sessions that
lost lanes renew theirs. Workers that an earlier agent left are taken over: what it told them and the node does not say
again is taken back after `SETTLE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import Final

from tunrouter.agent.barrier import Barrier
from tunrouter.agent.child import Adopted, Child, Member, Order
from tunrouter.agent.descriptors import close_groups
from tunrouter.core import seam, status
from tunrouter.core.shares import Shares
from tunrouter.daemon.logs import OncePerKey
from tunrouter.dataplane.succession import Heirloom
from tunrouter.edge import processes
from tunrouter.errors import HostError, ProtocolError

CHECK_SECONDS: Final = 1.0
HUNG_SECONDS: Final = 4.0
"""A worker that owes an answer for so long is replaced; one that has just been started may take longer."""
START_SECONDS: Final = 15.0
LASTED_SECONDS: Final = 10.0
"""A worker that lived so long is replaced at once; before that, after pauses that double."""
PAUSE_SECONDS: Final = (0.0, 0.25, 0.5, 1.0, 2.0)
LATE_SECONDS: Final = 0.5
"""A look at the clock that comes so much later than planned accuses nobody: we were held up ourselves."""
STOP_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.01
SETTLE_SECONDS: Final = 30.0
"""Until peers were met again, and gossip has said what there is."""
log = logging.getLogger("tunrouter.workers")

Hear = Callable[[Iterable[seam.ToControl]], None]
Maimed = Callable[[Collection[int]], None]


class Workers:
    """`hear` gets what the data plane says, `maimed` the sessions that lost lanes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        order: Order,
        groups: list[list[socket.socket]],
        barrier: Barrier,
        once: OncePerKey,
    ) -> None:
        """`groups` has for each address family one socket a worker; it is the caller's to close in the end."""
        self._loop = loop
        self._order = order
        self._groups = groups
        self._barrier = barrier
        self._once = once
        self.count = len(groups[0])
        self._charter = seam.Charter("")
        self.hear: Hear = lambda messages: None
        self.maimed: Maimed = lambda sessions: None
        self._shares = Shares(self.count)
        self._children: dict[int, Member] = {}
        self._dying: list[Member] = []
        self._short_lives = dict.fromkeys(range(self.count), 0)
        """How often in a row each of them did not last."""
        self._restarts = dict.fromkeys(range(self.count), 0)
        self._pipe_full = self._malformed = 0
        """Of workers that are no more: what found no room on its way to them, and what they said that meant nothing."""
        self._ready: asyncio.Future[None] = loop.create_future()
        self._check_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # --- start and stop ----------------------------------------------------------------------------------------------
    def charter(self, text: str) -> None:
        """Who takes these workers over must have the same."""
        self._charter = seam.Charter(text)
        for child in self._children.values():
            self._tell(child.number, self._charter)

    def start(self, left: Sequence[Heirloom] = ()) -> None:
        """Takes over what an earlier agent left, and starts the others; what is sent from now on reaches them all.

        Raises HostError.
        """
        for number in range(self.count):
            heirloom = left[number] if left else None
            if heirloom is not None and heirloom.build == self._order.build:
                self._join(Adopted(number, heirloom, time.monotonic()))
            else:
                self._spawn(number, heirloom)
        if left:
            self._loop.call_later(SETTLE_SECONDS, self._settle)
        self._schedule()

    async def ready(self) -> None:
        """Returns when every worker moves packets; raises HostError if one does not start."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._ready
        except TimeoutError:
            raise HostError("the workers do not start", "see the log, and whether the machine is overloaded") from None

    def set_log_level(self, level: str) -> None:
        """Of workers that start from now on: those that run say little, and nothing that they could leave out."""
        self._order = self._order._replace(log_level=level)

    async def close(self, *, leave: bool = False) -> None:
        """Lets each do what it was told, then ends them; or leaves them to the next agent."""
        self._closed = True
        self._ready.cancel()
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._loop.time() + STOP_SECONDS
        for child in list(self._children.values()):
            if not leave:
                child.pipe.send(seam.End())
            while child.pipe.wants_write and not child.pipe.closed and self._loop.time() < deadline:
                child.pipe.flush()
                await asyncio.sleep(POLL_SECONDS)
            self._leave(child)
        if leave:
            return
        while not all(child.ended for child in self._dying) and self._loop.time() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        for child in self._dying:
            if not child.ended:
                child.kill()

    async def halt(self) -> None:
        """Ends all workers, and closes the sockets that they had: the port is free when this returns. Idempotent."""
        for child in list(self._children.values()):
            with self._barrier:
                child.kill()
                while self._take(child):
                    pass
            self._leave(child)
            if last := self._shares.lost(child.number):
                self.hear(last)
        deadline = self._loop.time() + STOP_SECONDS
        while not all(child.ended for child in self._dying) and self._loop.time() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        close_groups(self._groups)
        self._groups.clear()

    def resume(self, groups: Sequence[list[socket.socket]]) -> None:
        """After `halt`: with these sockets, as many a family as before. Keys are renewed. Raises HostError."""
        self._groups.extend(groups)
        if not self._closed:
            with self._barrier:
                for number in range(self.count):
                    self._spawn(number)
            self._tell_maimed()

    @property
    def everywhere(self) -> bool:
        """The sockets are bound to all addresses of their families."""
        return any(ip_address(group[0].getsockname()[0]).is_unspecified for group in self._groups)

    def _spawn(self, number: int, instead: Heirloom | None = None) -> None:
        sockets = [group[number].fileno() for group in self._groups]
        if instead is None:
            self._join(Child(number, self._order, sockets, time.monotonic()))
            return
        instead.pipe.close()
        self._join(Child(number, self._order, sockets, time.monotonic(), instead.process))
        os.close(instead.process)

    def _join(self, child: Member) -> None:
        self._children[child.number] = child
        child.pipe.tell([self._charter, *self._shares.joined(child.number)])
        child.pipe.send(seam.Check())
        self._loop.add_reader(child.pipe.fileno(), self._on_pipe, child)
        self._watch_writing(child)

    def _settle(self) -> None:
        """What an earlier agent said and this one does not is taken back."""
        with self._barrier:
            for number, told in self._shares.settled().items():
                if (child := self._children.get(number)) is not None:
                    child.pipe.tell(told)
                    self._watch_writing(child)

    def _leave(self, child: Member) -> None:
        """Its pipe is closed, and it ends or is killed."""
        self._loop.remove_reader(child.pipe.fileno())
        if child.writing:
            self._loop.remove_writer(child.pipe.fileno())
        child.pipe.close()
        self._pipe_full += child.pipe.dropped
        self._malformed += child.pipe.malformed
        self._children.pop(child.number, None)
        self._dying.append(child)

    # --- messages ----------------------------------------------------------------------------------------------------
    def send(self, message: seam.ToWorker) -> None:
        for number, part in self._shares.split(message):
            self._tell(number, part)

    def _tell(self, number: int, message: seam.ToWorker) -> None:
        child = self._children.get(number)
        if child is None:
            return
        try:
            child.pipe.send(message)
        except ProtocolError as error:
            if not child.pipe.wants_write:
                raise  # too large: the message is at fault
            self._loop.call_soon(self._replace, child, str(error))
            return
        self._watch_writing(child)

    def _watch_writing(self, child: Member) -> None:
        if child.pipe.wants_write and not child.writing:
            child.writing = True
            self._loop.add_writer(child.pipe.fileno(), self._on_writable, child)

    def _on_writable(self, child: Member) -> None:
        with self._barrier:
            child.pipe.flush()
        if not child.pipe.wants_write:
            child.writing = False
            self._loop.remove_writer(child.pipe.fileno())

    def _on_pipe(self, child: Member) -> None:
        with self._barrier:
            while self._take(child) and child.pipe.closed:
                pass  # its last words
        if child.pipe.closed:
            self._replace(child, child.fate)

    def _take(self, child: Member) -> bool:
        """Hands on what has come; true if there may be more."""
        received = child.pipe.receive()
        messages: list[seam.ToControl] = []
        for message in received:
            if isinstance(message, seam.Alive):
                self._on_alive(child, message)
                continue
            for number, part in self._shares.follow(child.number, message):
                self._tell(number, part)
            merged = self._shares.merge(child.number, message)
            if merged is not None:
                messages.append(merged)
        if messages:
            self.hear(messages)
        return bool(received)

    def _on_alive(self, child: Member, message: seam.Alive) -> None:
        child.alive_at, child.kernel = time.monotonic(), message.kernel
        self._shares.ready(child.number)
        if all(self._children.get(number) and self._children[number].kernel for number in range(self.count)):
            self._finish(None)

    def _finish(self, error: HostError | None) -> None:
        if self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(error)

    # --- supervision -------------------------------------------------------------------------------------------------
    def _schedule(self) -> None:
        self._check_at = self._loop.time() + CHECK_SECONDS
        self._timer = self._loop.call_at(self._check_at, self._check)

    def _check(self) -> None:
        """Once a second: who owes an answer for too long is replaced, the others are asked."""
        late = self._loop.time() - self._check_at > LATE_SECONDS
        self._schedule()
        self._dying = [child for child in self._dying if not child.ended]
        for child in list(self._children.values()):
            with self._barrier:
                self._check_one(child, late=late)

    def _check_one(self, child: Member, *, late: bool) -> None:
        while self._take(child):
            pass
        now = time.monotonic()
        patience = HUNG_SECONDS if child.kernel else START_SECONDS
        if not late and child.unanswered(now) > patience:
            self._replace(child, "it does not answer")
        elif child.unanswered(now) == 0.0:
            child.checked_at = now
            child.pipe.send(seam.Check())

    def _replace(self, child: Member, why: str) -> None:
        """It is gone, or as good as that. Idempotent."""
        if self._closed or self._children.get(child.number) is not child:
            return
        number, now = child.number, time.monotonic()
        child.kill()
        with self._barrier:
            while self._take(child):
                pass  # what it had said before
        self._leave(child)
        if last := self._shares.lost(number):
            self.hear(last)
        if not self._ready.done():
            self._finish(HostError(f"worker {number} did not start: {why}", "see the log above"))
            return
        lasted = now - child.started > LASTED_SECONDS
        short = self._short_lives[number] = 0 if lasted else self._short_lives[number] + 1
        pause = PAUSE_SECONDS[min(max(short - 1, 0), len(PAUSE_SECONDS) - 1)]
        again = f"a new one starts in {pause:g} s" if pause else "a new one starts"
        self._once.say("error", f"worker {number}", f"worker {number} (pid {child.pid}) is gone: {why}; {again}", now)
        if pause:
            self._tell_maimed()
            self._loop.call_later(pause, self._restart, number)
        else:
            self._restart(number)

    def _restart(self, number: int) -> None:
        if self._closed or not self._groups or number in self._children:
            return  # a move has come between
        self._restarts[number] += 1
        with self._barrier:
            self._spawn(number)
        if number not in self._children:
            self._loop.call_later(PAUSE_SECONDS[-1], self._restart, number)
        self._tell_maimed()

    def _tell_maimed(self) -> None:
        with self._barrier:
            self.maimed(self._shares.maimed())

    # --- what status shows -------------------------------------------------------------------------------------------
    @property
    def kernel(self) -> str:
        """What moves the packets; of all workers, if they differ."""
        return "+".join(sorted({child.kernel for child in self._children.values() if child.kernel}))

    def report(self) -> tuple[status.Worker, ...]:
        return tuple(self._report(number, restarts) for number, restarts in self._restarts.items())

    def _report(self, number: int, restarts: int) -> status.Worker:
        child = self._children.get(number)
        if child is None:
            return status.Worker(number=number, pid=0, uptime=0.0, restarts=restarts)
        used = processes.used(child.pid)
        return status.Worker(
            number=number,
            pid=child.pid,
            uptime=time.monotonic() - child.started,
            restarts=restarts,
            cpu_seconds=used.cpu_seconds,
            resident_bytes=used.resident_bytes,
        )

    @property
    def counters(self) -> dict[str, int]:
        pipes = [child.pipe for child in self._children.values()]
        return {
            "worker_restarts": sum(self._restarts.values()),
            "worker_pipe_full": self._pipe_full + sum(pipe.dropped for pipe in pipes),
            "worker_malformed": self._malformed + sum(pipe.malformed for pipe in pipes),
        }
