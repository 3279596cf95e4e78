"""The agent's part in measuring a path: what it starts for a peer, and what it believes of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest

from tests.sim.internet import Internet
from tests.sim.test_two_nodes import pair
from tunrouter.agent import bench
from tunrouter.agent.bench import Bench
from tunrouter.bench.agent import PACKAGE
from tunrouter.core import wire
from tunrouter.core.node import Node
from tunrouter.errors import AgentError

HERE = IPv4Address("127.0.0.1")
NOT_HERE = IPv4Address("203.0.113.9")


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The responder is not looked for in the directory where the tests stand."""
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))


class Carrier:
    """Notes what is told, and answers with `reply`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.told: list[wire.AgentBody] = []
        self.reply: Callable[[wire.AgentBody], None] = lambda _: None

    def tell(self, node: int, body: wire.AgentBody) -> None:
        self.told.append(body)
        self.reply(body)


class Ours:
    """Node a's agent beside the live session with b, `peer`."""

    def __init__(self, address: IPv4Address = HERE, *, allowed: bool = True) -> None:
        internet = Internet()
        a, b = pair(internet)
        self.carrier = Carrier(a.node)
        self.peer = b.identity.node_id
        loop = asyncio.get_running_loop()
        self.bench = Bench(loop, self.carrier, lambda: address, allowed=allowed, kernel=lambda: "compiled")

    async def told(self, count: int) -> list[wire.AgentBody]:
        async with asyncio.timeout(10):
            while len(self.carrier.told) < count:
                await asyncio.sleep(0.01)
        return self.carrier.told


def running(of: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(of())


def test_a_question_said_again_gets_the_same_answer_and_another_one_has_to_wait() -> None:
    async def run() -> None:
        ours = Ours()
        ours.bench.heard(ours.peer, wire.BenchAsk(1))
        (first,) = await ours.told(1)
        assert isinstance(first, wire.BenchAnswer)
        assert (first.refusal, first.address, first.kernel) == (0, "127.0.0.1", "compiled")
        ours.bench.heard(ours.peer, wire.BenchAsk(1))
        ours.bench.heard(ours.peer, wire.BenchAsk(2))
        ours.bench.heard(99, wire.BenchAsk(1))
        busy = [wire.BenchAnswer(2, wire.BENCH_BUSY), wire.BenchAnswer(1, wire.BENCH_BUSY)]
        assert ours.carrier.told[1:] == [first, *busy]
        assert (ours.bench.counters["bench_started"], ours.bench.counters["bench_refused"]) == (1, 2)
        process = ours.bench._running and ours.bench._running.process
        assert process
        ours.bench.close()
        assert process.poll() is not None, "it ends with the agent"

    running(run)


def test_a_peer_that_asks_without_end_gets_few_processes() -> None:
    async def run() -> None:
        ours = Ours()
        for question in range(1, 50):
            ours.bench.heard(ours.peer, wire.BenchAsk(question))
            if ours.bench._running is not None:
                ours.bench._leave(ours.bench._running)
        assert ours.bench.counters["bench_started"] == bench.PEER_STARTS_BURST
        for node in range(100, 150):
            ours.bench.heard(node, wire.BenchAsk(1))
            if ours.bench._running is not None:
                ours.bench._leave(ours.bench._running)
        assert ours.bench.counters["bench_started"] == bench.STARTS_BURST
        ours.bench.close()

    running(run)


def test_nothing_is_started_where_it_is_switched_off() -> None:
    async def run() -> None:
        ours = Ours(allowed=False)
        ours.bench.heard(ours.peer, wire.BenchAsk(1))
        assert ours.carrier.told == [wire.BenchAnswer(1, wire.BENCH_OFF)]
        assert ours.bench.counters["bench_started"] == 0
        ours.bench.close()

    running(run)


def test_a_responder_that_does_not_start_is_a_refusal_and_the_next_may_be_asked_for() -> None:
    async def run() -> None:
        ours = Ours(NOT_HERE)
        for question in (1, 2):
            ours.bench.heard(ours.peer, wire.BenchAsk(question))
            assert (await ours.told(question))[-1] == wire.BenchAnswer(question, wire.BENCH_FAILED)
        ours.bench.close()

    running(run)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (wire.BenchAnswer(0, 0, "192.0.2.7", 1, 2, bytes(16), "c", 1), "not in its own blocks"),
        (wire.BenchAnswer(0, wire.BENCH_OFF), "does not let itself be measured"),
        (wire.BenchAnswer(0, wire.BENCH_BUSY), "being measured with already"),
        (wire.BenchAnswer(0, wire.BENCH_FAILED), "did not start"),
        (wire.BenchAnswer(0, 200), "later version"),
        (None, "does not answer"),
    ],
)
def test_what_a_peer_answers_is_checked(
    answer: wire.BenchAnswer | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(bench, "BUSY_SECONDS", 0.01)

    async def run() -> None:
        ours = Ours()

        def reply(body: wire.AgentBody) -> None:
            if answer is not None:
                given = msgspec.structs.replace(answer, id=body.id)
                ours.bench.heard(ours.peer, given)

        ours.carrier.reply = reply
        with pytest.raises(AgentError, match=words):
            await ours.bench.ask("b")
        ours.bench.close()

    running(run)


def test_an_answer_that_nobody_waits_for_is_counted() -> None:
    async def run() -> None:
        ours = Ours()
        ours.bench.heard(ours.peer, wire.BenchAnswer(1, wire.BENCH_OFF))
        assert ours.bench.counters["bench_unasked"] == 1
        ours.bench.close()

    running(run)
