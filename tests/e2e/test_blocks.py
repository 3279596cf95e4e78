"""Real agents that agree on whose block is whose."""

from __future__ import annotations

import pytest

from tests.e2e.test_mesh import snapshot
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.status import READY

pytestmark = pytest.mark.root


def blocks(host: Host) -> set[str]:
    found = snapshot(host)
    return {route.block for route in found.routes if route.path == "local"} if found is not None else set()


def electors(host: Host) -> set[str]:
    found = snapshot(host)
    return {one.nickname for one in found.ipam.electors} if found is not None and found.ipam is not None else set()


@pytest.mark.timeout(180)
def test_nodes_share_the_range_among_themselves_and_take_back_what_the_dead_had(secret: str) -> None:
    with Lab(hosts=3, offloads="off") as lab:
        first, second, third = lab.hosts
        for host in lab.hosts:
            host.agent.block = ""
        first.agent.start(password=secret)
        wait_until("a lone node has a block", lambda: blocks(first) == {"10.32.0.0/24"}, 5)
        one = first.add_pod("a")
        assert str(one.address) == "10.32.0.2"
        for host in (second, third):
            host.agent.start(first.address, password=secret)
            wait_until("who joins has a block", lambda host=host: blocks(host), 10)  # type: ignore[misc]
        two, three = second.add_pod("b"), third.add_pod("c")
        assert len({str(pod.address) for pod in (one, two, three)}) == 3
        assert two.ping(three.address, count=3)
        assert one.ping(two.address, count=3)
        wait_until("all three decide", lambda: all(len(electors(host)) == 3 for host in lab.hosts), 20)
        found = first.agent.command("whois", str(two.address)).stdout
        assert "host2-b" in found
        assert "(host2)" in found
        everybody = first.agent.command("ps", "--all").stdout
        assert all(str(pod.address) in everybody for pod in (one, two, three))

        refused = first.agent.command("rmpeer", "host3", check=False)
        assert refused.returncode == 1
        assert "alive" in refused.stderr
        taken = blocks(third)
        third.agent.kill()
        wait_until("it is missed", lambda: third.agent.name not in reachable(first), 15)
        assert "256 IPs taken over from" in first.agent.command("rmpeer", "host3").stdout
        wait_until("everybody forgets it", lambda: not taken & announced(second), 10)

        third.agent.restart()
        wait_until("what nobody took meanwhile is its again", lambda: taken <= blocks(third), 15)
        wait_until("so is its pod's address", lambda: str(three.address) in third.agent.command("ps").stdout, 5)
        assert one.ping(three.address, count=3)

        second.agent.kill()
        second.agent.restart()
        assert two.ping(one.address, count=3), "who was only restarted has what it had"
        state = snapshot(second)
        assert state is not None
        assert state.ipam is not None
        assert state.ipam.status == READY


def reachable(host: Host) -> set[str]:
    found = snapshot(host)
    owners = found.ipam.owners if found is not None and found.ipam is not None else ()
    return {owner.nickname for owner in owners if owner.reachable}


def announced(host: Host) -> set[str]:
    found = snapshot(host)
    return {route.block for route in found.routes} if found is not None else set()
