"""The host thread: what waits for it is not kept waiting by path MTUs, and what is broken is repaired soon."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from tunrouter.agent.hostside import HostSide
from tunrouter.core import bounds
from tunrouter.daemon import logs
from tunrouter.errors import HostError
from tunrouter.host import Host

Paths = dict[IPv4Network, int | None]


class FakeHost:
    """Sets what it is given once `free`."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.begun = threading.Event()
        self.batches: list[Paths] = []
        self.done: list[str] = []
        self.bug = False

    def set_path_mtus(self, paths: Mapping[IPv4Network, int | None]) -> list[HostError]:
        self.begun.set()
        assert self.free.wait(10)
        self.batches.append(dict(paths))
        self.done.append("mtus")
        if self.bug:
            raise ZeroDivisionError("a bug")
        return [HostError(f"path MTU for {prefix}", "") for prefix, mtu in paths.items() if mtu == 666]

    def attach(self) -> None:
        self.done.append("attach")

    def own(self, blocks: tuple[IPv4Network, ...]) -> list[str]:
        self.begun.set()
        assert self.free.wait(10)
        self.done.append(f"own {len(blocks)}")
        if self.bug:
            raise HostError("no bridge", "make one")
        return []

    def fence(self, addresses: tuple[IPv4Address, ...]) -> list[str]:
        self.done.append(f"fence {len(addresses)}")
        return []

    def expose(self, addresses: Collection[IPv4Address]) -> list[str]:
        self.done.append(f"expose {len(addresses)}")
        if self.bug:
            raise HostError("no bridge", "make one")
        return []


