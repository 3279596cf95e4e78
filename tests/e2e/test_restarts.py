"""Restarts of the agent under traffic: killed, stopped, at both ends, of another build, and nobody coming after it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nacl.utils import random

from tests.e2e.test_faults import RATE, Once, stream_through
from tests.e2e.test_healing import Pings
from tunrouter.bench.agent import PACKAGE, Agent
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.keys import generate_secret

pytestmark = [pytest.mark.root, pytest.mark.alone]

ONCE_MORE_SECONDS = 10
"""As long as workers wait for another agent."""


@pytest.fixture(scope="module")
def lab(secret: str) -> Iterator[Lab]:
    """Two hosts and a pod on each."""
    with Lab(hosts=2, offloads="off") as lab:
        for host in lab.hosts:
            host.agent.extra_environment = {"NOTIFY_SOCKET": "@nobody"}  # as of a service manager
        lab.start_agents(password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        yield lab


@pytest.fixture
def pair(lab: Lab) -> Lab:
    """Both agents run and know each other, as a test finds them and leaves them."""
    for host in lab.hosts:
        if not host.agent.running:
            host.agent.restart()
    for host in lab.hosts:
        host.agent.wait_ready()
        host.agent.wait_established(1)
    return lab


def crash(agent: Agent) -> None:
    agent.crash()
    agent.restart(wait=False)


def restart(agent: Agent) -> None:
    agent.leave()
    agent.restart(wait=False)


def pids(agent: Agent) -> list[int]:
    return [worker.pid for worker in agent.snapshot().workers]


def told(agent: Agent) -> str:
    """Of its connections, for people."""
    return agent.command("status", "connections").stdout


def living(processes: list[int]) -> list[int]:
    return [pid for pid in processes if Path(f"/proc/{pid}/exe").exists()]


def start(lab: Lab, secret: str, *, workers: int) -> None:
    """Both agents, after they were stopped in whatever way."""
    one, other = lab.hosts
    one.agent.start("--workers", str(workers), password=secret)
    other.agent.start("--workers", str(workers), one.address, password=secret)
    one.agent.wait_established(1)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_nobody_notices_that_an_agent_is_killed_or_restarted(pair: Lab, secret: str, workers: int) -> None:
    if len(pids(pair.hosts[0].agent)) != workers:
        for host in pair.hosts:
            host.agent.stop()
        start(pair, secret, workers=workers)
    agents = [host.agent for host in pair.hosts]
    before = [pids(agent) for agent in agents]

    def both() -> None:
        for agent in agents:
            agent.crash()
        for agent in agents:
            agent.restart(wait=False)

    acts = (lambda: crash(agents[0]), lambda: restart(agents[1]), lambda: restart(agents[0]), both)
    faults = [Once((1 + 2 * at) * RATE, act) for at, act in enumerate(acts)]

    def progress(through: int) -> None:
        for fault in faults:
            fault(through)

    with stream_through(pair, 10 * RATE, rate=RATE) as stream:
        result = stream.finish(progress)
    assert all(fault.done for fault in faults)
    assert result.longest_pause < 0.3
    for agent in agents:
        agent.wait_ready()
        agent.wait_established(1)
    assert [pids(agent) for agent in agents] == before
    for agent in agents:
        (row,) = agent.connections()
        assert row.path == "direct"


@pytest.mark.soak
def test_what_an_earlier_agent_said_and_the_next_one_does_not_is_taken_back(pair: Lab) -> None:
    """The peer is gone for good while the agent is away, so that the next one never hears of its block."""
    one, other = pair.hosts
    (worker,) = pids(one.agent)
    one.agent.crash()
    other.agent.kill()
    one.agent.restart()
    assert pids(one.agent) == [worker]

    def unrouted() -> int:
        one.pods[0].ping(other.pods[0].address, seconds=0.1)
        return one.agent.snapshot().counters.get("drop_no_route", 0)

    assert not unrouted()
    wait_until("the route is taken back", unrouted, 40, pause=0.5)


def test_another_number_of_workers_takes_over_none(pair: Lab, secret: str) -> None:
    one, other = pair.hosts
    before = pids(one.agent) + pids(other.agent)
    workers = 3 - len(pids(one.agent))
    for host in pair.hosts:
        host.agent.leave()
    assert living(before) == before
    start(pair, secret, workers=workers)
    assert not living(before)
    assert len(pids(one.agent)) == workers
    wait_until("a ping", lambda: one.pods[0].ping(other.pods[0].address, seconds=0.2), 5, pause=0.01)


def test_with_another_secret_nothing_is_moved_on(pair: Lab, secret: str) -> None:
    one, other = pair.hosts
    before = pids(one.agent)
    one.agent.leave()
    one.agent.start(other.address, password=generate_secret(random))
    assert not living(before)
    assert not one.pods[0].ping(other.pods[0].address, seconds=0.5)
    one.agent.stop()
    one.agent.start(other.address, password=secret)


def test_an_agent_that_cannot_start_ends_nothing(pair: Lab, tmp_path: Path) -> None:
    """It has taken the workers over before it fails, and the next one finds them."""
    one, other = pair.hosts
    before = pids(one.agent)
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    nft.chmod(0o755)
    usual = one.agent.extra_environment
    one.agent.extra_environment = usual | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with Pings(one.pods[0], other.pods[0]) as pings:
        one.agent.leave()
        one.agent.restart(wait=False)
        assert one.agent.process.wait(20) != 0
        one.agent.extra_environment = usual
        one.agent.restart()
    assert "workers go on" in one.agent.log.read_text()
    assert pids(one.agent) == before
    assert pings.gap < 0.3


def test_another_build_replaces_the_workers_and_keeps_connections(pair: Lab, tmp_path: Path) -> None:
    agent = pair.hosts[0].agent
    agent.package = another_build(tmp_path)
    before = pids(agent)
    fault = Once(RATE, lambda: restart(agent))
    with stream_through(pair, 5 * RATE, rate=RATE) as stream:
        result = stream.finish(fault)
    assert fault.done
    assert result.longest_pause < 1.5
    agent.wait_ready()
    assert not set(pids(agent)) & set(before)
    assert not living(before)
    assert "are replaced by those of this build" in agent.log.read_text()
    agent.package = PACKAGE


def another_build(directory: Path) -> Path:
    shutil.copytree(PACKAGE / "tunrouter", directory / "tunrouter", ignore=shutil.ignore_patterns("__pycache__"))
    with (directory / "tunrouter" / "dataplane" / "worker.py").open("a") as file:
        file.write("# another build\n")
    return directory


def test_a_worker_that_hangs_is_ended_by_the_next_agent(pair: Lab) -> None:
    one, other = pair.hosts
    (worker,) = pids(one.agent)
    os.kill(worker, signal.SIGSTOP)
    one.agent.crash()
    one.agent.restart()
    assert not living([worker])
    wait_until("a ping", lambda: one.pods[0].ping(other.pods[0].address, seconds=0.2), 5, pause=0.01)


@pytest.mark.soak
def test_if_no_agent_comes_the_workers_end_and_say_goodbye(pair: Lab) -> None:
    one, other = pair.hosts
    before = pids(one.agent)
    said = len(other.agent.log.read_text())
    left = time.monotonic()
    one.agent.leave()
    # Nothing of the peers' traffic keeps it alive: without control the worker answers heartbeats itself.
    wait_until("it is nearly over", lambda: time.monotonic() - left > ONCE_MORE_SECONDS - 2, ONCE_MORE_SECONDS)
    assert one.pods[0].ping(other.pods[0].address, seconds=0.3)
    assert "suspect" not in other.agent.log.read_text()[said:]
    wait_until("the workers end", lambda: not living(before), 5, pause=0.05)
    assert time.monotonic() - left > ONCE_MORE_SECONDS - 1
    wait_until("it heard so", lambda: "shutdown" in told(other.agent), 2, pause=0.05)
    assert not list((one.agent.directory / "run").glob("worker-*"))


def test_reset_ends_workers_that_wait(pair: Lab) -> None:
    one, other = pair.hosts
    before = pids(one.agent)
    one.agent.leave()
    one.agent.command("reset")
    assert not living(before)
    wait_until("it heard so", lambda: "shutdown" in told(other.agent), 2, pause=0.05)
    assert not list((one.agent.directory / "run").glob("worker-*"))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_worst_of_fifty_kills_under_load(pair: Lab) -> None:
    """An agent in turn, under a connection; the gap is that of the connection or of pings, whichever is longer."""
    agents = [host.agent for host in pair.hosts]
    gaps = []
    for number in range(50):
        agent = agents[number % 2]
        fault = Once(RATE, lambda agent=agent: crash(agent))
        with (
            Pings(pair.hosts[0].pods[0], pair.hosts[1].pods[0]) as pings,
            stream_through(pair, 3 * RATE, rate=RATE) as stream,
        ):
            pause = stream.finish(fault).longest_pause
        assert fault.done
        gaps.append(max(pings.gap, pause))
        agent.wait_ready()
        agent.wait_established(1)
    assert max(gaps) <= 1.5, sorted(gaps)
    logging.getLogger(__name__).info("gaps: %s", " ".join(f"{gap:.3f}" for gap in sorted(gaps)))
