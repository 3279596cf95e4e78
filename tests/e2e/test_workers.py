"""Processes of the data plane: what traffic notices when one dies, hangs, or when control stands still beside them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_faults import MIB, RATE, Once, stream_through
from tunrouter.bench.agent import family
from tunrouter.bench.lab import Host, Lab, Pod
from tunrouter.bench.namespaces import stop, wait_until
from tunrouter.core.status import Worker

pytestmark = [pytest.mark.root, pytest.mark.alone]

BACK_SECONDS = 1.0
FLOWS = 16
"""Enough that each worker has some of them, whatever the kernel's hash."""
ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], 5800))
    print("ready", flush=True)
    while True:
        server.sendto(*server.recvfrom(100))
"""
ASK = """
import select, socket, sys, time
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(int(sys.argv[2]))]
waiting, deadline = set(flows), time.monotonic() + float(sys.argv[3])
while waiting and time.monotonic() < deadline:
    for flow in waiting:
        flow.sendto(b"?", (sys.argv[1], 5800))
    while answered := select.select(list(waiting), [], [], 0.05)[0]:
        waiting -= set(answered)
print(len(flows) - len(waiting), flush=True)
"""


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


@contextmanager
def echo(pod: Pod) -> Iterator[None]:
    """Answers datagrams in the pod."""
    server = pod.namespace.spawn(sys.executable, "-c", ECHO, pod.address)
    try:
        assert server.stdout
        assert server.stdout.readline() == b"ready\n"
        yield
    finally:
        stop(server)


def answered(sender: Pod, receiver: Pod, *, seconds: float) -> int:
    """How many of so many flows have an answer in time."""
    return int(sender.namespace.run(sys.executable, "-c", ASK, receiver.address, str(FLOWS), f"{seconds}").stdout)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_workers_are_replaced_under_an_established_connection(lab: Lab, workers: int) -> None:
    before = [[worker_of(host, number) for number in range(workers)] for host in lab.hosts]
    faults = [Once((1 + 3 * at) * RATE, lambda at=at: os.kill(before[at][0].pid, signal.SIGKILL)) for at in range(2)]

    def progress(through: int) -> None:
        for fault in faults:
            fault(through)

    with stream_through(lab, 7 * RATE, rate=RATE) as stream:
        result = stream.finish(progress)
    assert all(fault.done for fault in faults)
    # TCP's own backoff comes on top of the second in which the tunnel is back.
    assert result.longest_pause < 2.5
    for host, old in zip(lab.hosts, before, strict=True):
        after = [new_worker(host, old[0]), *(worker_of(host, number) for number in range(1, workers))]
        assert [worker.restarts for worker in after] == [1] + [0] * (workers - 1)
        assert [worker.pid for worker in after[1:]] == [worker.pid for worker in old[1:]]
        assert len(family(host.agent.process.pid)) == 1 + workers


@pytest.mark.parametrize("workers", [1, 2])
def test_all_flows_are_back_a_second_after_the_death_of_a_worker(lab: Lab, workers: int) -> None:
    one, two = (host.pods[0] for host in lab.hosts)
    with echo(two):
        assert answered(one, two, seconds=5) == FLOWS
        for host in lab.hosts:
            for number in range(workers):
                old = worker_of(host, number)
                os.kill(old.pid, signal.SIGKILL)
                killed = time.monotonic()
                assert answered(one, two, seconds=5) == FLOWS
                took = time.monotonic() - killed
                assert took < BACK_SECONDS, took
                new_worker(host, old)
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


@pytest.mark.parametrize("workers", [2])
def test_no_worker_outlives_an_agent_that_is_stopped_for_good(lab: Lab, secret: str) -> None:
    agent = lab.hosts[0].agent
    agent.wait_established(1)
    pids = [worker.pid for worker in agent.snapshot().workers]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)  # as systemd does to the whole unit: the agent still has goodbyes to send
        assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    agent.process.terminate()
    assert agent.process.wait(5) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.soak
def test_a_control_plane_that_stands_still_does_not_disturb_a_flow(lab: Lab) -> None:
    rate, moments = 16 * MIB, Moments()

    def stall(host: Host, on: bool) -> None:
        host.agent.process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    plan = [Once(second * rate, lambda host=host, on=on: stall(host, on))
            for second, host, on in ((1, lab.hosts[0], True), (6, lab.hosts[0], False),
                                     (8, lab.hosts[1], True), (13, lab.hosts[1], False))]  # fmt: skip

    def progress(through: int) -> None:
        moments.note(through)
        for step in plan:
            step(through)

    with stream_through(lab, 15 * rate, rate=rate) as stream:
        try:
            result = stream.finish(progress)
        finally:
            for host in lab.hosts:
                stall(host, on=False)
    assert all(step.done for step in plan)
    assert result.longest_pause < 0.5
    assert moments.slowest() > rate / 2
    for host in lab.hosts:
        host.agent.wait_established(1)
        said = host.agent.log.read_text()
        assert "suspect" not in said
        assert "no answer" not in said
        assert "inner path MTU" not in said


class Moments:
    """How far a stream was, and when."""

    def __init__(self) -> None:
        self._at: list[tuple[float, int]] = []

    def note(self, through: int) -> None:
        self._at.append((time.monotonic(), through))

    def slowest(self) -> int:
        """Bytes in the worst full second."""
        found = []
        for start, before in self._at:
            after = [through for at, through in self._at if at >= start + 1]
            if after:
                found.append(after[0] - before)
        return min(found)
