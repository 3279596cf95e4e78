"""Whom the operator named: what is remembered of it, what is refused, and names whose look-up takes its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nacl.utils import random

from tunrouter.agent import resolve
from tunrouter.agent.control import Control
from tunrouter.agent.targets import SOUGHT, Targets
from tunrouter.core import bounds, keys
from tunrouter.core.local import Local
from tunrouter.core.node import Node
from tunrouter.core.routes import Announced
from tunrouter.daemon.logs import OncePerKey
from tunrouter.errors import AgentError, ConfigError

RANGE = IPv4Network("10.32.0.0/12")
ONE, TWO, THREE = "192.0.2.1", "192.0.2.2:7000", "peer.example"


class Lab:
    """A real node that nobody hears."""

    def __init__(self) -> None:
        local = Local(
            identity=keys.Identity(bytes(32)),
            incarnation=1,
            ring=keys.KeyRing(()),
            network="weave",
            name="a",
            blocks=(Announced(IPv4Network("10.32.1.0/24")),),
            block_length=24,
            pod_mtu=1376,
            random=random,
        )
        self.node = Node(local, RANGE)
        self.control = SimpleNamespace(node=self.node, stopped=False, carry_out=lambda effects: None)
        self.remembered: list[tuple[str, ...]] = []
        once = OncePerKey(logging.getLogger("tunrouter"))
        self.targets = Targets(cast("Control", self.control), 6783, once, self.remembered.append)

    @property
    def reasons(self) -> dict[str, str]:
        return {target.name: target.reason for target in self.node.targets}

    def next_life(self, *configured: str) -> Lab:
        lab = Lab()
        lab.targets.start(configured, self.remembered[-1] if self.remembered else ())
        return lab


def run(scenario: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scenario(Lab())

    asyncio.run(main())


def connect(lab: Lab, *peers: str, replace: bool = False) -> Coroutine[Any, Any, None]:
    return lab.targets.connect(peers, replace=replace)


def test_what_is_named_by_connect_is_remembered_in_order() -> None:
    async def scenario(lab: Lab) -> None:
        lab.targets.start((ONE,), ())
        assert lab.remembered == []
        await connect(lab, TWO)
        await connect(lab, "192.0.2.9", "192.0.2.8")
        assert lab.remembered[-1] == (TWO, "192.0.2.9", "192.0.2.8")
        assert lab.next_life().node.targets.names == lab.remembered[-1]
        assert lab.next_life(ONE, TWO).node.targets.names == (ONE, TWO, "192.0.2.9", "192.0.2.8")

    run(scenario)


def test_what_is_forgotten_stays_so_unless_the_configuration_says_otherwise() -> None:
    async def scenario(lab: Lab) -> None:
        lab.targets.start((ONE,), ())
        await connect(lab, TWO)
        lab.targets.forget((ONE, TWO))
        assert lab.node.targets.names == ()
        assert lab.remembered[-1] == ()
        assert lab.next_life().node.targets.names == ()
        assert lab.next_life(ONE).node.targets.names == (ONE,)

    run(scenario)


def test_replace_keeps_only_what_it_names() -> None:
    async def scenario(lab: Lab) -> None:
        lab.targets.start((ONE,), ("192.0.2.8", TWO))
        await connect(lab, TWO, "192.0.2.9", replace=True)
        assert set(lab.node.targets.names) == {TWO, "192.0.2.9"}
        assert set(lab.remembered[-1]) == {TWO, "192.0.2.9"}
        assert set(lab.next_life(ONE).node.targets.names) == {ONE, TWO, "192.0.2.9"}

    run(scenario)


def test_a_new_configuration_takes_and_gives_only_what_is_its_own() -> None:
    async def scenario(lab: Lab) -> None:
        lab.targets.start((ONE, TWO), ("192.0.2.8",))
        await connect(lab, TWO)
        lab.targets.configure((THREE, "192.0.2.9"))
        assert set(lab.node.targets.names) == {TWO, "192.0.2.8", THREE, "192.0.2.9"}
        assert lab.remembered[-1] == ("192.0.2.8", TWO), "what `connect` named stays and is remembered as before"
        lab.targets.configure(())
        assert set(lab.node.targets.names) == {TWO, "192.0.2.8"}
        lab.targets.forget((TWO,))
        lab.targets.configure((TWO,))
        assert set(lab.node.targets.names) == {TWO, "192.0.2.8"}, "as at a start"

    run(scenario)


def test_a_name_that_leads_somewhere_still_does_after_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(name: str, port: int) -> tuple[tuple[str, int], str]:
        return ("192.0.2.77", port), ""

    monkeypatch.setattr(resolve, "resolve", found)

    async def scenario(lab: Lab) -> None:
        lab.targets.start((THREE,), ())
        await lab.targets.look_up()
        lab.targets.configure((THREE, ONE))
        (target,) = [target for target in lab.node.targets if target.name == THREE]
        assert target.endpoint == ("192.0.2.77", 6783)

    run(scenario)


def test_what_an_earlier_life_remembered_is_remembered_on() -> None:
    async def scenario(lab: Lab) -> None:
        lab.targets.start((), (ONE, TWO))
        await connect(lab, "192.0.2.9")
        assert lab.remembered == [(ONE, TWO, "192.0.2.9")]
        lab.targets.forget((TWO,))
        assert lab.remembered[-1] == (ONE, "192.0.2.9")

    run(scenario)


@pytest.mark.parametrize("name", ["10.32.5.1", "10.40.0.9:7000", "not a host", "", "192.0.2.1:0", "192.0.2.1:abc"])
def test_no_remembered_nonsense_prevents_a_start(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file from elsewhere, or a range that has changed since."""

    async def scenario(lab: Lab) -> None:
        lab.targets.start((), (name, ONE))
        assert lab.node.targets.names == (ONE,)
        await connect(lab, TWO)
        assert lab.remembered[-1] == (ONE, TWO)

    run(scenario)
    assert "no target any more" in caplog.text


