"""What is to survive a restart, on its way to the disk: bounded, paced, and written at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tunrouter.agent import memory
from tunrouter.agent.memory import Memory
from tunrouter.core.seam import Endpoint
from tunrouter.errors import HostError

Endpoints = tuple[Endpoint, ...]


class Disk:
    """Takes what it is given once `free`; fails while `full`."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.free = threading.Event()
        self.free.set()
        self.full = False
        self.tries: list[Endpoints] = []
        self.written: list[Endpoints] = []
        self.complaints: list[str] = []

    def write(self, endpoints: Endpoints) -> None:
        self.tries.append(endpoints)
        assert self.free.wait(10)
        if self.full:
            raise HostError("no room on disk", "free some")
        self.written.append(endpoints)

    def memory(self) -> Memory[Endpoints]:
        return Memory("peers", asyncio.get_running_loop(), self.executor, self.write, self.complaints.append)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def peers(number: int) -> Endpoints:
    return ((f"192.0.2.{number % 256}", number),)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_flood_of_changes_is_one_write_and_one_that_waits(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PAUSE_SECONDS", 0.01)

    async def scenario() -> None:
        held = disk.memory()
        disk.free.clear()
        for number in range(1000):
            held.remember(peers(number))
            await asyncio.sleep(0)
        await until(lambda: disk.tries == [peers(0)])
        assert disk.executor._work_queue.qsize() == 0
        disk.free.set()
        await until(lambda: disk.written == [peers(0), peers(999)])
        await held.close()
        assert disk.tries == [peers(0), peers(999)]

    asyncio.run(scenario())


def test_writes_keep_their_distance_and_the_last_value_is_written_at_the_end(disk: Disk) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        held, began = disk.memory(), loop.time()
        for number in range(3):
            held.remember(peers(number))
            await until(lambda: disk.written != [])
        assert loop.time() - began < memory.PAUSE_SECONDS
        assert disk.written == [peers(0)]
        assert held._timer is not None
        assert held._due >= began + memory.PAUSE_SECONDS
        await held.close()
        assert disk.written == [peers(0), peers(2)]

    asyncio.run(scenario())


def test_the_end_waits_for_the_write_under_way(disk: Disk) -> None:
    async def scenario() -> None:
        held = disk.memory()
        disk.free.clear()
        held.remember(peers(1))
        await until(lambda: disk.tries != [])
        held.remember(peers(2))
        closing = asyncio.ensure_future(held.close())
        disk.free.set()
        await closing
        assert disk.written == [peers(1), peers(2)]

    asyncio.run(scenario())


def test_a_failed_write_is_tried_again_after_a_while(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RETRY_SECONDS", 0.05)
    disk.full = True

    async def scenario() -> None:
        held = disk.memory()
        held.remember(peers(1))
        await until(lambda: len(disk.complaints) >= 2)
        assert disk.complaints[0] == "peers are not remembered on disk: no room on disk; free some"
        disk.full = False
        await until(lambda: disk.written == [peers(1)])
        await held.close()
        assert disk.written == [peers(1)], "it was written, so nothing waits"

    asyncio.run(scenario())


def test_a_failed_write_is_tried_again_with_the_next_change(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PAUSE_SECONDS", 0.05)
    disk.full = True

    async def scenario() -> None:
        held = disk.memory()
        held.remember(peers(1))
        await until(lambda: len(disk.complaints) == 1)
        disk.full = False
        held.remember(peers(2))
        await until(lambda: disk.written == [peers(2)])
        await held.close()

    asyncio.run(scenario())


def test_a_disk_that_stays_full_does_not_hold_up_the_end(disk: Disk) -> None:
    disk.full = True

    async def scenario() -> None:
        held = disk.memory()
        held.remember(peers(1))
        await until(lambda: len(disk.complaints) == 1)
        await held.close()
        assert len(disk.tries) == 2
        assert disk.written == []

    asyncio.run(scenario())
