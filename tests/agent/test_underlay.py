"""The underlay as the agent holds it: whose wish counts, what is waited for, and who is told of what changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any, cast

import pytest

from tunrouter.agent import underlay
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.underlay import Rank, Underlay
from tunrouter.config import Config
from tunrouter.edge.netlink import Address, Link
from tunrouter.errors import HostError
from tunrouter.host.choice import EVERY, Chosen, Here, Wish, choose

ETH0, ETH1 = Chosen("192.0.2.7", "eth0"), Chosen("198.51.100.7", "eth1")


class FakeHost:
    """Has the addresses that the test gives it; its thread is the test's."""

    def __init__(self) -> None:
        self.addresses = {"eth0": "192.0.2.7"}
        self.mtus: list[tuple[list[str], Chosen]] = []

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        return function(*arguments)

    def choice(self, wish: Wish, own: tuple[str, ...], before: Chosen) -> tuple[Here, Chosen | HostError]:
        links = {
            name: Link(index=index, name=name, kind="", mac="", mtu=1500, queue=0, up=True, master=0, alias="")
            for index, name in enumerate(self.addresses)
        }
        there = tuple(Address(n, links[n].index, ip_address(text)) for n, text in self.addresses.items() if text)
        here = Here(links, there, frozenset(own))
        try:
            return here, choose(wish, here, lambda to: ("", ""), before)
        except HostError as error:
            return here, error

    def underlay_mtu(self, peers: list[str], chosen: Chosen) -> int:
        self.mtus.append((peers, chosen))
        return 9000 if chosen.device == "eth1" else 1500


class Bench:
    def __init__(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = FakeHost()
        self.barrier = Barrier(logging.getLogger("tunrouter"))
        monkeypatch.setattr(underlay, "_choice", self.host.choice)
        monkeypatch.setattr(underlay, "underlay_mtu", self.host.underlay_mtu)
        monkeypatch.setattr(underlay, "LOOK_SECONDS", 0.02)
        monkeypatch.setattr(underlay, "SETTLE_SECONDS", 0.0)
        monkeypatch.setattr(underlay, "REST_SECONDS", 0.0)
        self.underlay = Underlay(config, cast("Any", self.host), self.barrier)
        self.stopped = asyncio.Event()
        self.moves: list[Chosen] = []
        self.stirs: list[object] = []
        self.refusal = ""

    async def move(self, chosen: Chosen) -> None:
        self.moves.append(chosen)
        if self.refusal:
            raise HostError(self.refusal)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.002)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(scenario: Callable[[Bench], Coroutine[Any, Any, None]], **keys: object) -> None:
        async def main() -> None:
            bench = Bench(Config(name="node-a", **cast("Any", keys)), monkeypatch)
            kept: list[asyncio.Task[None]] = []
            try:
                assert await bench.underlay.settle(["192.0.2.9"], bench.stopped) or bench.stopped.is_set()
                kept.append(asyncio.ensure_future(bench.underlay.keep(bench.move, bench.stirs.append)))
                await scenario(bench)
            finally:
                for task in kept:
                    task.cancel()
                    await asyncio.wait([task])
            assert bench.barrier.errors == 0

        asyncio.run(main())

    return run


Run = Callable[..., None]


def test_the_strongest_wish_counts(run: Run) -> None:
    annotation, internal = Wish(ifaces=("eth1",)), Wish(address="192.0.2.7", lenient=True)

    async def scenario(bench: Bench) -> None:
        bench.host.addresses["eth1"] = "198.51.100.7"
        assert bench.underlay.chosen == EVERY
        bench.underlay.prefer(Rank.INTERNAL_IP, internal)
        await bench.until(lambda: bench.moves == [ETH0])
        bench.underlay.prefer(Rank.ANNOTATION, annotation)
        await bench.until(lambda: bench.moves == [ETH0, ETH1])
        assert bench.underlay.mtu == 9000
        await bench.until(lambda: bench.stirs and bench.stirs[-1] == (("198.51.100.7", 6783),))
        bench.underlay.prefer(Rank.INTERNAL_IP, Wish())
        bench.underlay.prefer(Rank.ANNOTATION, None)
        await bench.until(lambda: bench.moves == [ETH0, ETH1, EVERY])
        assert bench.underlay.endpoints == ()

    run(scenario)


def test_nothing_is_stronger_than_the_configuration(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.host.addresses["eth1"] = "198.51.100.7"
        bench.underlay.prefer(Rank.ANNOTATION, Wish(ifaces=("eth1",)))
        bench.underlay.prefer(Rank.INTERNAL_IP, Wish(address="198.51.100.7"))
        assert bench.underlay.wish.ifaces == ("eth0",)
        assert bench.underlay.endpoints == (("192.0.2.7", 6783),)

    run(scenario, iface=("eth0",))


def test_an_internal_ip_that_is_nowhere_leaves_all_addresses(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.underlay.prefer(Rank.INTERNAL_IP, Wish(address="203.0.113.1", lenient=True))
        bench.host.addresses["eth0"] = "192.0.2.8"
        bench.underlay._news.set()
        await bench.until(lambda: bench.stirs)
        assert bench.moves == []
        assert not bench.underlay.trouble

    run(scenario)


def test_a_changed_address_moves_the_sockets_and_a_lost_one_does_not(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.host.addresses["eth0"] = ""
        bench.underlay._news.set()
        await bench.until(lambda: "eth0 has no address" in bench.underlay.trouble and bench.stirs)
        assert bench.underlay.chosen == ETH0
        bench.host.addresses["eth0"] = "192.0.2.7"
        bench.stirs.clear()
        await bench.until(lambda: bench.stirs)
        assert bench.moves == []
        bench.host.addresses["eth0"] = "192.0.2.8"
        bench.underlay._news.set()
        await bench.until(lambda: bench.moves == [Chosen("192.0.2.8", "eth0")])
        await bench.until(lambda: bench.stirs[-1] == (("192.0.2.8", 6783),))

    run(scenario, iface=("eth0",))


def test_sockets_that_cannot_be_moved_are_tried_again(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.refusal = "UDP port 6783 is in use"
        bench.host.addresses["eth0"] = "192.0.2.8"
        bench.underlay._news.set()
        await bench.until(lambda: len(bench.moves) > 2)
        assert "cannot be opened at 192.0.2.8 (eth0): UDP port 6783 is in use" in bench.underlay.trouble
        bench.refusal = ""
        await bench.until(lambda: not bench.underlay.trouble)
        assert bench.stirs == [(("192.0.2.8", 6783),)]

    run(scenario, iface=("eth0",))


def test_a_start_waits_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bench = Bench(Config(name="node-a", iface=("eth1",)), monkeypatch)
        said: list[str] = []
        bench.underlay.waits = said.append
        waiting = asyncio.ensure_future(bench.underlay.settle([], bench.stopped))
        await bench.until(lambda: said)
        assert "no network device eth1" in said[0]
        assert "no network device eth1" in bench.underlay.trouble
        bench.stopped.set()
        assert await waiting is False
        assert bench.host.mtus == []

    asyncio.run(main())
