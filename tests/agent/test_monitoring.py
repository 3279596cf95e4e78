"""Metrics as the agent serves them: an address in use stops nothing and is tried again, and there may be none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.agent.snapshots import SNAPSHOT
from tunrouter.agent.monitoring import Monitoring
from tunrouter.core.status import Snapshot
from tunrouter.daemon import serving
from tunrouter.daemon.logs import OncePerKey
from tunrouter.edge.metrics import Server
from tunrouter.errors import AgentError, HostError

HOST = "127.0.0.1"


@asynccontextmanager
async def watching(
    address: str, collect: Callable[[], Snapshot] = lambda: SNAPSHOT, *, health: str = ""
) -> AsyncIterator[Monitoring]:
    once = OncePerKey(logging.getLogger("tunrouter"))
    found = Monitoring(asyncio.get_running_loop(), address, health, once, collect, lambda: "", dict)
    async with contextlib.AsyncExitStack() as stack:
        found.start(stack)
        yield found


def taken() -> socket.socket:
    """A port that somebody listens on."""
    return socket.create_server((HOST, 0))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    said = await reader.read()
    writer.close()
    return said.decode()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_the_snapshot_is_served() -> None:
    async def scenario() -> None:
        with taken() as place:
            port = place.getsockname()[1]
        async with watching(f"{HOST}:{port}") as found:
            await until(lambda: listens(port))
            text = await get(port, "/metrics")
            assert 'tunrouter_peer_tx_bytes_total{nickname="host-2",peer="42:8e:e8:c4:52:1b"} 1200.0' in text
            assert (await get(port, "/readyz")).endswith("ready\n")
            assert found.warnings == ()
        assert not listens(port)
        assert not any(thread.name == "metrics" for thread in threading.enumerate())

    run(scenario())


def test_an_address_in_use_is_said_and_tried_until_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "AGAIN_SECONDS", 0.01)
    attempts: list[int] = []
    listen = Server.listen

    def counted(server: Server[Snapshot], host: str, port: int) -> int:
        attempts.append(port)
        return listen(server, host, port)

    monkeypatch.setattr(Server, "listen", counted)

    async def scenario() -> None:
        with taken() as place:
            port = place.getsockname()[1]
            async with watching(f"{HOST}:{port}") as found:
                await until(lambda: len(attempts) == 5)
                (warning,) = found.warnings
                assert warning == (
                    f"no metrics and no health checks: {HOST}:{port}: Address already in use; "
                    "free it, or give another --metrics-addr"
                )
                assert [record.getMessage() for record in caplog.records] == [warning], "said once"
                place.close()
                await until(lambda: not found.warnings)
                assert (await get(port, "/healthz")).endswith("ok\n")

    run(scenario())


def test_an_address_of_another_host_is_said() -> None:
    async def scenario() -> None:
        async with watching("192.0.2.99:6782") as found:
            await until(lambda: bool(found.warnings))
            assert "192.0.2.99:6782: Cannot assign requested address" in found.warnings[0]

    run(scenario())


def test_without_an_address_nothing_is_served_and_the_lag_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunrouter.agent.lag.PAUSE_SECONDS", 0.001)

    async def scenario() -> None:
        threads = threading.active_count()
        async with watching("") as found:
            await until(lambda: found.lag.looks > 3)
            assert threading.active_count() == threads
            assert found.warnings == ()

    run(scenario())


def test_an_agent_that_starts_is_alive_and_not_measured() -> None:
    def starting() -> Snapshot:
        raise AgentError("the agent is still starting", "try again in a second")

    async def scenario() -> None:
        with taken() as place:
            port = place.getsockname()[1]
        async with watching(f"{HOST}:{port}", starting):
            await until(lambda: listens(port))
            assert (await get(port, "/healthz")).startswith("HTTP/1.1 200 ")
            assert (await get(port, "/metrics")).startswith("HTTP/1.1 503 ")

    run(scenario())


def free_port() -> int:
    with taken() as place:
        return int(place.getsockname()[1])


def test_it_moves_to_another_address_and_leaves_the_old_one() -> None:
    async def scenario() -> None:
        first, second = free_port(), free_port()
        async with watching(f"{HOST}:{first}") as found:
            await until(lambda: listens(first))
            await found.move(f"{HOST}:{second}", "")
            assert (listens(first), listens(second)) == (False, True)
            assert (await get(second, "/readyz")).endswith("ready\n")
            await found.move(f":{second}", "")  # the same port, at every address
            assert (await get(second, "/readyz")).endswith("ready\n")
            await found.move("", "")
            assert not listens(second)
            await found.move(f"{HOST}:{first}", "")
            assert listens(first)
        assert not listens(first)
        assert not any(thread.name == "metrics" for thread in threading.enumerate())

    run(scenario())


def test_where_the_new_address_cannot_be_had_the_old_one_is_served() -> None:
    async def scenario() -> None:
        first = free_port()
        with taken() as place:
            async with watching(f"{HOST}:{first}") as found:
                await until(lambda: listens(first))
                there = f"{HOST}:{place.getsockname()[1]}"
                with pytest.raises(
                    HostError, match=f"no metrics and no health checks at {there}: Address already in use"
                ):
                    await found.move(there, "")
                assert listens(first)
                with pytest.raises(HostError, match="Cannot assign requested address"):
                    await found.move(f"192.0.2.1:{first}", "")
                await until(lambda: listens(first))
                assert (await get(first, "/readyz")).endswith("ready\n")

    run(scenario())


def test_an_agent_that_waits_for_its_address_takes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "AGAIN_SECONDS", 0.01)

    async def scenario() -> None:
        second = free_port()
        with taken() as place:
            async with watching(f"{HOST}:{place.getsockname()[1]}") as found:
                await until(lambda: found.warnings != ())
                await found.move(f"{HOST}:{second}", "")
                assert listens(second)
                assert found.warnings == ()

    run(scenario())


def test_health_alone_is_served_at_an_address_of_its_own() -> None:
    async def scenario() -> None:
        health = free_port()
        async with watching("", health=f"{HOST}:{health}") as found:
            await until(lambda: listens(health))
            assert (await get(health, "/healthz")).endswith("ok\n")
            assert (await get(health, "/readyz")).endswith("ready\n")
            refused = await get(health, "/metrics")
            assert refused.startswith("HTTP/1.1 404 ")
            assert refused.endswith("there are /healthz and /readyz\n")
            assert found.warnings == ()
        assert not listens(health)

    run(scenario())


def test_an_address_of_health_in_use_is_said_beside_metrics_that_are_served() -> None:
    async def scenario() -> None:
        first = free_port()
        with taken() as place:
            where = f"{HOST}:{place.getsockname()[1]}"
            async with watching(f"{HOST}:{first}", health=where) as found:
                await until(lambda: listens(first) and found.warnings != ())
                assert found.warnings == (
                    f"no health checks: {where}: Address already in use; free it, or give another --health-addr",
                )

    run(scenario())


def test_both_move_or_neither_does() -> None:
    async def scenario() -> None:
        first, second, third, fourth = (free_port() for _ in range(4))
        async with watching(f"{HOST}:{first}", health=f"{HOST}:{second}") as found:
            await until(lambda: listens(first) and listens(second))
            with taken() as place, pytest.raises(HostError, match="no health checks at"):
                await found.move(f"{HOST}:{third}", f"{HOST}:{place.getsockname()[1]}")
            assert [listens(port) for port in (first, second, third)] == [True, True, False]
            await found.move(f"{HOST}:{third}", f"{HOST}:{fourth}")
            assert [listens(port) for port in (first, second, third, fourth)] == [False, False, True, True]

    run(scenario())
