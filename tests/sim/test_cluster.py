"""The simulator, and clusters of real cores in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tunrouter.core import bounds
from tunrouter.errors import ConfigError
from tunrouter.sim.cluster import Cluster
from tunrouter.sim.network import Network
from tunrouter.sim.scenario import Happening, Report, Run, Scenario, check, read

SEEDS = 200


def report(**options: object) -> Report:
    return Run(Scenario(**options), lambda _: None).run()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    made = Cluster(seed=7)
    made.preload(60)
    return made


def test_a_cluster_that_begins_in_the_middle_agrees(cluster: Cluster) -> None:
    assert cluster.agreed()
    assert cluster.faults() == []
    degrees = [len(member.node.neighbours.standing()) for member in cluster.members]
    assert 7.5 < sum(degrees) / len(degrees) < 8.5
    assert min(degrees) >= 5
    before = cluster.members[0].node.mesh.gossip.replica.digest
    cluster.run(5)
    assert cluster.members[0].node.mesh.gossip.replica.digest == before, "nobody says anything that was not known"


def test_a_change_reaches_all(cluster: Cluster) -> None:
    assert (cluster.spread(cluster.members[3]) or 9) < 0.3
    assert cluster.agreed()


def test_nodes_that_know_one_other_find_all() -> None:
    cluster = Cluster(seed=3)
    cluster.join(1)
    cluster.run(1)
    cluster.join(12)
    assert (cluster.until_agreed(20) or 99) < 15
    assert cluster.faults() == []


def chaos(seed: int, nodes: int) -> Cluster:
    """Partitions, deaths, restarts and joins by chance; in the end all is healed and everybody alive."""
    cluster, chance = Cluster(seed=seed), Random(f"{seed} chaos")
    cluster.preload(nodes)
    for _ in range(6):
        match chance.randrange(5):
            case 0:
                cluster.partition(chance.randint(2, 4))
            case 1:
                cluster.network.side.clear()
            case 2:
                cluster.kill(chance.randint(1, nodes // 4))
            case 3:
                cluster.restart(0)
            case 4:
                cluster.join(chance.randint(1, 5))
        cluster.run(chance.uniform(0.5, 8.0))
    cluster.network.side.clear()
    cluster.restart(0)
    return cluster


def healed(seed: int, nodes: int) -> None:
    cluster = chaos(seed, nodes)
    assert cluster.until_agreed(180) is not None, f"seed {seed}: views differ"
    cluster.run(2)
    assert cluster.faults() == [], f"seed {seed}"


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_after_chaos_all_views_are_equal(seed: int) -> None:
    healed(seed, 30)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_after_much_chaos_all_views_are_equal(seed: int) -> None:
    healed(seed, 100)


def test_a_seed_repeats_a_run_exactly() -> None:
    script = (
        "from tests.sim.test_cluster import chaos\n"
        "c = chaos(5, 12)\n"
        "print(c.network.trace, c.clock.events, [m.view()[:2] for m in c.alive])\n"
    )
    root = Path(__file__).parents[2]
    found = [
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": salt},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 100


def test_bytes_are_counted_with_their_headers(cluster: Cluster) -> None:
    network = cluster.network
    before, datagrams = dict(network.bytes), network.datagrams
    network.send(0, ("203.0.113.1", 6783), b"x" * 10, 10)
    assert network.bytes[0] - before[0] == 38
    assert network.datagrams - datagrams == 1


def test_packets_go_around_a_way_that_is_cut() -> None:
    cluster = Cluster(seed=2, delay=(0.001, 0.002))
    cluster.preload(5)
    one, other = cluster.members[:2]
    cluster.network.cut |= {(0, 1), (1, 0)}
    cluster.run(8)
    one.plane.send(other.id, 1, 100)
    cluster.run(3)
    one.plane.send(other.id, 2, 100)
    cluster.run(0.1)
    assert (one.id, 2) in other.plane.packets
    assert one.node.sessions[other.id].relayed


def test_a_scenario_tells_what_it_measured() -> None:
    events = (Happening(2, "partition"), Happening(4, "heal"), Happening(5, "kill", 2), Happening(6, "restart", 0))
    found = report(nodes=20, seconds=10.0, changes=60.0, event=events)
    assert found.settled is not None
    assert found.faults == ()
    assert found.changes > 0


def test_a_quiet_cluster_costs_little() -> None:
    found = report(nodes=20, seconds=20.0)
    assert 500 < found.bytes_per_second < 2500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes = 1", "nodes are 1"),
        ("node = 5", "unknown field `node`"),
        ("nodes = 5\nloss = 1.5", "loss is 1.5"),
        ("nodes = ", "Invalid value"),
        ('[[event]]\nat = 1\nkind = "explode"', "explode"),
        ("delay = [50, 1]", "delay is 50"),
        ('seconds = 5\n[[event]]\nat = 9\nkind = "heal"', "outside the seconds"),
    ],
)
def test_a_bad_scenario_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        check(read(file))
    assert "\n" not in str(raised.value)


@pytest.mark.soak
def test_a_tenth_of_all_datagrams_lost_is_no_news() -> None:
    """No link goes or comes in anybody's view, and no round trip changes its class by copies that were lost."""
    cluster = Cluster(seed=1)
    cluster.preload(16)
    cluster.run(3)
    before = cluster.members[0].node.mesh.gossip.replica.digest
    cluster.network.loss = 0.1
    cluster.run(130)
    assert sum(member.node.counters.get("gossip_retried", 0) for member in cluster.members) == 0
    assert cluster.agreed()
    assert cluster.members[0].node.mesh.gossip.replica.digest == before


