"""A worker without control: who may take it over, what it hands on, and how it ends if nobody does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from tests.dataplane.frames import udp as udp_frame
from tests.dataplane.pair import Side
from tests.dataplane.test_worker import WiredTun, WiredUdp, until
from tunrouter.core import bounds, seam, wire
from tunrouter.dataplane import estate
from tunrouter.dataplane import worker as loop_of
from tunrouter.dataplane.estate import Estate
from tunrouter.dataplane.pipe import PipeEnd, open_pipe
from tunrouter.dataplane.reference import ReferenceKernel
from tunrouter.dataplane.succession import Heirloom, Hello, Misfit, Succession, claim
from tunrouter.dataplane.worker import Worker

ROUTE = seam.Route(bytes((10, 32, 2, 0)), 24, 2)


class Bench:
    """A worker with one session in use, whose control can go and come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.tun, self.udp = WiredTun(), WiredUdp()
        self.control, end = open_pipe()
        self.kernel = ReferenceKernel(self.tun, [self.udp], end.send)
        self.waits: list[bool] = []
        self.said: list[seam.SendControl] = []
        apply = self.kernel.apply

        def note(message: seam.ToWorker, now: float) -> None:
            if isinstance(message, seam.SendControl):
                self.said.append(message)
            apply(message, now)

        self.kernel.apply = note  # type: ignore[method-assign]
        self.bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets = [self.bound.fileno()]
        meeting = Succession(self.loop, str(path), "build", ("csum",), sockets, waits=self.waits.append)
        self.worker = Worker(self.loop, self.kernel, self.tun, [self.udp], end, meeting)
        install = msgspec.structs.replace(Side(1, 2).installing(), expires=9e9)
        self.session = install.session
        for message in (
            seam.Charter("here"),
            ROUTE,
            install,
            seam.Deliver(self.session),
            seam.Use(2, self.session),
            seam.Hop(9, 2),
        ):
            self.control.send(message)

    async def lose_control(self) -> None:
        await until(lambda: self.session in self.worker._estate.sessions)
        self.control.close()
        await until(self.path.exists)

    async def claimed(self, charter: str = "here") -> Heirloom | None:
        return await self.loop.run_in_executor(None, claim, self.path, charter)

    async def moves_packets(self) -> bool:
        before = len(self.udp.sent)
        self.tun.offer(udp_frame())
        await until(lambda: len(self.udp.sent) > before)
        return True


async def heard_until(pipe: PipeEnd[seam.ToControl], last: seam.ToControl) -> list[seam.ToControl]:
    heard: list[seam.ToControl] = []

    def has_come() -> bool:
        heard.extend(pipe.receive())
        return last in heard

    await until(has_come)
    return heard