class Wakes:
    """What is readable once somebody changed something."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)

    def change(self) -> None:
        self._there.send(b"!")

    def fileno(self) -> int:
        return self._here.fileno()

    def drain(self) -> bool:
        with suppress(BlockingIOError):
            return bool(self._here.recv(1 << 16))
        return False

    def close(self) -> None:
        self._here.close()
        self._there.close()


class BrokenHost:
    """Somebody else changes it, and each look at its links takes so many seconds."""

    strangers: tuple[str, ...] = ()

    def __init__(self, seconds: float = 0.0) -> None:
        self.monitor, self.links = Wakes(), Wakes()
        self.seconds = seconds
        self.repairs = 0
        self.looks = 0
        """At the links."""
        self.broken: list[str] = []
        self.beyond_repair = False

    def own(self, blocks: tuple[IPv4Network, ...]) -> list[str]:
        return []

    def fence(self, addresses: tuple[IPv4Address, ...]) -> list[str]:
        return []

    def expose(self, addresses: Collection[IPv4Address]) -> list[str]:
        return []

    def apply(self) -> list[str]:
        return []

    def repair(self, *, links: bool) -> list[str]:
        self.repairs += 1
        if links:
            self.looks += 1
            time.sleep(self.seconds)
        if self.beyond_repair:
            raise HostError("nft is gone", "install it again")
        broken, self.broken = self.broken, []
        return broken

    def close(self) -> None:
        self.monitor.close()
        self.links.close()


def prefix(number: int) -> IPv4Network:
    return IPv4Network(f"10.33.{number}.0/24")


def side_of(host: FakeHost | BrokenHost) -> HostSide:
    side = HostSide(asyncio.get_running_loop())
    side.host = cast("Host", host)
    return side


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def test_a_flood_of_path_mtus_is_one_job_and_the_latest_of_each_prefix() -> None:
    host = FakeHost()

    async def scenario() -> None:
        side = side_of(host)
        side.set_path_mtu(prefix(0), 1300)
        await until(host.begun.is_set)
        for mtu in range(1200, 1300):
            for number in range(10):
                side.set_path_mtu(prefix(number), mtu)
        side.set_path_mtu(prefix(3), None)
        attached = asyncio.ensure_future(side.call(host.attach))
        await asyncio.sleep(0)
        assert side._thread._work_queue.qsize() == 1, "nothing but the attach waits"
        host.free.set()
        await attached
        await until(lambda: len(host.batches) == 2)
        side._thread.shutdown()

    asyncio.run(scenario())
    assert host.done == ["mtus", "attach", "mtus"]
    assert host.batches == [{prefix(0): 1300}, {prefix(n): 1299 for n in range(10)} | {prefix(3): None}]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(bounds, "MAX_ROUTES", 5)
    host = FakeHost()

    async def scenario() -> None:
        side = side_of(host)
        side.set_path_mtu(prefix(200), 1300)
        for number in range(100):
            side.set_path_mtu(prefix(number), 1200)
        side.set_path_mtu(prefix(4), 1250)
        host.free.set()
        await until(lambda: len(host.batches) == 2)
        side._thread.shutdown()

    asyncio.run(scenario())
    assert host.batches[1] == {prefix(n): 1200 for n in range(4)} | {prefix(4): 1250}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("bug", [False, True])
def test_a_failure_is_said_once_and_the_next_are_set(bug: bool, caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    host.bug = bug
    host.free.set()

    async def scenario() -> None:
        side = side_of(host)
        for number in range(3):
            side.set_path_mtu(prefix(number), 666)
            await until(lambda: not side._setting_mtus)
        side._thread.shutdown()

    asyncio.run(scenario())
    assert len(host.batches) == 3
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("a path MTU could not be set: ")


@pytest.mark.parametrize("what", ["monitor", "links"])
def test_a_change_by_somebody_else_is_looked_at_at_once(what: str) -> None:
    host = BrokenHost()

    async def scenario() -> None:
        side = side_of(host)
        await side.apply()
        for count in (1, 2, 3):
            getattr(host, what).change()
            await until(lambda count=count: host.repairs == count, 1.0)  # type: ignore[misc]
        await side.close()

    asyncio.run(scenario())


def test_repairs_are_counted_one_by_one() -> None:
    host = BrokenHost()

    async def scenario() -> None:
        side = side_of(host)
        await side.apply()
        assert side.repairs == 0
        for broken, sum_ in ((["link weave up"], 1), ([], 1), (["table inet tunrouter", "table bridge tunrouter"], 3)):
            looks, host.broken = host.repairs, broken
            host.monitor.change()
            await until(lambda looks=looks, sum_=sum_: host.repairs > looks and side.repairs == sum_)  # type: ignore[misc]
        await side.close()

    asyncio.run(scenario())


def test_a_host_that_is_not_as_it_should_be_says_why_until_it_is_again() -> None:
    host = BrokenHost()

    async def scenario() -> None:
        side = side_of(host)
        assert side.trouble == "this host is not set up yet"
        await side.apply()
        assert side.trouble == ""
        host.beyond_repair = True
        host.monitor.change()
        await until(lambda: side.trouble != "")
        assert side.trouble == "the host's set-up could not be repaired: nft is gone; install it again"
        host.beyond_repair = False
        host.monitor.change()
        await until(lambda: side.trouble == "")
        await side.close()

    asyncio.run(scenario())


def test_links_and_routes_that_change_without_end_do_not_keep_the_thread_from_others() -> None:
    host = BrokenHost(0.05)

    async def scenario() -> None:
        side = side_of(host)
        await side.apply()
        until_then = time.monotonic() + 1.5
        while time.monotonic() < until_then:
            host.links.change()
            host.monitor.change()
            await asyncio.sleep(0.01)
        last = host.looks
        await until(lambda: host.looks > last)
        await side.close()

    asyncio.run(scenario())
    assert 2 <= host.looks <= 5
    assert host.repairs > 10, "rule sets do not wait for that"


def test_strangers_are_said_when_they_come_and_when_they_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs, "SILENT_SECONDS", 0.0)
    caplog.set_level("INFO")
    host = BrokenHost()
    cni0, port = "cni0 has 10.40.0.1/16, in our range: ip link del cni0", "tap7 is a port of weave, but not ours"

    async def scenario() -> None:
        side = side_of(host)
        await side.apply()
        for strangers in ((), (cni0,), (cni0,), (cni0, port), (port,), ()):
            host.strangers = strangers
            count = host.looks
            host.links.change()
            await until(lambda count=count: host.looks > count and not side._repairing)  # type: ignore[misc]
        await side.close()

    asyncio.run(scenario())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", cni0),
        ("WARNING", port),
        ("INFO", "not any more: cni0 has 10.40.0.1/16"),
        ("INFO", "not any more: tap7 is a port of weave"),
    ]


@pytest.mark.parametrize("bug", [False, True])
def test_blocks_and_fences_are_done_in_order_before_what_is_asked_later(
    bug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    host, looks = FakeHost(), [0]
    host.bug = bug

    async def scenario() -> None:
        side = side_of(host)
        side.changed = lambda: looks.__setitem__(0, looks[0] + 1)
        side.own((prefix(1),))
        side.own((prefix(1), prefix(2)))
        side.fence((IPv4Address("10.33.1.2"),))
        side.expose({"auto": IPv4Address("10.33.1.3")}.values())
        attached = asyncio.ensure_future(side.call(host.attach))
        await until(host.begun.is_set)
        host.free.set()
        await attached
        await until(lambda: looks == [4])
        await side.call(lambda: None)
        if bug:
            with pytest.raises(HostError, match="no bridge"):
                await side.expose_now(())
        else:
            await side.expose_now(())
        side._thread.shutdown()

    asyncio.run(scenario())
    assert host.done == ["own 1", "own 2", "fence 1", "expose 1", "attach", "expose 0"]
    lines = [record.getMessage() for record in caplog.records]
    said = [f"the host could not be given its {what}: no bridge; make one" for what in ("blocks", "addresses")]
    assert lines == (said if bug else []), "said once"
