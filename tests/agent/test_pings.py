"""The agent's part in `ping`: who is meant, how long somebody waits, and how many may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.sim.internet import Host, Internet
from tests.sim.test_two_nodes import pair
from tunrouter.agent.pings import Pings
from tunrouter.core import bounds, status
from tunrouter.core.node import Node
from tunrouter.edge import api
from tunrouter.errors import AgentError


class Ours:
    """Node a's agent beside b; whenever it pings, the virtual clock goes on for as long as an answer takes."""

    def __init__(self) -> None:
        self.internet = Internet()
        self.a, self.b = pair(self.internet)
        self.pings = Pings(asyncio.get_running_loop(), self)
        self.told = 0

    @property
    def node(self) -> Node:
        return self.a.node

    def ping(self, node: int, ticket: int) -> None:
        self.told += 1
        self.a.carry_out(self.a.node.ping(node, ticket, self.internet.now))
        self.internet.run(0.1)
        while self.a.echoes:
            self.pings.echoed(self.a.echoes.pop(0))

    async def asked(self, peer: str, seconds: float = 5.0) -> api.Pinged:
        return await self.pings.ping(api.PingCall(peer, seconds))


def running(scenario: Callable[[Ours], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await scenario(Ours())

    asyncio.run(run())


def names(host: Host) -> list[str]:
    node = host.identity.node_id
    return [host.name, status.peer_name(node), f"{node:016x}", "192.0.2.2", "192.0.2.2:6783", "10.32.2.1", "10.32.2.77"]


def test_a_node_is_found_by_every_name_and_by_the_addresses_of_its_pods() -> None:
    async def run(ours: Ours) -> None:
        for name in names(ours.b):
            pinged = await ours.asked(name)
            assert (pinged.peer, pinged.nickname) == (status.peer_name(ours.b.identity.node_id), "b")
            assert pinged.rtt == pytest.approx(2 * ours.internet.delay)
            assert (pinged.path, pinged.via, pinged.mtu, pinged.reason) == ("direct", (), 1376, "")
            assert (pinged.address, pinged.encrypted) == ("192.0.2.2:6783", True)

    running(run)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nobody", "no peer is called 'nobody'; name one of: b"),
        ("192.0.2.9", "no peer is called '192.0.2.9'; name one of: b"),
        ("a", "a is this node; no tunnel leads there; name one of: b"),
        ("10.32.1.7", "10.32.1.7 is an address of this node; no tunnel leads there; name one of: b"),
        ("10.32.9.7", "10.32.9.7 lies in a block that nobody has; see: tunrouter status routes"),
    ],
)
def test_whom_nobody_can_ask_is_said_in_one_line(name: str, what: str) -> None:
    async def run(ours: Ours) -> None:
        with pytest.raises(AgentError) as caught:
            await ours.asked(name)
        assert str(caught.value) == what
        assert ours.told == 0

    running(run)


def test_who_is_dead_does_not_answer_in_time_and_why() -> None:
    async def run(ours: Ours) -> None:
        ours.b.kill()
        lost = await ours.asked("b", 0.05)
        assert (lost.rtt, lost.path, lost.reason) == (None, "direct", "no answer in time")
        ours.internet.run(bounds.DEAD_SECONDS + 2)
        gone = await ours.asked("b", 0.05)
        assert (gone.rtt, gone.path, gone.mtu, gone.reason) == (None, "", 0, "not connected: no answer")
        assert gone.address == "192.0.2.2:6783"
        assert ours.pings._waiting == {}

    running(run)


def test_a_session_is_opened_for_it() -> None:
    async def run(ours: Ours) -> None:
        ours.a.carry_out(ours.a.node.forget("b", ours.internet.now))
        ours.internet.run(bounds.IDLE_CLOSE_SECONDS + 60)
        assert not ours.a.established(ours.b)
        assert (await ours.asked("b")).rtt == pytest.approx(2 * ours.internet.delay)

    running(run)


def test_who_does_not_answer_is_sought_once_a_ping() -> None:
    async def run(ours: Ours) -> None:
        ours.b.kill()
        ours.internet.run(bounds.DEAD_SECONDS + 2)
        assert (await ours.asked("b", 0.3)).reason.startswith("not connected")
        assert ours.told == 1

    running(run)


def test_too_many_are_refused_whatever_their_seconds() -> None:
    async def run(ours: Ours) -> None:
        with pytest.raises(AgentError, match="too many pings at once; leave a pause"):
            await asyncio.gather(*(ours.asked("b", float("inf")) for _ in range(6 * bounds.ECHOES_BURST)))
        assert bounds.ECHOES_BURST <= ours.told < 6 * bounds.ECHOES_BURST
        await asyncio.sleep(3 / bounds.ECHOES_PER_SECOND)
        assert (await ours.asked("b", -1.0)).nickname == "b"

    running(run)
