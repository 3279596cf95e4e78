"""Carrying: what fails in one effect or message is given up alone, and the node's last step is its last."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import pytest
import uvloop

from tunrouter.agent import control as carrying
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.control import Control
from tunrouter.core import bounds, seam
from tunrouter.core.node import Node
from tunrouter.core.outbox import Effect, Fenced, KernelMtu, Own, Remember
from tunrouter.daemon.logs import OncePerKey
from tunrouter.errors import ProtocolError

PREFIX = IPv4Network("10.33.0.0/24")
REMEMBER = Remember((("192.0.2.7", 6783),))
FAREWELL = seam.Retire(77)


class FakeNode:
    """Answers with `effects`; hears no message equal to `poison`."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.heard: list[seam.ToControl] = []
        self.calls: list[str] = []
        self.poison: seam.ToControl | None = None
        self.deadline = float("inf")
        self.counters = {"of the node": 3}
        self.broken = False

    def on_messages(self, messages: Iterable[seam.ToControl], now: float) -> list[Effect]:
        self.calls.append("messages")
        for message in messages:
            if message == self.poison:
                raise ZeroDivisionError("a message")
            self.heard.append(message)
        return self.effects

    def on_timer(self, now: float) -> list[Effect]:
        self.calls.append("timer")
        if self.broken:
            raise ZeroDivisionError("a timer")
        self.deadline = now + 0.02
        return self.effects

    def stop(self, now: float) -> list[Effect]:
        self.calls.append("stop")
        self.deadline = now
        return [FAREWELL]


class FakePlane:
    """A data plane that notes what it is told."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.refused: object = None

    def send(self, message: object) -> None:
        if message == self.refused:
            raise ProtocolError("Known of 100000 bytes does not fit the seam")
        self.sent.append(message)


class Carried:
    def __init__(self) -> None:
        self.node, self.plane = FakeNode(), FakePlane()
        self.remembered: list[object] = []
        self.mtus: list[tuple[IPv4Network, int | None]] = []
        self.owned: list[tuple[IPv4Network, ...]] = []
        self.fenced: list[tuple[IPv4Address, ...]] = []
        log = logging.getLogger("tunrouter")
        self.barrier = Barrier(log)
        self.control = Control(
            asyncio.get_running_loop(),
            cast("Node", self.node),
            self.plane.send,
            OncePerKey(log),
            self.barrier,
            remember=self.remembered.append,
            set_path_mtu=lambda prefix, mtu: self.mtus.append((prefix, mtu)),
            own=self.owned.append,
            fence=self.fenced.append,
        )


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def run(scenario: Callable[[Carried], Coroutine[Any, Any, None]]) -> Carried:
    async def main() -> Carried:
        carried = Carried()
        try:
            await scenario(carried)
        finally:
            carried.control.stop()
        return carried

    return uvloop.run(main())


def test_blocks_and_fences_are_the_hosts() -> None:
    async def scenario(carried: Carried) -> None:
        carried.node.effects = [Own((PREFIX,)), Fenced((PREFIX[2],)), Own(())]
        carried.control.hear([seam.Wanted(1)])

    carried = run(scenario)
    assert carried.owned == [(PREFIX,), ()]
    assert carried.fenced == [(PREFIX[2],)]
    assert carried.plane.sent == [FAREWELL]


def test_what_fails_in_one_effect_leaves_the_others_and_the_timer(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(carried: Carried) -> None:
        carried.plane.refused = seam.Retire(1)
        carried.node.effects = [seam.Retire(1), KernelMtu(PREFIX, 1200), seam.Retire(2), REMEMBER, seam.Retire(1)]
        carried.node.deadline = 0.0
        carried.control.hear([seam.Wanted(1)])
        await until(lambda: "messages" in carried.node.calls)
        # The timer, due at once, may have asked for the same again.
        assert set(carried.plane.sent) == {seam.Retire(2)}
        assert set(carried.mtus) == {(PREFIX, 1200)}
        assert set(carried.remembered) == {REMEMBER.endpoints}
        await until(lambda: carried.node.calls.count("timer") >= 2)

    carried = run(scenario)
    assert carried.barrier.errors >= 4
    assert carried.control.counters == {"of the node": 3, "control_errors": carried.barrier.errors}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1, "once per kind"
    assert "ProtocolError at test_control.py:" in lines[0]


def test_a_message_that_the_node_cannot_bear_costs_that_message_alone(caplog: pytest.LogCaptureFixture) -> None:
    messages = [seam.Wanted(number) for number in range(bounds.WAKEUP_BATCH)]

    async def scenario(carried: Carried) -> None:
        carried.node.poison = messages[5]
        carried.control.hear([*messages[:8], messages[5], *messages[8:]])
        await until(lambda: messages[-1] in carried.node.heard)

    carried = run(scenario)
    assert carried.node.heard == [message for message in messages if message != messages[5]]
    assert carried.barrier.errors == 2
    assert len(caplog.records) == 1


def test_a_node_that_can_hear_nothing_does_not_hold_the_loop() -> None:
    async def scenario(carried: Carried) -> None:
        carried.node.poison = seam.Wanted(1)
        carried.control.hear([seam.Wanted(1)] * 8)
        await until(lambda: carried.barrier.errors > 0)
        assert carried.barrier.errors == 8

    run(scenario)


def test_a_timer_that_fails_is_armed_again_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "FAILED_SECONDS", 0.1)

    async def scenario(carried: Carried) -> None:
        carried.node.broken, carried.node.deadline = True, 0.0
        began = time.monotonic()
        carried.control.carry_out([])
        await until(lambda: carried.barrier.errors >= 3)
        assert time.monotonic() - began > 0.15
        carried.node.broken = False
        await until(lambda: carried.node.deadline > began)

    run(scenario)


def test_messages_do_not_put_off_what_is_due() -> None:
    async def scenario(carried: Carried) -> None:
        carried.node.deadline = 0.0
        async with asyncio.timeout(5):
            while "timer" not in carried.node.calls:
                carried.control.carry_out([])
                await asyncio.sleep(0)

    run(scenario)


class LateLoop:
    """Its clock moves on while a timer is made: uvloop then calls at once, and what it gives has no `when`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time, self._loop = loop.time, loop

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.Handle:
        return self._loop.call_soon(callback)