def run(path: Path, scenario: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        bench = Bench(path / "worker-0.sock")
        try:
            await scenario(bench)
        finally:
            bench.worker.close()
            bench.control.close()
            bench.bound.close()

    uvloop.run(main())


def test_packets_are_moved_on_and_the_next_control_hears_what_there_is(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(3):  # as often as agents come and go
            await bench.lose_control()
            assert bench.path.stat().st_mode & 0o777 == 0o600
            assert await bench.moves_packets()
            left = await bench.claimed()
            assert left is not None
            assert (left.pid, left.build, left.offloads) == (os.getpid(), "build", ("csum",))
            (held,) = left.sockets
            assert os.path.sameopenfile(held.fileno(), bench.bound.fileno())
            left.pipe.send(seam.Check())
            heard = await heard_until(left.pipe, seam.Alive("reference"))
            assert [message for message in heard if isinstance(message, seam.Inherited)] == [
                seam.Inherited(sessions=(bench.session,)),
                seam.Inherited(routes=((ROUTE.prefix, 24),)),
                seam.Inherited(hops=(9,)),
            ]
            assert await bench.moves_packets()
            assert not bench.path.exists()
            held.close()
            os.close(left.process)
            bench.control = left.pipe
        assert bench.waits == [True, False] * 3

    run(tmp_path, scenario)


def test_nobody_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_of, "ORPHAN_SECONDS", 0.2)

    async def scenario(bench: Bench) -> None:
        bench.control.send(seam.Will(bench.session, b"goodbye"))
        bench.control.send(seam.Will(bench.session + 64, b"whose?"))
        await bench.lose_control()
        await bench.worker.ended
        assert len(bench.udp.sent) == 1
        assert not bench.path.exists()

    run(tmp_path, scenario)


def test_a_last_word_is_obeyed(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.control.send(seam.Will(bench.session, b"goodbye"))
        bench.control.send(seam.End())
        await bench.worker.ended
        assert bench.udp.sent == []
        assert not bench.path.exists()

    run(tmp_path, scenario)


def test_a_worker_without_sessions_waits_for_nobody(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.control.send(seam.Retire(bench.session))
        bench.control.close()
        await bench.worker.ended

    run(tmp_path, scenario)


def test_where_nobody_can_be_met_the_worker_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        await until(lambda: bench.session in bench.worker._estate.sessions)
        bench.control.close()
        await bench.worker.ended

    run(tmp_path / "missing", scenario)
    assert "cannot be moved on" in caplog.text


STRANGER = """
import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
line, _ = listener.accept()
said = bytes.fromhex(sys.argv[2])
if said:
    socket.send_fds(line, [said], [1])
time.sleep(60)
"""


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(msgspec.msgpack.encode(Hello("elsewhere", "build", ())), id="another-place"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"", id="silence"),
    ],
)
def test_what_is_no_fit_is_ended(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "worker-0.sock"
    argv = [sys.executable, "-c", STRANGER, str(path), said.hex()]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"listens\n"
    began = time.monotonic()
    with pytest.raises(Misfit):
        claim(path, "here")
    assert process.wait(5) == -signal.SIGKILL
    process.stdout.close()
    assert time.monotonic() - began < 4


def test_where_nobody_listens_nothing_is_claimed(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.sock"
    assert claim(path, "here") is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    assert claim(path, "here") is None


def test_an_estate_has_what_was_said_and_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estate, "PART", 2)
    left = Estate()
    install = Side(1, 2).installing()
    for session in (64, 128, 192):
        left.note(msgspec.structs.replace(install, session=session))
        left.note(seam.Will(session, b"goodbye"))
    left.note(seam.Retire(128))
    for at in range(3):
        left.note(seam.Route(bytes((10, 32, at, 0)), 24, 7))
    left.note(seam.Unroute(bytes((10, 32, 1, 0)), 24))
    left.note(seam.Hop(7, 8))
    left.note(seam.Hop(9, 8))
    left.note(seam.Hop(9, 0))
    left.note(seam.Will(128, b"too late"))
    assert left.last_words() == [seam.SendControl(64, b"goodbye"), seam.SendControl(192, b"goodbye")]
    parts = list(left.inherited())
    assert sorted(session for part in parts for session in part.sessions) == [64, 192]
    assert {route[0][2] for part in parts for route in part.routes} == {0, 2}
    assert [hop for part in parts for hop in part.hops] == [7]
    assert all(len(part.sessions + part.routes + part.hops) <= 2 for part in parts)
    assert left.last_words() == [], "the next control has a will of its own"


def test_heartbeats_are_answered_without_control(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.lose_control()
        for source, by_relay in ((("192.0.2.7", 6783), False), (seam.relayed(2), True)):
            ping = wire.encode_control(wire.Ping(7, True, True))
            bench.kernel._emit(seam.Control(bench.session, source, ping, 100))
            await until(lambda: bench.said)
            assert wire.decode_control(bench.said.pop().body) == wire.Pong(7, by_relay)
        bench.kernel._emit(seam.Control(bench.session, source, b"garbage", 100))
        bench.kernel._emit(seam.Wanted(9))
        assert await bench.moves_packets()
        assert bench.said == []

    run(tmp_path, scenario)


def test_all_that_was_said_before_the_end_is_obeyed(tmp_path: Path) -> None:
    """However much it is, and though sending fails first."""

    async def scenario(bench: Bench) -> None:
        await until(lambda: bench.session in bench.worker._estate.sessions)
        many = 3 * bounds.WAKEUP_BATCH
        for _ in range(many):
            bench.control.send(seam.SendControl(bench.session, b"goodbye"))
        bench.control.send(seam.End())
        bench.control.close()
        bench.kernel._emit(seam.Wanted(9))
        await bench.worker.ended
        assert len(bench.said) == many
        assert bench.waits == []

    run(tmp_path, scenario)
