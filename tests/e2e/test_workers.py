"""Processes of the data plane: what traffic notices when one dies, hangs, or when control stands still beside them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_faults import MIB, RATE, Once, stream_through
from tunrouter.bench.agent import Agent, family
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.status import Worker

pytestmark = pytest.mark.root

BACK_SECONDS = 1.0
SENT_AT_ONCE = 4
"""TCP streams, so that with several workers each has one."""


@pytest.fixture
def workers() -> int:
    return 1


@pytest.fixture
def lab(secret: str, workers: int) -> Iterator[Lab]:
    """Two hosts with so many workers each, and a pod on each."""
    with Lab(hosts=2, offloads="off") as lab:
        lab.start_agents("--workers", str(workers), password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        yield lab


def worker_of(host: Host, number: int = 0) -> Worker:
    return host.agent.snapshot().workers[number]


def new_worker(host: Host, old: Worker) -> Worker:
    """The one that stands in place of `old`."""

    def found() -> Worker | None:
        now = worker_of(host, old.number)
        return now if now.pid not in (0, old.pid) else None

    return wait_until("the worker is replaced", found, 10, pause=0.05)


def one_agent_with(agent: Agent, workers: int) -> None:
    assert len(family(agent.process.pid)) == 1 + workers


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("victim", [0, 1], ids=["sender", "receiver"])
def test_a_killed_worker_is_back_under_an_established_connection(lab: Lab, workers: int, victim: int) -> None:
    host = lab.hosts[victim]
    before = [worker_of(host, number) for number in range(workers)]

    def kill() -> None:
        os.kill(before[0].pid, signal.SIGKILL)

    with stream_through(lab, 4 * RATE, rate=RATE) as stream:
        fault = Once(RATE, kill)
        result = stream.finish(fault)
    assert fault.done
    # TCP's own backoff comes on top of the second in which the tunnel is back.
    assert result.longest_pause < 2.5
    after = [new_worker(host, before[0]), *(worker_of(host, number) for number in range(1, workers))]
    assert [worker.restarts for worker in after] == [1] + [0] * (workers - 1)
    assert [worker.pid for worker in after[1:]] == [worker.pid for worker in before[1:]]
    one_agent_with(host.agent, workers)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("victim", [0, 1])
def test_traffic_is_back_a_second_after_the_death_of_a_worker(lab: Lab, workers: int, victim: int) -> None:
    one, two = (host.pods[0] for host in lab.hosts)
    assert one.ping(two.address)
    for number in range(workers):
        old = worker_of(lab.hosts[victim], number)
        os.kill(old.pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until("a ping after the death", lambda: one.ping(two.address, seconds=0.2), 5, pause=0.01)
        assert time.monotonic() - killed < BACK_SECONDS
        new_worker(lab.hosts[victim], old)
    for host in lab.hosts:
        assert [connection.state for connection in host.agent.connections()] == ["established"]


def test_a_worker_that_hangs_is_replaced(lab: Lab) -> None:
    one, two = (host.pods[0] for host in lab.hosts)
    old = worker_of(lab.hosts[0])
    os.kill(old.pid, signal.SIGSTOP)
    new_worker(lab.hosts[0], old)
    wait_until("a ping after the replacement", lambda: one.ping(two.address, seconds=0.2), 5, pause=0.01)
    assert "does not answer" in lab.hosts[0].agent.log.read_text()


def test_a_worker_that_dies_again_and_again_costs_little_and_is_said_once(lab: Lab) -> None:
    host = lab.hosts[0]
    for _ in range(4):
        old = worker_of(host)
        os.kill(old.pid, signal.SIGKILL)
        new_worker(host, old)
    assert host.agent.log.read_text().count("is gone") == 1
    one, two = (host.pods[0] for host in lab.hosts)
    wait_until("a ping after the deaths", lambda: one.ping(two.address, seconds=0.2), 5, pause=0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_worker_outlives_its_agent_and_the_next_one_starts_at_once(lab: Lab, workers: int) -> None:
    agent = lab.hosts[0].agent
    pids = [worker.pid for worker in agent.snapshot().workers]
    agent.kill()
    killed = time.monotonic()
    agent.restart(wait=False)
    wait_until("the workers are gone", lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in pids), 5)
    assert time.monotonic() - killed < 1
    agent.wait_ready()
    agent.wait_established(1)
    pids = [worker.pid for worker in agent.snapshot().workers]
    agent.stop()
    assert agent.process.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_secrets_stay_off_the_workers_command_line(lab: Lab, secret: str) -> None:
    for pid in family(lab.hosts[0].agent.process.pid):
        assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize("victim", [0, 1], ids=["sender", "receiver"])
def test_a_control_plane_that_stands_still_does_not_disturb_a_flow(lab: Lab, victim: int) -> None:
    agent = lab.hosts[victim].agent
    times: list[tuple[float, int]] = []
    stopped: list[float] = []
    rate = 16 * MIB

    def progress(through: int) -> None:
        now = time.monotonic()
        times.append((now, through))
        if not stopped and through >= rate:
            agent.process.send_signal(signal.SIGSTOP)
            stopped.append(now)
        elif len(stopped) == 1 and now - stopped[0] >= 5:
            agent.process.send_signal(signal.SIGCONT)
            stopped.append(now)

    with stream_through(lab, 9 * rate, rate=rate) as stream:
        try:
            result = stream.finish(progress)
        finally:
            agent.process.send_signal(signal.SIGCONT)
    assert len(stopped) == 2
    assert result.longest_pause < 0.5
    for second in range(5):
        start = stopped[0] + second
        within = [through for at, through in times if start <= at < start + 1]
        assert within[-1] - within[0] > rate / 2, times
    for host in lab.hosts:
        host.agent.wait_established(1)
        assert "suspect" not in host.agent.log.read_text()
        assert "inner path MTU" not in host.agent.log.read_text()
