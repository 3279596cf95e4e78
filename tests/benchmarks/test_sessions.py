"""The crowd of sessions: one that carries traffic, the others installed and ready, each with a node of its own."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from benchmarks import plane
from benchmarks.sessions import COUNTS, Crowd, Outcome, named
from tests.benchmarks.reports import column, stage
from tunrouter.bench import instruments
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import Namespace, wait_until
from tunrouter.core import seam

CROWD = 40


def test_both_sides_are_told_keys_and_indices_that_fit() -> None:
    one, two = (list(plane.script(me, peer, "192.0.2.9", CROWD, 0.0)) for me, peer in ((1, 2), (2, 1)))
    ours, theirs = (
        next(message for message in side if isinstance(message, seam.Install) and message.node in {1, 2})
        for side in (one, two)
    )
    assert (ours.session, ours.remote) == (theirs.remote, theirs.session)
    assert ours.lanes[0].seal_key == theirs.lanes[0].open_key != ours.lanes[0].open_key
    assert ours.lanes[0].seal_salt == theirs.lanes[0].open_salt != ours.lanes[0].open_salt
    installs = [message for message in one if isinstance(message, seam.Install)]
    assert len({message.session for message in installs}) == CROWD
    assert len({message.node for message in installs}) == CROWD
    assert len({message.prefix for message in one if isinstance(message, seam.Route)}) == CROWD + 1


@pytest.mark.root
def test_every_session_seals_and_the_middle_one_carries_traffic() -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        with Crowd(lab, (one, two), CROWD) as crowd:
            assert instruments.tcp(*crowd.ends, seconds=1).mbits > 20
            assert len(crowd.workers) == 2
            cpu, resident = crowd.cpu_seconds(), crowd.resident_mib()
            assert cpu is not None
            assert cpu > 0.1
            assert resident is not None
            assert resident > 20
            before = sent(one.namespace)
            silent = [plane.FIRST_NODE + at for at in range(CROWD) if at != CROWD // 2]
            for node in silent:
                address = str(IPv4Address(plane.prefix(node)) + 1)
                one.namespace.run("ping", "-c1", "-W0.01", address, check=False)
            wait_until("every silent session has sealed", lambda: sent(one.namespace) - before >= len(silent), 5)
        assert all(process.poll() is not None for process in crowd.processes)


def sent(namespace: Namespace) -> int:
    """UDP datagrams that the workers of this host have sent."""
    rows = [row.split() for row in namespace.read("/proc/net/snmp").splitlines() if row.startswith("Udp:")]
    return int(rows[1][rows[0].index("OutDatagrams")])


@pytest.mark.parametrize(
    ("rate", "memory", "met"), [(96.0, 40.0, True), (94.0, 40.0, False), (96.0, 61.0, False), (None, 40.0, False)]
)
def test_the_gates_are_throughput_and_memory_with_the_most_sessions(
    rate: float | None, memory: float, met: bool
) -> None:
    most = {"memory": [memory]} if rate is None else {"memory": [memory], "tcp-1": [rate]}
    values = {named(COUNTS[0]): {"tcp-1": [100.0]}, named(COUNTS[-1]): most}
    assert Outcome.of(stage(values, column("tcp-1"), column("memory"))).met == met
