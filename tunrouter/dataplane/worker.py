"""The loop around a kernel: waits for the TUN, the UDP sockets and the pipe, and lets each move a bounded batch.

It knows control only as the other end of the pipe, so it runs in any loop, normally in a process of its own. What
control has said is obeyed before the first packet is looked at: a newborn's sockets may hold datagrams of sessions that
are still in its pipe. A kernel that has threads of its own waits for the packets itself and leaves the loop to control.
The only timer is the report, once a second after something moved. One barrier stands around each batch: whatever a
packet brings to light is logged once per kind and counted, and the loop goes on. When control is gone without a last
word, a worker that has sessions goes on and waits for another control (`succession.py`).

A process that runs only a worker should call `gc.freeze()` after its start: the hot loops make no cycles.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from tunrouter.core import bounds, seam, wire
from tunrouter.dataplane.estate import Estate
from tunrouter.dataplane.kernel import Kernel, Tun, Udp
from tunrouter.dataplane.pipe import PipeEnd
from tunrouter.dataplane.succession import ORPHAN_SECONDS, Succession
from tunrouter.dataplane.threads import Threads
from tunrouter.errors import ProtocolError

log = logging.getLogger(__name__)


class Worker:
    """Owns the descriptors that it is given from `start` to `close`, but not the pipe's other end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        kernel: Kernel,
        tun: Tun,
        udps: Sequence[Udp],
        pipe: PipeEnd[seam.ToWorker],
        succession: Succession | None = None,
    ) -> None:
        """Without `succession` it ends with its control."""
        self._loop = loop
        self._kernel = kernel
        self._tun = tun
        self._udps = udps
        self._pipe = pipe
        self._report: asyncio.TimerHandle | None = None
        self._seen: set[str] = set()
        self._writing = False
        self._closed = False
        self._threads: Threads | None = None
        self._estate = Estate()
        self._succession = succession
        self._patience: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the worker has closed everything."""
        while self._on_pipe():
            pass
        if self._closed:
            return
        if not pipe.closed:
            loop.add_reader(pipe.fileno(), self._on_pipe)
        if loops := kernel.loops(tun, udps):
            self._threads = Threads(loops, self._on_thread_end)
            self._guarded(self._threads.start)
            return
        loop.add_reader(tun.fileno(), self._on_tun)
        for udp in udps:
            loop.add_reader(udp.fileno(), self._on_udp, udp)

    def _on_thread_end(self) -> None:
        """Called by a thread whose descriptor is gone."""
        self._loop.call_soon_threadsafe(self._on_lost)

    def _on_lost(self) -> None:
        if not self._closed:
            log.error("the TUN device or a UDP socket is gone; the worker stops, to be replaced")
            self._stop_threads()
            self._guarded(self._kernel.report, time.monotonic())  # what it has carried is counted, too
            self.close()

    def _on_tun(self) -> None:
        self._guarded(self._kernel.drain_tun, time.monotonic())
        if _is_gone(self._tun.fileno()):
            self._on_lost()

    def _on_udp(self, udp: Udp) -> None:
        self._guarded(self._kernel.drain_udp, udp, time.monotonic())

    def _on_pipe(self) -> bool:
        """True if there may be more."""
        messages: list[seam.ToWorker] = []
        self._guarded(lambda: messages.extend(self._pipe.receive()))
        now = time.monotonic()
        for message in messages:
            self._guarded(self._obey, message, now)
        if self._pipe.closed and not messages and not self._closed and self._patience is None:
            self._on_bereft()
        return bool(messages) and not self._closed

    def _obey(self, message: seam.ToWorker, now: float) -> None:
        self._estate.note(message)
        match message:
            case seam.Check():
                self._pipe.send(seam.Alive(self._kernel.name))
            case seam.End():
                self.close()
            case seam.Will() | seam.Charter():
                pass  # the estate has it
            case _:
                self._kernel.apply(message, now)

    # --- from one control to the next --------------------------------------------------------------------------------
    def _on_bereft(self) -> None:
        """Control is gone. Who has sessions is of use without it, for a while."""
        if self._succession is None or not self._estate.sessions:
            log.debug("control is gone; the worker stops")
            self.close()
            return
        self._leave_pipe()
        self._pipe.unheard = self._on_unheard
        try:
            self._succession.open(self._estate.charter, self._on_heir)
        except OSError as error:
            log.error("packets cannot be moved on without an agent: %s", error)  # noqa: TRY400 (one line)
            self.depart()
            return
        log.warning("the agent is gone; packets are moved on for %g s, until there is another one", ORPHAN_SECONDS)
        self._patience = self._loop.call_later(ORPHAN_SECONDS, self._on_nobody)

    def _on_unheard(self, message: seam.ToControl | seam.ToWorker) -> None:
        """A kernel's thread says it, which must not be called back."""
        if isinstance(message, seam.Control):
            self._loop.call_soon_threadsafe(self._answer, message)

    def _answer(self, message: seam.Control) -> None:
        """Peers would soon take a node for dead whose control does not answer."""
        with suppress(ProtocolError):
            body = wire.decode_control(message.body)
            if isinstance(body, wire.Ping) and not self._closed:
                pong = wire.Pong(body.id, seam.relay_target(message.source) != 0)
                said = seam.SendControl(message.session, wire.encode_control(pong))
                self._guarded(self._kernel.apply, said, time.monotonic())

    def _on_heir(self, end: socket.socket) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._pipe.unheard = lambda message: None
        self._pipe.renew(end)
        for part in self._estate.inherited():
            self._guarded(self._pipe.send, part)
        self._loop.add_reader(self._pipe.fileno(), self._on_pipe)

    def _on_nobody(self) -> None:
        log.warning("no agent has come; the worker stops")
        self.depart()

    def depart(self) -> None:
        """Says what control left to be said, and ends."""
        for word in self._estate.last_words():
            self._guarded(self._kernel.apply, word, time.monotonic())
        self.close()

    def _leave_pipe(self) -> None:
        self._loop.remove_reader(self._pipe.fileno())
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._pipe.fileno())

    def _guarded(self, step: Callable[..., object], *arguments: object) -> None:
        try:
            step(*arguments)
        except Exception as error:  # the barrier: no packet and no message stops the loop
            self._count(error)
        if self._report is None and not self._closed:
            self._report = self._loop.call_later(bounds.REPORT_SECONDS, self._on_report)
        self._write_later()

    def _write_later(self) -> None:
        if self._pipe.wants_write and not self._writing:
            self._writing = True
            self._loop.add_writer(self._pipe.fileno(), self._on_writable)

    def _count(self, error: Exception) -> None:
        counters = self._kernel.counters
        counters["worker_errors"] = counters.get("worker_errors", 0) + 1
        kind = f"{type(error).__name__} at {_place(error)}"
        if kind not in self._seen and len(self._seen) < bounds.MAX_ERROR_KINDS:
            self._seen.add(kind)
            log.error("a batch failed and was given up (said once per kind): %s: %s", kind, error)

    def _on_writable(self) -> None:
        self._pipe.flush()
        if not self._pipe.wants_write:
            self._writing = False
            self._loop.remove_writer(self._pipe.fileno())

    def _on_report(self) -> None:
        """Reports, and again in a second: where the loop itself moves the packets, only if something moves."""
        counters = self._kernel.counters
        counters["seam_full"] = self._pipe.dropped
        counters["handshake_pipe_full"] = self._pipe.dropped_raw
        counters["seam_malformed"] = self._pipe.malformed
        self._report = None
        try:
            if self._kernel.report(time.monotonic()) or self._threads is not None:
                self._report = self._loop.call_later(bounds.REPORT_SECONDS, self._on_report)
        except Exception as error:
            self._count(error)
        self._write_later()  # what the kernel's threads could not send

    def _stop_threads(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.stop()

    def close(self) -> None:
        """Leaves the loop and closes every descriptor. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._report is not None:
            self._report.cancel()
        if self._patience is not None:
            self._patience.cancel()
        if self._succession is not None:
            self._succession.close()
        self._stop_threads()
        self._leave_pipe()
        descriptors: list[Tun | Udp | PipeEnd[seam.ToWorker]] = [self._tun, self._pipe, *self._udps]
        for descriptor in descriptors:
            self._loop.remove_reader(descriptor.fileno())
            descriptor.close()
        if not self.ended.done():
            self.ended.set_result(None)


def _is_gone(descriptor: int) -> bool:
    """Whether it has nothing to read but an error, as that of a device that was deleted: it would wake us for ever."""
    looked = select.poll()
    looked.register(descriptor, select.POLLIN)
    events = sum(found for _, found in looked.poll(0))
    return bool(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL)) and not events & select.POLLIN


def _place(error: Exception) -> str:
    """Where it was raised, as file and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "?"
