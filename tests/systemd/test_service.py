"""The agent as a service, on a real loop and a real socket: ready, reloading, stopping, and the watchdog's food."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.systemd.manager import Manager
from tunrouter.agent import service as services
from tunrouter.agent.service import Service
from tunrouter.edge.notify import Notifier

INTERVAL = 0.1
"""Of the watchdog, in seconds."""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path) as manager:
        yield manager


def run(
    manager: Manager, scenario: Callable[[Service], Coroutine[Any, Any, None]], *, watchdog: float = INTERVAL
) -> None:
    async def main() -> None:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(watchdog * 1e6))}, 1)
        try:
            await scenario(Service(asyncio.get_running_loop(), notifier))
        finally:
            notifier.close()

    uvloop.run(main())


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def fed(manager: Manager) -> int:
    return manager.waiting().count("WATCHDOG=1")


def test_a_service_says_what_it_does_from_its_start_to_its_end(manager: Manager) -> None:
    async def scenario(service: Service) -> None:
        service.starting("setting up")
        service.ready(lambda: "pods of 10.32.1.0/24")
        service.stopping()
        await asyncio.sleep(3 * INTERVAL)

    run(manager, scenario)
    said = manager.waiting()
    assert said[:4] == ["STATUS=setting up", "READY=1", "WATCHDOG=1", "STATUS=pods of 10.32.1.0/24"]
    assert said[4].startswith("STOPPING=1\nSTATUS=stopping")
    assert said[5:] == [], "who stops is not watched any more"


def test_the_watchdog_is_fed_twice_an_interval(manager: Manager) -> None:
    async def scenario(service: Service) -> None:
        assert service._pause == INTERVAL / 2
        begun = time.monotonic()
        service.ready(str)
        await until(lambda: manager.said().count("WATCHDOG=1") >= 10)
        assert time.monotonic() - begun >= 8 * INTERVAL / 2, "and not more often"
        service.stopping()

    run(manager, scenario)


def test_a_loop_that_is_stuck_starves_the_watchdog(manager: Manager) -> None:
    """Whatever its threads do."""

    async def scenario(service: Service) -> None:
        service.ready(str)
        await until(lambda: fed(manager) > 0)
        ticking = threading.Event()
        thread = threading.Timer(INTERVAL, ticking.set)
        thread.start()
        time.sleep(5 * INTERVAL)  # the loop is held up: this is what is tested
        assert ticking.is_set()
        assert fed(manager) == 0
        thread.join()
        await until(lambda: fed(manager) > 0)
        service.stopping()

    run(manager, scenario)


def test_without_a_watchdog_the_status_line_is_kept_all_the_same(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "LOOK_SECONDS", 0.01)

    async def scenario(service: Service) -> None:
        condition = "waits"
        service.ready(lambda: condition)
        await until(lambda: "STATUS=waits" in manager.said())
        condition = "10.32.1.0/24"
        await until(lambda: "STATUS=10.32.1.0/24" in manager.said())
        await asyncio.sleep(0.05)
        service.stopping()

    run(manager, scenario, watchdog=0)
    assert manager.said()[:-1] == ["READY=1", "STATUS=waits", "STATUS=10.32.1.0/24"], "said once, when it changes"


def test_a_reload_begins_at_a_time_and_ends_ready(manager: Manager) -> None:
    async def scenario(service: Service) -> None:
        service.ready(lambda: "well")
        manager.waiting()
        before = time.monotonic_ns() // 1000
        service.reloading()
        reloading, stamp, status = manager.hear()
        assert (reloading, status) == ("RELOADING=1", "STATUS=reading the configuration")
        found = re.fullmatch(r"MONOTONIC_USEC=(\d+)", stamp)
        assert found is not None
        assert before <= int(found[1]) <= time.monotonic_ns() // 1000
        service.reloaded()
        assert manager.waiting() == ["READY=1", "STATUS=well"]
        service.reloading()
        service.reloaded("port: expected\na number")
        assert manager.waiting()[1:] == [
            "READY=1",
            "STATUS=well; the last reload was refused: port: expected\\na number",
        ]
        service.reloading()
        service.reloaded()
        assert manager.waiting()[-1] == "STATUS=well"
        service.stopping()

    run(manager, scenario)


def test_a_change_of_state_that_was_not_taken_is_said_again(manager: Manager) -> None:
    async def scenario(service: Service) -> None:
        noise = Notifier({"NOTIFY_SOCKET": manager.address}, 1)
        while noise.say("X=1"):
            pass
        service.ready(str)
        assert "READY=1" not in manager.waiting()
        await until(lambda: "READY=1" in manager.waiting())
        service.stopping()
        noise.close()

    run(manager, scenario)


def test_a_status_is_one_short_line(manager: Manager) -> None:
    async def scenario(service: Service) -> None:
        service.starting("a\nREADY=1\n" + "x" * 10_000)

    run(manager, scenario)
    (line,) = manager.waiting()
    assert line.startswith("STATUS=a\\nREADY=1\\nxxx")
    assert len(line) == len("STATUS=") + services.MAX_STATUS