def test_a_timer_that_is_due_when_it_is_made_can_be_made_again() -> None:
    async def scenario(carried: Carried) -> None:
        carried.control._loop = cast("Any", LateLoop(asyncio.get_running_loop()))
        carried.node.deadline = 0.0
        for _ in range(3):
            carried.control.carry_out([])
        await until(lambda: "timer" in carried.node.calls)

    assert run(scenario).barrier.errors == 0


def test_the_last_step_is_the_last_and_comes_once() -> None:
    async def scenario(carried: Carried) -> None:
        carried.control.carry_out([])
        carried.control.stop()
        carried.control.hear([seam.Wanted(1)])
        carried.control.lanes_lost([1])
        carried.control.stop()

    carried = run(scenario)
    assert carried.node.calls == ["stop"]
    assert carried.plane.sent == [FAREWELL]
    assert carried.barrier.errors == 0


def test_cancellation_passes_the_barrier() -> None:
    barrier = Barrier(logging.getLogger("tunrouter"))
    with pytest.raises(asyncio.CancelledError), barrier:
        raise asyncio.CancelledError
    assert barrier.errors == 0


def test_kinds_of_errors_are_said_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    barrier = Barrier(logging.getLogger("tunrouter"))
    for number in range(2 * bounds.MAX_ERROR_KINDS):
        with barrier:
            raise type(f"Kind{number}", (Exception,), {})
    assert barrier.errors == 2 * bounds.MAX_ERROR_KINDS
    assert len(caplog.records) == bounds.MAX_ERROR_KINDS
