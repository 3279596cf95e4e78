"""Supervision: workers that die, hang, do not read or do not start, and what the node hears of it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

import pytest
import uvloop

from tunrouter.agent import dataplane
from tunrouter.agent import workers as supervision
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.child import Order
from tunrouter.agent.workers import Workers
from tunrouter.config import Config
from tunrouter.core import bounds, seam
from tunrouter.core.keys import Identity
from tunrouter.daemon.logs import OncePerKey
from tunrouter.dataplane.pipe import PipeEnd, open_pipe
from tunrouter.errors import HostError
from tunrouter.host.choice import Chosen

ROUTE = seam.Route(b"\n\0\1\0", 24, 7)
LANES = tuple(seam.Lane(n, bytes(32), bytes(8), bytes(32), bytes(8)) for n in range(2))
INSTALL = seam.Install(128, 7, 256, LANES, ("192.0.2.7", 6783), 9e9, sealed=True)


class FakeChild:
    """As `Child`, but what stands at the other end of its pipe is the test."""

    made: ClassVar[list[FakeChild]] = []
    answers = True

    def __init__(self, number: int, order: Order, sockets: Sequence[int], now: float) -> None:
        self.number, self.started, self.sockets = number, now, list(sockets)
        self.kernel = ""
        self.checked_at = self.alive_at = now
        self.writing = self.killed = False
        self.pid = 1000 + len(self.made)
        self.pipe, self.end = open_pipe()
        self.told: list[seam.ToWorker] = []
        self.fate = "signal 9"
        self.made.append(self)

    def unanswered(self, now: float) -> float:
        return now - self.checked_at if self.checked_at > self.alive_at else 0.0

    @property
    def ended(self) -> bool:
        return True

    def kill(self) -> None:
        self.killed = True
        self.end.close()

    # --- the test's side ---------------------------------------------------------------------------------------------
    def serve(self) -> None:
        """Reads what has come, and answers."""
        while messages := self.end.receive():
            for message in messages:
                if isinstance(message, seam.Check) and self.answers:
                    self.end.send(seam.Alive("fake"))
                elif not isinstance(message, seam.Charter):
                    self.told.append(message)


class Bench:
    def __init__(self, count: int) -> None:
        FakeChild.made = []
        FakeChild.answers = True
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        log = logging.getLogger("tunrouter")
        self.barrier = Barrier(log)
        order = Order("tunrouter0", "info", "text", build="build")
        loop = asyncio.get_running_loop()
        self.workers = Workers(loop, order, [self.sockets], self.barrier, OncePerKey(log))
        self.heard: list[seam.ToControl] = []
        self.maimed: list[list[int]] = []
        self.workers.hear = self.heard.extend
        self.workers.maimed = lambda sessions: self.maimed.append(list(sessions))

    @property
    def children(self) -> list[FakeChild]:
        return FakeChild.made

    async def start(self) -> None:
        self.workers.start()
        for child in self.children:
            child.serve()
        await self.workers.ready()

    async def until(self, condition: Callable[[], object], *, serve: bool = True) -> None:
        async with asyncio.timeout(5):
            while not condition():
                if serve:
                    for child in self.children:
                        if not child.killed and not child.pipe.closed and child.end.fileno() >= 0:
                            child.serve()
                await asyncio.sleep(0.002)


def run(scenario: Callable[[Bench], Coroutine[Any, Any, None]], count: int = 2) -> Bench:
    async def main() -> Bench:
        bench = Bench(count)
        try:
            await scenario(bench)
        finally:
            await bench.workers.close()
            for bound in bench.sockets:
                bound.close()
            for child in bench.children:
                child.end.close()
        assert bench.barrier.errors == 0
        return bench

    return uvloop.run(main())


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "Child", FakeChild)


def test_each_worker_has_its_socket_and_its_share() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.start()
        bench.workers.send(INSTALL)
        await bench.until(lambda: all(child.told for child in bench.children))
        for number, child in enumerate(bench.children):
            (install,) = child.told
            assert isinstance(install, seam.Install)
            assert [lane.number for lane in install.lanes] == [number]
            assert child.sockets == [bench.sockets[number].fileno()]
        assert bench.workers.kernel == "fake"
        bench.children[1].end.send(seam.Used(128, 1, 10, 1, 10, 5.0, 5.0))
        await bench.until(lambda: bench.heard)

    run(scenario)


def test_what_a_worker_uses_is_reported_while_it_is_there() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.start()
        bench.children[0].pid = os.getpid()
        report = bench.workers.report()[0]
        assert report.resident_bytes > 1 << 20
        assert report.cpu_seconds > 0
        gone = bench.workers._children.pop(0)
        report = bench.workers.report()[0]
        bench.workers._children[0] = gone
        assert (report.pid, report.resident_bytes, report.cpu_seconds) == (0, 0, 0.0)

    run(scenario)


def test_one_that_dies_is_replaced_at_once_and_told_state_without_keys(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.start()
        for message in (ROUTE, INSTALL):
            bench.workers.send(message)
        bench.children[1].end.send(seam.Wanted(7))
        bench.children[1].end.close()
        await bench.until(lambda: len(bench.children) == 3)
        assert bench.heard == [seam.Wanted(7)]
        newborn = bench.children[2]
        await bench.until(lambda: newborn.told)
        assert newborn.told == [ROUTE]
        assert (newborn.number, newborn.sockets) == (1, [bench.sockets[1].fileno()])
        assert bench.maimed == [[128]]
        assert [worker.restarts for worker in bench.workers.report()] == [0, 1]
        assert bench.workers.counters["worker_restarts"] == 1

    run(scenario)
    assert [r.getMessage() for r in caplog.records] == ["worker 1 (pid 1001) is gone: signal 9; a new one starts"]


def test_one_that_dies_again_and_again_is_given_pauses_and_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "PAUSE_SECONDS", (0.0, 0.05, 0.1))

    async def scenario(bench: Bench) -> None:
        await bench.start()
        bench.workers.send(INSTALL)
        times = []
        for _ in range(4):
            bench.children[-1].end.close()
            died, lives = asyncio.get_running_loop().time(), len(bench.children)
            await bench.until(lambda lives=lives: len(bench.children) > lives)  # type: ignore[misc]
            times.append(asyncio.get_running_loop().time() - died)
        assert times[0] < 0.04
        assert times[1] > 0.04
        assert min(times[2:]) > 0.09
        assert bench.workers.report()[0].restarts == 4

    run(scenario, count=1)
    assert len(caplog.records) == 1


def test_one_that_hangs_is_replaced_but_not_when_we_were_held_up_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(supervision, "HUNG_SECONDS", 0.2)

    async def scenario(bench: Bench) -> None:
        await bench.start()
        await asyncio.sleep(0.1)  # a check is out
        checked = bench.children[0].checked_at
        bench.children[0].serve()
        # Held up for longer than a worker may be: the answer has come meanwhile and is read first.
        bench.workers._check_at -= 1.0
        bench.children[0].checked_at = checked - 1.0
        bench.workers._check()
        assert len(bench.children) == 2
        FakeChild.answers = False
        await bench.until(lambda: len(bench.children) >= 4)
        assert bench.children[0].killed

    run(scenario)


def test_one_that_cannot_take_state_is_replaced_and_resynchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SEAM_BACKLOG", 50)
    routes = [seam.Route(bytes((10, i >> 8, i & 255, 0)), 24, 7) for i in range(5000)]

    async def scenario(bench: Bench) -> None:
        await bench.start()
        for route in routes:
            bench.workers.send(route)
        await bench.until(lambda: len(bench.children) == 2, serve=False)
        newborn = bench.children[1]
        await bench.until(lambda: len(newborn.told) == len(routes))
        assert newborn.told == routes

    run(scenario, count=1)


def test_what_finds_no_room_on_its_way_to_a_worker_is_counted_for_ever() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.start()
        while not bench.children[0].pipe.dropped:
            bench.workers.send(seam.SendRaw(("192.0.2.7", 1), bytes(1000)))
        bench.children[0].end._end.send(b"rubbish")
        bench.children[0].end.close()
        await bench.until(lambda: len(bench.children) == 2)
        assert bench.workers.counters == {"worker_restarts": 1, "worker_pipe_full": 1, "worker_malformed": 1}

    run(scenario, count=1)


def test_one_that_does_not_start_is_an_error() -> None:
    async def scenario(bench: Bench) -> None:
        bench.workers.start()
        bench.children[1].end.close()
        with pytest.raises(HostError, match="worker 1 did not start: signal 9"):
            await bench.workers.ready()
        assert len(bench.children) == 2

    run(scenario)


def test_the_end_lets_workers_read_what_was_said() -> None:
    ends: list[PipeEnd[seam.ToWorker]] = []

    async def scenario(bench: Bench) -> None:
        await bench.start()
        bench.workers.send(seam.SendRaw(("192.0.2.7", 1), b"goodbye"))
        ends.append(bench.children[0].end)
        await bench.workers.close()
        assert ends[0].receive() == [seam.SendRaw(("192.0.2.7", 1), b"goodbye"), seam.End()]
        assert ends[0].closed

    run(scenario, count=1)


def test_who_is_left_to_the_next_agent_is_not_told_to_end() -> None:
    ends: list[PipeEnd[seam.ToWorker]] = []

    async def scenario(bench: Bench) -> None:
        await bench.start()
        ends.append(bench.children[0].end)
        await bench.workers.close(leave=True)
        assert not bench.children[0].killed
        assert ends[0].receive() == []
        assert ends[0].closed

    run(scenario, count=1)


def test_what_an_earlier_agent_said_is_taken_back_when_the_node_knows_its_peers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(supervision, "Adopted", lambda number, heirloom, now: heirloom)
    other = seam.Route(b"\n\0\2\0", 24, 8)

    async def scenario(bench: Bench) -> None:
        order = Order("tunrouter0", "info", "text", build="build")
        child = FakeChild(0, order, [], 0.0)
        child.build = order.build  # type: ignore[attr-defined]  # it stands for what was left, too
        bench.workers.start([child])  # type: ignore[list-item]
        child.serve()
        await bench.workers.ready()
        child.end.send(seam.Inherited((128, 256), ((ROUTE.prefix, 24), (other.prefix, 24)), (7,)))
        bench.workers.send(ROUTE)
        wanted = [seam.Retire(128), seam.Retire(256), seam.Unroute(other.prefix, 24), seam.Hop(7, 0)]
        await bench.until(lambda: child.told == [ROUTE, *wanted])
        bench.workers._settle()
        child.serve()
        assert len(child.told) == 5

    run(scenario, count=1)


def test_the_data_plane_moves_to_one_address_and_back_to_all() -> None:
    async def scenario(bench: Bench) -> None:
        for bound in bench.sockets:
            bound.bind(("", 0))
        await bench.start()
        bench.workers.send(INSTALL)
        bench.workers.send(ROUTE)
        first = list(bench.children)
        port = bench.sockets[0].getsockname()[1]
        bench.sockets[1].close()  # two of one port share it by what `bind_group` does
        bench.workers._groups[0][1] = bench.sockets[0].dup()
        for address in ("127.0.0.1", "127.0.0.2", ""):
            config = Config(name="node-a", port=port, workers=2)
            await dataplane.move(bench.workers, config, Chosen(address), Identity(bytes(range(32))))
            places = {bound.getsockname()[0] for group in bench.workers._groups for bound in group}
            assert places == ({address} if address else {"0.0.0.0", "::"})
            assert bench.workers.everywhere == (not address)
            newborn = bench.children[-2:]
            assert all(child.killed for child in bench.children if child not in newborn)
            for child in newborn:
                child.serve()
                assert ROUTE in child.told
            assert bench.maimed[-1] == [INSTALL.session]
        assert len(bench.children) == len(first) + 6
        for group in bench.workers._groups:
            for bound in group:
                bound.close()

    run(scenario)


def test_a_move_to_where_nothing_can_be_bound_leaves_what_is_bound() -> None:
    async def scenario(bench: Bench) -> None:
        for bound in bench.sockets:
            bound.bind(("127.0.0.1", 0))
        await bench.start()
        config = Config(name="node-a", port=bench.sockets[0].getsockname()[1], workers=2)
        with pytest.raises(HostError, match="cannot bind"):
            await dataplane.move(bench.workers, config, Chosen("203.0.113.99", "eth0"), Identity(bytes(range(32))))
        assert not any(child.killed for child in bench.children)
        assert bench.workers.report()[0].pid == bench.children[0].pid

    run(scenario)


def test_a_worker_that_was_to_start_again_does_not_come_twice_after_a_move() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.start()
        await bench.workers.halt()
        assert all(child.killed for child in bench.children)
        bench.workers._restart(0)
        assert len(bench.children) == 2, "there is no socket for it"
        bench.workers.resume([[socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]])
        bench.workers._restart(0)
        assert len(bench.children) == 4
        for bound in bench.workers._groups[0]:
            bound.close()

    run(scenario)