@pytest.mark.parametrize(("nodes", "seed"), [(5, 0), (5, 1), (5, 2), pytest.param(40, 0, marks=pytest.mark.soak)])
def test_the_halves_of_a_partition_find_each_other_within_two_seconds(nodes: int, seed: int) -> None:
    cluster = Cluster(seed=seed)
    cluster.preload(nodes)
    cluster.partition(2)
    cluster.run(60)
    cluster.network.side.clear()
    healed_at = cluster.clock.now
    while not all(len(member.node.mesh.topology.ways()) == nodes - 1 for member in cluster.members):
        cluster.run(0.1)
        assert cluster.clock.now - healed_at <= 2.0, "all can reach all by then"
    assert cluster.until_agreed(10) is not None
    cluster.run(1)
    assert cluster.faults() == []


@pytest.mark.parametrize("groups", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_who_was_given_up_by_all_others_is_theirs_again_without_a_restart(
    monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    """A partition that lasts longer than a node is remembered."""
    monkeypatch.setattr(bounds, "FORGET_SECONDS", 30.0)
    monkeypatch.setattr(bounds, "SWEEP_SECONDS", 5.0)
    cluster = Cluster(seed=2)
    cluster.preload(20)
    cluster.partition(groups)
    cluster.run(60)
    assert all(len(member.node.mesh.nodes) < 19 for member in cluster.members)
    cluster.network.side.clear()
    assert (cluster.until_agreed(90) or 99) < 30
    cluster.run(5)
    assert all(len(member.node.mesh.nodes) == 19 for member in cluster.members)
    assert cluster.faults() == []


@pytest.mark.parametrize("nodes", [3, pytest.param(40, marks=pytest.mark.soak)])
def test_the_dead_are_tried_once_a_second_by_all_together(nodes: int) -> None:
    cluster = Cluster(seed=1)
    cluster.preload(nodes)
    cluster.run(5)
    victim = cluster.members[0]
    victim.kill()
    cluster.run(20)
    heard: list[int] = []
    cluster.network.receivers[victim.number] = lambda source, data: heard.append(source)
    cluster.run(100)
    assert 20 < len(heard) < 400


def test_a_star_may_have_more_rays_than_a_record_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody chooses neighbours: all know the one in the middle, and each other by it; nobody is taken for gone."""
    monkeypatch.setattr(bounds, "FORGET_SECONDS", 20.0)
    monkeypatch.setattr(bounds, "SWEEP_SECONDS", 5.0)
    monkeypatch.setattr(bounds, "MAX_LINKS", 16)
    cluster = Cluster(seed=1, delay=(0.001, 0.010))
    for number in range(25):
        cluster.add(*(0,) * bool(number)).node.local.discovery = False
    cluster.run(60)
    assert len(cluster.members[0].node.mesh.links(cluster.members[0].id)) == 16
    assert {len(member.node.mesh.topology.ways()) for member in cluster.members} == {24}
    assert cluster.agreed()
    assert cluster.faults() == []


@pytest.mark.parametrize("seed", [1, 5, 6, 7])
def test_doubts_about_a_direct_way_end_although_the_relay_is_faster(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Of two copies the first hides the other: the slower way has heartbeats of its own, and doubts feed no doubts."""
    monkeypatch.setattr(Network, "delay", lambda self, one, other: 0.030 if {one, other} == {0, 1} else 0.001)
    cluster = Cluster(seed=seed)
    for number in range(4):
        cluster.add(*(other for other in range(4) if other != number)).node.local.discovery = False
    cluster.run(10)
    one, other = cluster.members[:2]
    pair = one.node.sessions[other.id], other.node.sessions[one.id]
    assert all(session.keep for session in pair)
    backed_up, step = 0, 0.1
    cluster.network.loss = 0.2
    for _ in range(300):
        cluster.run(step)
        backed_up += pair[0].backed_up
    assert backed_up < 150, "in doubt at times, not most of the time"
    cluster.network.loss = 0.0
    cluster.run(5)
    for _ in range(100):
        cluster.run(step)
        assert not any(session.backed_up or session.relayed for session in pair)
