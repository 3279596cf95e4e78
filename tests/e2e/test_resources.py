"""What an agent costs when nothing happens, and what strangers can cost it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_metrics import scrape
from tunrouter.bench.agent import PORT, family
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import stop
from tunrouter.bench.traffic import ENVIRONMENT, IperfServer

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.alone]

IDLE_SECONDS = 10.0
SCRAPES = 20
"""Before memory is measured: telling of itself costs an agent nothing that stays."""
FLOOD_RATE = 20_000
FLOOD_SECONDS = 3.0
CLOSED_PORT = 9
SOURCES = [f"192.0.2.{last}" for last in range(100, 200)]


@pytest.mark.soak
def test_an_idle_agent_takes_less_than_a_percent_of_a_core_and_sixty_megabytes(pair: Lab) -> None:
    agents = [host.agent for host in pair.hosts]
    before = [agent.cpu_seconds() for agent in agents]
    # The only pause in the suite that is a measurement: nothing is waited for.
    time.sleep(IDLE_SECONDS)
    used = [(agent.cpu_seconds() - start) / IDLE_SECONDS for agent, start in zip(agents, before, strict=True)]
    assert max(used) < 0.01, used
    for host in pair.hosts:
        for _ in range(SCRAPES):
            scrape(host)
    for agent in agents:
        members = family(agent.process.pid)
        assert len(members) == 2
        assert max(megabytes(pid, "Rss") for pid in members) < 60
        # Of pages that both map (the interpreter, the libraries) each has its part.
        assert sum(megabytes(pid, "Pss") for pid in members) < 60


def megabytes(pid: int, measure: str) -> float:
    """Resident memory of a process, in 10^6 bytes: all of it (Rss), or shared pages in parts (Pss)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{measure}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(f"no {measure} of {pid}")


def flood(stranger: Host, target: Host, port: int) -> subprocess.Popen[bytes]:
    argv = (
        sys.executable,
        "-m",
        "tunrouter.bench.flood",
        target.address,
        str(port),
        str(FLOOD_RATE),
        str(FLOOD_SECONDS),
    )
    return stranger.namespace.spawn(*argv, *SOURCES, env=ENVIRONMENT)


def goodput_under_flood(lab: Lab, port: int) -> float:
    """Mbit/s of a TCP stream between pods while the receiving host's `port` is flooded."""
    one, two, stranger = lab.hosts
    running = flood(stranger, two, port)
    try:
        with IperfServer(two.pods[0].namespace) as server:
            goodput = server.tcp(one.pods[0].namespace, two.pods[0].address, seconds=2)
        said, _ = running.communicate(timeout=20)
    finally:
        stop(running)
    assert int(said) > 0.9 * FLOOD_RATE * FLOOD_SECONDS
    return goodput


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_handshake_flood_costs_no_more_than_the_same_flood_on_a_closed_port(secret: str) -> None:
    with Lab(hosts=3, offloads="off") as lab:
        one, two, stranger = lab.hosts
        stranger.namespace.ip(*(f"address add {source}/24 dev eth0" for source in SOURCES))
        lab.start_agents(password=secret, hosts=lab.hosts[:2])
        for host in (one, two):
            host.add_pod("a")
        goodput_under_flood(lab, PORT)
        memory = two.agent.resident_mib()
        # Pairs taken one right after the other: what else the machine does weighs on both.
        pairs = [(goodput_under_flood(lab, PORT), goodput_under_flood(lab, CLOSED_PORT)) for _ in range(5)]
        assert statistics.median(agent / closed for agent, closed in pairs) > 0.8, pairs
        assert two.agent.resident_mib() - memory < 4
        snapshot = two.agent.snapshot()
        dropped = sum(count for name, count in snapshot.counters.items() if name.startswith("handshake_"))
        assert dropped > FLOOD_RATE
        assert [connection.state for connection in snapshot.connections if connection.peer] == ["established"]