@pytest.mark.parametrize(("name", "words"), [("10.32.5.1", "lies in the range"), ("not a host", "HOST")])
def test_a_peer_that_cannot_be_one_is_refused_and_nothing_is_done(name: str, words: str) -> None:
    async def scenario(lab: Lab) -> None:
        lab.targets.start((ONE,), ())
        with pytest.raises(ConfigError, match=words):
            await connect(lab, TWO, name, replace=True)
        assert lab.node.targets.names == (ONE,)
        assert lab.remembered == []

    run(scenario)


def test_to_forget_what_is_no_target_is_an_error_that_names_those_that_are() -> None:
    async def scenario(lab: Lab) -> None:
        lab.targets.start((ONE,), ())
        with pytest.raises(ConfigError, match=rf"no such target: 192\.0\.2\.9; name one as it was given: {ONE}"):
            lab.targets.forget((ONE, "192.0.2.9"))
        assert lab.node.targets.names == (ONE,)

    run(scenario)


def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_TARGETS", 3)

    async def scenario(lab: Lab) -> None:
        many = tuple(f"192.0.2.{number}" for number in range(1, 6))
        lab.targets.start(many[:2], many[2:])
        assert lab.node.targets.names == many[:3]
        with pytest.raises(AgentError, match="3 targets already"):
            await connect(lab, many[4])
        await connect(lab, *many[2:], replace=True)
        assert set(lab.node.targets.names) == set(many[2:])
        assert set(lab.remembered[-1]) == set(many[2:])

    run(scenario)


class Resolver:
    """Answers once it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.free = asyncio.Event()
        self.reason = ""
        monkeypatch.setattr(resolve, "resolve", self._resolve)

    async def _resolve(self, peer: str, port: int) -> tuple[tuple[str, int] | None, str]:
        self.asked.append(peer)
        await self.free.wait()
        return (None, self.reason) if self.reason else (("198.51.100.1", port), "")

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.asked) < count:
                await asyncio.sleep(0.001)


def test_a_name_that_is_slow_to_look_up_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(lab: Lab) -> None:
        resolver = Resolver(monkeypatch)
        lab.targets.start((THREE, "other.example", ONE), ())
        assert lab.reasons == {THREE: SOUGHT, "other.example": SOUGHT, ONE: ""}
        under_way = asyncio.ensure_future(lab.targets.look_up())
        await resolver.wait(2)
        assert resolver.asked == [THREE, "other.example"], "at once, and addresses are not looked up"
        resolver.free.set()
        await under_way
        assert [target.endpoint for target in lab.node.targets][:2] == [("198.51.100.1", 6783)] * 2

    run(scenario)


def test_a_name_that_is_forgotten_while_it_is_looked_up_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(lab: Lab) -> None:
        resolver = Resolver(monkeypatch)
        lab.targets.start((THREE,), ())
        under_way = asyncio.ensure_future(lab.targets.look_up())
        await resolver.wait(1)
        lab.targets.forget((THREE,))
        resolver.free.set()
        await under_way
        assert lab.node.targets.names == ()

    run(scenario)


def test_a_name_that_leads_nowhere_is_a_target_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(lab: Lab) -> None:
        resolver = Resolver(monkeypatch)
        resolver.free.set()
        resolver.reason = "cannot resolve peer.example: no address"
        await connect(lab, THREE)
        assert lab.reasons == {THREE: resolver.reason}
        assert lab.remembered == [(THREE,)]

    run(scenario)
    assert "cannot resolve peer.example" in caplog.text


def test_nothing_is_asked_of_a_node_that_has_stopped_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(lab: Lab) -> None:
        resolver = Resolver(monkeypatch)
        under_way = asyncio.ensure_future(connect(lab, THREE))
        await resolver.wait(1)
        lab.control.stopped = True
        resolver.free.set()
        with pytest.raises(AgentError, match="stopping"):
            await under_way
        assert lab.node.targets.names == ()

    run(scenario)
