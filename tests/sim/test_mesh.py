"""Nodes that know one other node find all the rest, keep few of them, and outlive the one they knew."""

from __future__ import annotations

import random

import pytest

from tests.sim.internet import Host, Internet, lossy, reordered
from tunrouter.core import bounds, seam
from tunrouter.core.states import State


@pytest.fixture
def internet() -> Internet:
    return Internet()


def cluster(internet: Internet, size: int, *, seeds: int = 1) -> list[Host]:
    """All know the first, and join within a second."""
    hosts = [internet.host(f"n{number}", number, discovery=True) for number in range(1, size + 1)]
    for host in hosts[1:]:
        host.connect(hosts[0])
        internet.run(1 / size)
    return hosts


def routes_of(host: Host) -> set[object]:
    return {claim.block for claim in host.node.routes._accepted}


def know_all(hosts: list[Host]) -> bool:
    blocks = {host.block for host in hosts}
    return all(routes_of(host) == blocks for host in hosts)


def views_equal(hosts: list[Host]) -> bool:
    views = {frozenset(record.data for record in host.node.mesh.gossip.replica) for host in hosts if host.alive}
    return len(views) == 1


def links(host: Host) -> set[int]:
    return {session.node for session in host.node.neighbours.standing()}


def test_all_route_to_all_soon_after_the_last_has_joined(internet: Internet) -> None:
    hosts = cluster(internet, 30)
    assert internet.until(lambda: know_all(hosts), 10) < 3
    internet.run(20)
    assert views_equal(hosts)
    assert all(bounds.FEW_NEIGHBOURS <= len(links(host)) <= bounds.MAX_NEIGHBOURS for host in hosts)


@pytest.mark.parametrize("seed", range(6))
def test_who_joins_at_the_same_moment_does_not_wait_for_the_others(seed: int) -> None:
    internet = Internet(seed, delay=0.0002)
    internet.fate = reordered(1.0, 0.002)
    hosts = [internet.host(f"n{number}", number, discovery=True) for number in range(1, 25)]
    for host in hosts[1:]:
        host.connect(hosts[0])
    assert internet.until(lambda: know_all(hosts), 20) < 3


def test_any_two_pods_reach_each_other_without_being_neighbours(internet: Internet) -> None:
    hosts = cluster(internet, 24)
    internet.until(lambda: know_all(hosts), 10)
    internet.run(10)
    pairs = [(a, b) for a in hosts for b in hosts if a is not b and b.identity.node_id not in links(a)]
    assert pairs
    for a, b in random.Random(3).sample(pairs, 30):
        payload = f"{a.name} to {b.name}".encode()
        a.send(str(b.block.network_address + 2), payload)
        internet.until(lambda b=b, payload=payload: payload in b.payloads, 2)  # type: ignore[misc]


