"""Whatever is wrong with the server and the network: it costs next to nothing, it is noticed, and it is made good."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kube.apiserver import ApiServer, Served, serving
from tests.kube.apiserver.refusals import Refusal
from tests.kube.reflecting import client_of, node, nodes_of, plant, reflecting, requests, run, stored, until
from tunrouter.bench.namespaces import PREFIX, Namespace, lines_until, owner, stop
from tunrouter.edge.kube import reachability, reflector
from tunrouter.edge.kube.access import Access
from tunrouter.edge.kube.connection import Patience
from tunrouter.edge.kube.objects import NODES, Node
from tunrouter.edge.netns import Namespace as kernel_namespace
from tunrouter.edge.netns import within

BUSY = Patience(connect=0.5, answer=0.5, whole=1.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of hundredths instead of seconds."""
    monkeypatch.setattr(reflector, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(reachability, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(reachability, "MOST_SECONDS", 0.05)


def _break(served: Served, mode: str) -> None:
    if mode == "down":
        served.do(lambda server: server.down())
    elif mode == "ends watches":
        served.do(lambda server: setattr(server.api, "longest_watch", 0.0))
    elif mode == "resets watches":
        served.do(lambda server: server.faults.plant("close", verbs=["watch"]))
    else:
        served.do(lambda server: server.faults.plant(mode))
    served.do(lambda server: server.listener.reset())


def _mend(served: Served, mode: str) -> None:
    if mode == "down":
        served.do(lambda server: server.up())
    served.do(lambda server: setattr(server.api, "longest_watch", None))
    served.do(lambda server: server.faults.clear())


def _has_all(nodes: reflector.Reflector[Node]) -> bool:
    return nodes.in_touch and bool(nodes.objects)


def test_brownouts_cost_no_time_and_end_at_once(tmp_path: Path) -> None:
    """Eight servers, each broken in its own way; what eight reflectors and their clients use of a core is counted."""
    modes = ["down", "hang", "close", "error", "garbage", "broken-json", "truncated", "ends watches", "resets watches"]

    async def scenario(all_served: dict[str, Served], stack: contextlib.AsyncExitStack) -> None:
        reflected = {}
        for mode, served in all_served.items():
            reflected[mode], _ = await stack.enter_async_context(nodes_of(served, tmp_path, patience=BUSY))
        for mode, served in all_served.items():
            _break(served, mode)
        await until("all are lost", lambda: all(nodes.why for nodes in reflected.values()), 5)
        before, cpu = time.monotonic(), time.thread_time()
        asked = {mode: requests(served, "watch", "list", "get") for mode, served in all_served.items()}
        await asyncio.sleep(2)
        used = (time.thread_time() - cpu) / (time.monotonic() - before)
        for mode, served in all_served.items():
            assert requests(served, "watch", "list", "get") - asked[mode] <= 10, mode
            plant(served, "new")
            _mend(served, mode)
        assert used < 0.05
        for mode, nodes in reflected.items():
            await until(f"{mode}: back", functools.partial(_has_all, nodes), 10)

    async def all_of_it(all_served: dict[str, Served]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await scenario(all_served, stack)

    with contextlib.ExitStack() as servers:
        run(all_of_it({mode: servers.enter_context(serving()) for mode in modes}))


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "remove"]), NAMES),
    st.tuples(st.just("fault"), st.sampled_from(["close", "error", "garbage", "broken-json", "truncated", "hang"])),
    st.tuples(st.sampled_from(["mend", "lose events", "reset", "end", "down", "up", "pause"]), st.just("")),
)


def _step(server: ApiServer, what: str, which: str) -> Any:
    match what:
        case "write":
            return server.plant(node(which, annotations={"at": str(time.monotonic_ns())}))
        case "remove":
            with contextlib.suppress(Refusal):
                server.remove("v1", "Node", which)
        case "fault":
            server.faults.plant(which)
        case "mend":
            server.faults.clear()
        case "lose events":
            server.lose_events()
        case "reset":
            return server.listener.reset()
        case "end":
            server.api.end_watches()
        case "down":
            return server.down()
        case "up" if not server.listener.is_open:
            return server.up()
    return None


@pytest.mark.usefixtures("quick")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_after_whatever_the_memory_is_the_servers(tmp_path: Path, steps: list[tuple[str, str]]) -> None:
    patience = Patience(connect=0.2, answer=0.2, whole=0.5, silence=0.3)

    async def scenario(served: Served) -> None:
        async with nodes_of(served, tmp_path, patience=patience, wait=False) as (nodes, recorder):
            for what, which in steps:
                served.do(functools.partial(_step, what=what, which=which))
                await asyncio.sleep(0.05 if what == "pause" else 0.001)
            served.do(lambda server: _step(server, "mend", ""))
            served.do(lambda server: _step(server, "up", ""))
            plant(served, "last")
            await until("it is as the server has it", lambda: recorder.known == stored(served), 10)
            assert {
                name: thing.metadata.resource_version for (_, name), thing in nodes.objects.items()
            } == recorder.known

    with serving(bookmark_seconds=0.1) as served:
        run(scenario(served))


DROP = """table inet cut {{
    chain out {{
        type filter hook output priority 0
        tcp dport {port} drop
        tcp sport {port} drop
    }}
}}
"""


@pytest.mark.root
def test_a_network_that_swallows_everything_is_noticed(tmp_path: Path) -> None:
    """No reset, no error, no byte: the kernel's questions to the peer are all that tells."""
    namespace = Namespace(f"{PREFIX}{owner()}-kube")
    namespace.create()
    control = tmp_path / "control"
    server = namespace.spawn(sys.executable, "-m", "tests.kube.apiserver", "--control", str(control))
    try:
        url = next(iter(lines_until(server, time.monotonic() + 20))).strip()
        results: list[float] = []

        async def scenario() -> None:
            access = Access(url, tmp_path)
            async with (
                client_of(access, patience=Patience(keepalive=1)) as client,
                reflecting(client, NODES) as (nodes, _),
            ):
                begun = time.monotonic()
                namespace.run("nft", "-f", "-", stdin=DROP.format(port=access.port))
                await until("it noticed", lambda: not nodes.in_touch, 10)
                results.append(time.monotonic() - begun)
                assert "timed out" in nodes.why.lower()
                namespace.run("nft", "delete", "table", "inet", "cut")
                await until("it is back", lambda: nodes.in_touch, 10)

        with kernel_namespace(f"/run/netns/{namespace.name}") as held:
            within(held, lambda: run(scenario()))
        assert results[0] < 7
    finally:
        stop(server)
        namespace.delete()
