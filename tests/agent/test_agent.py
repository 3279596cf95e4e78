"""The agent's answers: bounded in time, and refused while it starts or stops."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from tunrouter.agent import agent as agents
from tunrouter.agent import calls
from tunrouter.agent.agent import Agent
from tunrouter.agent.answers import Answers
from tunrouter.agent.control import Control
from tunrouter.agent.membership import PLAIN
from tunrouter.config import Config
from tunrouter.core import keys
from tunrouter.edge import api
from tunrouter.errors import AgentError

DETACH = api.DetachCall("/run/netns/a", "a", "eth0")


class FakeAttachments:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def detach(self, *_: object) -> Any:
        return await self._answer()


class FakeControl(SimpleNamespace):
    """A node that is asked nothing."""

    def __init__(self) -> None:
        super().__init__(stopped=False, node=SimpleNamespace(local=SimpleNamespace(pod_mtu=1376)))


def agent_with(control: FakeControl, answer: Any = None) -> Agent:
    agent = Agent(Config(name="a"), asyncio.get_running_loop())
    agent._control = cast("Control", control)
    nobody = cast("Any", None)
    agent._answers = Answers(*[nobody] * len(Answers._fields))._replace(
        attachments=cast("Any", FakeAttachments(answer))
    )
    agent._calls.serving.set()
    return agent


def test_a_call_that_is_stuck_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls.CALL_SECONDS == 30
    monkeypatch.setattr(calls, "CALL_SECONDS", 0.02)

    async def scenario() -> None:
        agent = agent_with(FakeControl(), asyncio.Event().wait)
        async with asyncio.timeout(5):
            with pytest.raises(AgentError, match=r"not done within 0\.02 s"):
                await agent._calls.answer(DETACH)

    asyncio.run(scenario())


def test_a_timeout_of_the_work_itself_is_not_taken_for_ours() -> None:
    async def timed_out() -> None:
        raise TimeoutError("netlink's")

    async def scenario() -> None:
        with pytest.raises(TimeoutError, match="netlink's"):
            await agent_with(FakeControl(), timed_out)._calls.answer(DETACH)

    asyncio.run(scenario())


def test_who_asks_while_it_starts_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls.START_SECONDS == 5

    async def scenario() -> None:
        done = asyncio.Event()
        done.set()
        agent = agent_with(FakeControl(), done.wait)
        control, agent._control = agent._control, None
        agent._calls.serving.clear()
        asked = asyncio.ensure_future(agent._calls.answer(DETACH))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not asked.done()
        agent._control = control
        agent._calls.serving.set()
        await asyncio.wait_for(asked, 5)

        agent._control = None
        agent._calls.serving.clear()
        monkeypatch.setattr(calls, "START_SECONDS", 0.02)
        with pytest.raises(AgentError, match="still starting"):
            await asyncio.wait_for(agent._calls.answer(DETACH), 5)

    asyncio.run(scenario())


@pytest.mark.parametrize("call", [api.StatusCall(), api.CniCall({"CNI_COMMAND": "STATUS"}, msgspec.Raw(b"{}"))])
def test_how_it_is_doing_is_told_at_once(call: api.Call) -> None:
    async def scenario() -> None:
        agent = Agent(Config(name="a"), asyncio.get_running_loop())
        with pytest.raises(AgentError, match="still starting"):
            await asyncio.wait_for(agent._calls.answer(call), calls.START_SECONDS / 2)

    asyncio.run(scenario())


def test_who_asks_an_agent_that_stops_is_told_so() -> None:
    async def scenario() -> None:
        control = FakeControl()
        agent = agent_with(control)
        control.stopped = True
        with pytest.raises(AgentError, match="stopping"):
            await agent._calls.answer(api.StatusCall())

    asyncio.run(scenario())


def test_a_look_up_that_fails_does_not_end_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "NAMES_SECONDS", 0.001)

    async def scenario() -> None:
        again, calls = asyncio.Event(), 0

        async def broken() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                again.set()
            raise ZeroDivisionError

        agent = agent_with(FakeControl())
        agent._targets = cast("Any", SimpleNamespace(look_up=broken))
        task = asyncio.ensure_future(agent._keep_names())
        await asyncio.wait_for(again.wait(), 5)
        task.cancel()
        assert agent._barrier.errors >= 2

    asyncio.run(scenario())


def test_remarks_on_the_configuration_are_told_in_the_log_and_as_warnings(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(agents, "snapshot", lambda *arguments, **_: seen.append(arguments[2].warnings))

    async def scenario() -> None:
        agent = Agent(Config(name="a"), asyncio.get_running_loop(), ("CONN_LIMIT changes nothing: why",))
        agent._announce(cast("Any", SimpleNamespace(id=1, name="a", sealed=False)))
        agent._facts = {"offloads": ()}
        agent._exposure = cast("Any", SimpleNamespace(complaints=tuple))
        agent._workers = cast("Any", SimpleNamespace(counters={}))
        agent._bench = cast("Any", SimpleNamespace(counters={}))
        agent._snapshot(cast("Control", FakeControl()), cluster=False)

    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["CONN_LIMIT changes nothing: why", PLAIN]
    assert seen == [(PLAIN, "CONN_LIMIT changes nothing: why")]


def test_the_weakness_of_a_password_has_one_definition(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bits: float) -> tuple[str, ...]:
        agent = Agent(Config(name="a", secrets=("secret",)), asyncio.get_running_loop())
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(keys, "WEAK_BITS", bits)
            agent._announce(cast("Any", SimpleNamespace(id=1, name="a", sealed=True)))
        return agent._warnings

    assert asyncio.run(scenario(1.0)) == ()
    assert len(asyncio.run(scenario(1e6))) == 1