def test_the_seed_dies_and_nothing_stops(internet: Internet) -> None:
    seed, *hosts = cluster(internet, 20)
    internet.until(lambda: know_all([seed, *hosts]), 10)
    internet.run(10)
    seed.kill()
    internet.run(20)
    assert all(len(links(host)) >= bounds.FEW_NEIGHBOURS for host in hosts)
    for a, b in zip(hosts, reversed(hosts), strict=True):
        if a is not b:
            a.send(str(b.block.network_address + 2), b"after")
    internet.run(2)
    assert all(host.payloads == [b"after"] for host in hosts if host is not hosts[len(hosts) // 2])


def test_a_newcomer_may_know_any_node(internet: Internet) -> None:
    hosts = cluster(internet, 12)
    internet.until(lambda: know_all(hosts), 10)
    newcomer = internet.host("late", 99, discovery=True)
    newcomer.connect(hosts[7])
    assert internet.until(lambda: know_all([*hosts, newcomer]), 5) < 2


def test_a_busy_seed_is_spared(internet: Internet) -> None:
    hosts = cluster(internet, 24)
    internet.until(lambda: know_all(hosts), 10)
    internet.until(lambda: all(len(links(host)) <= bounds.MAX_NEIGHBOURS for host in hosts), 120)
    internet.run(60)
    assert len(links(hosts[0])) <= bounds.MAX_NEIGHBOURS
    assert all(len(links(host)) >= bounds.FEW_NEIGHBOURS for host in hosts)


def test_without_discovery_only_targets_are_neighbours(internet: Internet) -> None:
    hub, *others = [internet.host(f"n{number}", number, discovery=False) for number in range(1, 6)]
    for other in others:
        other.connect(hub)
    internet.run(10)
    assert all(links(other) == {hub.identity.node_id} for other in others)
    assert know_all([hub, *others])


def test_who_restarts_is_itself_again_at_once(internet: Internet) -> None:
    hosts = cluster(internet, 10)
    internet.until(lambda: know_all(hosts), 10)
    internet.run(5)
    hosts[4].kill()
    internet.run(10)
    hosts[4].boot(hosts[0])
    internet.until(lambda: know_all(hosts) and views_equal(hosts), 5)
    assert not any("identity" in line for host in hosts for line in host.log)


def test_both_ends_of_a_one_way_link_agree(internet: Internet) -> None:
    a, b = internet.host("a", 1), internet.host("b", 2)
    a.connect(b)
    internet.run(10)
    internet.fate = lambda rng, source, destination, data: [(0.0, data)] if destination == b.endpoint else []
    began = internet.now
    internet.until(lambda: a.session(b).state is not State.ESTABLISHED, 4)  # type: ignore[union-attr]
    internet.until(lambda: b.session(a).state is not State.ESTABLISHED, 4)  # type: ignore[union-attr]
    assert internet.now - began < 3
    internet.until(lambda: b.session(a).current is None, 3)  # type: ignore[union-attr]
    assert internet.now - began < 4.5
    internet.fate = lambda rng, source, destination, data: [(0.0, data)]
    internet.until(lambda: a.established(b) and b.established(a), 7)


@pytest.mark.parametrize("share", [0.1])
def test_loss_declares_no_link_down(internet: Internet, share: float) -> None:
    hosts = cluster(internet, 8)
    internet.until(lambda: know_all(hosts), 10)
    internet.run(5)
    for host in hosts:
        host.log.clear()
    internet.fate = lossy(share)
    internet.run(300)
    assert not [line for host in hosts for line in host.log if "too long" in line]


def test_halves_that_were_apart_agree_again(internet: Internet) -> None:
    hosts = cluster(internet, 12)
    internet.until(lambda: know_all(hosts), 10)
    half = {host.endpoint for host in hosts[:6]}
    internet.fate = lambda rng, s, d, data: [(0.0, data)] if (s in half) == (d in half) else []
    internet.run(60)
    internet.fate = lambda rng, s, d, data: [(0.0, data)]
    newcomer = internet.host("late", 99, discovery=True)
    newcomer.connect(hosts[3])
    internet.until(lambda: views_equal([*hosts, newcomer]) and know_all([*hosts, newcomer]), 40)


def test_a_member_cannot_send_as_another(internet: Internet) -> None:
    """Spoofed inner sources: what a member sends with an address of a foreign block is dropped and counted."""
    hosts = cluster(internet, 5)
    internet.until(lambda: know_all(hosts), 10)
    bad, victim, other = hosts[1:4]
    bad.send(str(victim.block.network_address + 2), b"spoofed", source=str(other.block.network_address + 2))
    bad.send(str(victim.block.network_address + 2), b"honest")
    internet.until(lambda: b"honest" in victim.payloads, 2)
    assert b"spoofed" not in victim.payloads


def test_a_node_never_heard_of_is_not_dialled(internet: Internet) -> None:
    a = internet.host("a", 1, discovery=True)
    began = len(internet.wire)
    a.carry_out(a.node.on_messages([seam.Wanted(4242)], internet.now))
    internet.run(5)
    assert len(internet.wire) == began
    assert a.counters["wanted_unknown"] == 1
