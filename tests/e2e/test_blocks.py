"""Real agents that agree on whose block is whose."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.e2e.test_mesh import snapshot
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.status import READY
from tunrouter.edge.api import Lease, ReserveCall
from tunrouter.edge.api.client import Client
from tunrouter.errors import AgentError, ConfigError

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
        wait_until("and it is reached there", lambda: one.ping(three.address), 10)

        second.agent.kill()
        second.agent.start(first.address, "--block-size", "26", password=secret, wait=False)
        assert second.agent.process.wait(timeout=10) == ConfigError.exit_code
        assert "this node has blocks of /24 out of 10.32.0.0/12, not of /26 out of" in second.agent.last_words()
        second.agent.start(first.address, password=secret)
        assert two.ping(one.address, count=3), "who was only restarted has what it had"
        state = snapshot(second)
        assert state is not None
        assert state.ipam is not None
        assert state.ipam.status == READY


@pytest.mark.alone
@pytest.mark.timeout(180)
def test_who_was_removed_by_three_at_once_and_comes_back_is_fenced_within_a_second(secret: str) -> None:
    """The range has four blocks for four hosts, so what the dead one had is soon another's."""
    with Lab(hosts=4, offloads="off") as lab:
        *others, victim = lab.hosts
        for host in lab.hosts:
            host.agent.block = ""
        first = others[0]
        first.agent.start("--range", "10.32.0.0/22", password=secret)
        for host in lab.hosts[1:]:
            host.agent.start(first.address, "--range", "10.32.0.0/22", password=secret)
            wait_until("who joins has a block", lambda host=host: blocks(host), 10)  # type: ignore[misc]
        pod, old = victim.add_pod("a"), blocks(victim)
        wait_until("the living decide", lambda: len(electors(first)) == 3, 20)
        victim.agent.kill()
        wait_until("all miss it", lambda: all(victim.agent.name not in reachable(host) for host in others), 15)
        with ThreadPoolExecutor() as pool:
            said = list(pool.map(lambda host: host.agent.command("rmpeer", victim.agent.name, check=False), others))
        done = [one.returncode == 0 for one in said]
        assert any(done)
        assert all(ok or "no node is called" in one.stderr for ok, one in zip(done, said, strict=True))

        wait_until("all forget it", lambda: all(old.isdisjoint(announced(host)) for host in others), 10)
        taker = Client(first.agent.directory / "run" / "tunrouter.sock")
        for number in range(300):
            if old <= blocks(first):
                break
            with suppress(AgentError):  # what another node had rests, so the one that waits for it waits in vain
                taker.ask(ReserveCall(f"c{number}"), Lease)
        assert [old <= blocks(host) for host in others] == [True, False, False], "freed once"

        victim.agent.restart(wait=False)
        met = wait_until("it sees the others", lambda: len(reachable(victim)) > 1 and time.monotonic(), 15)
        wait_until("its pod is fenced", lambda: any(pod.address in text for text in fenced(victim)), 5)
        assert time.monotonic() - met <= 1.0
        findings = json.loads(victim.agent.command("doctor", "-o", "json", check=False).stdout)["findings"]
        (finding,) = [one for one in findings if one["check"] == "addresses"]
        assert pod.address in finding["text"]
        assert finding["fix"].startswith("start those containers anew")


def fenced(host: Host) -> tuple[str, ...]:
    found = snapshot(host)
    return found.ipam.fenced if found is not None and found.ipam is not None else ()


def reachable(host: Host) -> set[str]:
    found = snapshot(host)
    owners = found.ipam.owners if found is not None and found.ipam is not None else ()
    return {owner.nickname for owner in owners if owner.reachable}


def announced(host: Host) -> set[str]:
    found = snapshot(host)
    return {route.block for route in found.routes} if found is not None else set()
