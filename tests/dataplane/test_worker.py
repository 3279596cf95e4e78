"""The worker's loop with fakes on real descriptors: wake-ups, the barrier, reports and the end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable

import msgspec
import pytest
import uvloop

from tests.dataplane.fakes import FakeTun, FakeUdp
from tests.dataplane.frames import udp as udp_frame
from tests.dataplane.pair import Side
from tunrouter.core import seam
from tunrouter.dataplane.pipe import PipeEnd, open_pipe
from tunrouter.dataplane.reference import ReferenceKernel
from tunrouter.dataplane.worker import Worker


class WiredTun(FakeTun):
    """A fake whose readiness is a real descriptor's."""

    def __init__(self) -> None:
        super().__init__()
        self.here, self.there = socket.socketpair()

    def fileno(self) -> int:
        return self.here.fileno()

    def offer(self, frame: bytes) -> None:
        self.readable.append(frame)
        self.there.send(b"!")

    def read_into(self, buffer: memoryview) -> int:
        size = super().read_into(buffer)
        if not size:
            self.here.recv(100)
        return size

    def close(self) -> None:
        self.here.close()
        self.there.close()


class WiredUdp(FakeUdp):
    def __init__(self) -> None:
        super().__init__()
        self.here, self.there = os.pipe()

    def fileno(self) -> int:
        return self.here

    def close(self) -> None:
        os.close(self.here)
        os.close(self.there)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class Bench:
    """A worker in the running loop, and control's end of its pipe."""

    def __init__(self) -> None:
        self.tun, self.udp = WiredTun(), WiredUdp()
        self.control, end = open_pipe()
        self.kernel = ReferenceKernel(self.tun, [self.udp], end.send)
        self.worker = Worker(asyncio.get_running_loop(), self.kernel, self.tun, [self.udp], end)
        self.heard: list[seam.ToControl] = []

    def tell(self, *messages: seam.ToWorker) -> None:
        for message in messages:
            self.control.send(message)

    def heard_kinds(self) -> set[type]:
        self.heard += self.control.receive()
        return {type(message) for message in self.heard}

    def open(self) -> None:
        install = msgspec.structs.replace(Side(1, 2).installing(), expires=9e9)
        routes = seam.Route(bytes((10, 32, 1, 0)), 24, seam.SELF), seam.Route(bytes((10, 32, 2, 0)), 24, 2)
        self.tell(*routes, install, seam.Deliver(install.session), seam.Use(2, install.session))


def run(scenario: Callable[[Bench], object]) -> None:
    async def main() -> None:
        bench = Bench()
        try:
            await scenario(bench)  # type: ignore[misc]
        finally:
            bench.worker.close()
            bench.control.close()

    uvloop.run(main())


def test_control_drives_and_hears_through_the_pipe() -> None:
    async def scenario(bench: Bench) -> None:
        bench.tell(seam.Route(bytes((10, 32, 2, 0)), 24, 2))
        await until(bench.kernel._routes.nodes)
        bench.tun.offer(udp_frame())
        await until(lambda: seam.Wanted in bench.heard_kinds())
        bench.open()
        await until(lambda: bench.udp.sent)
        bench.tun.offer(udp_frame())
        await until(lambda: len(bench.udp.sent) == 2)
        await until(lambda: {seam.Used, seam.Counters} <= bench.heard_kinds())

    run(scenario)


def test_an_idle_worker_has_no_timer() -> None:
    async def scenario(bench: Bench) -> None:
        bench.tun.offer(b"rubbish")
        await until(lambda: bench.worker._report is not None)
        await until(lambda: bench.worker._report is None)
        assert seam.Counters in bench.heard_kinds()

    run(scenario)


def test_an_unexpected_error_is_counted_said_once_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        def broken(_message: object, _now: float) -> None:
            raise KeyError("bug")

        bench.kernel._obey[seam.Deliver] = broken
        bench.tell(*[seam.Deliver(1)] * 5)
        bench.control._end.send(b"rubbish")
        bench.open()
        await until(lambda: bench.kernel.counters.get("worker_errors", 0) == 6)  # five, and the session's own
        bench.tell(seam.SendRaw(("192.0.2.2", 1), b"alive"))
        await until(lambda: (b"alive", ("192.0.2.2", 1)) in bench.udp.sent)

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert len([record for record in caplog.records if "KeyError" in record.message]) == 1


def test_the_worker_ends_with_control() -> None:
    async def scenario(bench: Bench) -> None:
        bench.control.close()
        await until(lambda: bench.worker._closed)

    run(scenario)


def test_a_pipe_that_was_full_is_flushed() -> None:
    async def scenario(bench: Bench) -> None:
        end: PipeEnd[seam.ToWorker] = bench.worker._pipe
        while not end.wants_write:
            end.send(seam.Moved(1, ("192.0.2.1", 1)))
        bench.tun.offer(b"rubbish")
        await until(lambda: bench.worker._writing)
        await until(lambda: bench.heard_kinds() and not end.wants_write)
        assert not bench.worker._writing

    run(scenario)


def test_a_device_that_is_gone_ends_the_worker_instead_of_waking_it_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    class Gone(WiredTun):
        def __init__(self) -> None:
            super().__init__()
            self.close()
            reader, self._writer = os.pipe()
            os.close(reader)  # what is left has nothing to read but an error, as the queue of a deleted device

        def fileno(self) -> int:
            return self._writer

        def read_into(self, buffer: memoryview) -> int:
            raise OSError(errno.EBADFD, os.strerror(errno.EBADFD))

        def close(self) -> None:
            super().close()
            if hasattr(self, "_writer"):
                os.close(self._writer)

    async def main() -> None:
        tun, udp = Gone(), WiredUdp()
        control, end = open_pipe()
        worker = Worker(asyncio.get_running_loop(), ReferenceKernel(tun, [udp], end.send), tun, [udp], end)
        async with asyncio.timeout(5):
            await worker.ended
        (counters,) = [said for said in control.receive() if isinstance(said, seam.Counters)]
        assert counters.values["tun_read_errors"] == 1, "it has counted before it ended, and told"
        control.close()

    uvloop.run(main())
    assert "is gone" in caplog.text
