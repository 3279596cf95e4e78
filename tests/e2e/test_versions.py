"""A cluster of two builds whose protocols are one version apart: what agents say and pods send crosses between them.

old1 ── new1 ── old2 ── new2        every pair is linked; then the two of each build lose each other
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from tests.e2e import builds
from tests.e2e.test_healing import cut, path, paths
from tests.e2e.test_mesh import one_view, snapshot
from tunrouter.bench.agent import PACKAGE
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.store.database import SCHEMA

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builds.build(builds.NEXT, tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def mixed(secret: str, newer: Path) -> Iterator[Lab]:
    """Blocks come from registers, whose electors are of both builds."""
    with Lab(hosts=4, offloads="off") as lab:
        for at, host in enumerate(lab.hosts):
            host.agent.block = ""
            host.agent.package = newer if at % 2 else PACKAGE
            host.agent.start(*(other.endpoint for other in lab.hosts[:at][-1:]), password=secret, wait=False)
        for host in lab.hosts:
            wait_until(f"{host} has a block", lambda host=host: has_block(host), 15)  # type: ignore[misc]
            host.add_pod("a")
        wait_until("all are linked", lambda: all(paths(host) == ["direct"] * 3 for host in lab.hosts), 20)
        yield lab


def has_block(host: Host) -> bool:
    found = snapshot(host)
    return found is not None and found.ipam is not None and found.ipam.blocks_own > 0


def protocols(host: Host) -> dict[str, int]:
    """The version spoken with each peer."""
    found = snapshot(host)
    assert found is not None
    return {row.nickname: row.protocol for row in found.connections if row.state == "established"}


def test_every_two_speak_the_newest_that_both_know(mixed: Lab) -> None:
    for host in mixed.hosts:
        for other, version in protocols(host).items():
            both_new = host.number % 2 == int(other[-1]) % 2 == 0
            assert version == (2 if both_new else 1), f"{host} with {other}"


def test_pods_of_all_builds_reach_each_other_and_addresses_are_looked_up_across(mixed: Lab) -> None:
    for one, other in permutations((host.pods[0] for host in mixed.hosts), 2):
        assert one.ping(other.address, count=2), f"{one} does not reach {other}"
    old, new = mixed.hosts[:2]
    for asker, owner in ((old, new), (new, old)):
        said = asker.agent.command("whois", owner.pods[0].address).stdout
        assert owner.name in said
        assert owner.pods[0].address in asker.agent.command("ps", "--all").stdout


def test_records_of_the_newer_build_are_passed_on_and_what_it_adds_is_no_fault(mixed: Lab) -> None:
    wait_until("views agree", lambda: one_view(mixed.hosts), 20)
    found = snapshot(mixed.hosts[0])
    assert found is not None
    assert found.gossip is not None
    assert found.gossip.records == 4 * 4 + 2, "of each its four kinds, and one that only the newer builds have"
    assert found.counters["control_unknown"] > 0
    for host in mixed.hosts:
        there = snapshot(host)
        assert there is not None
        faults = {name: count for name, count in there.counters.items() if "malformed" in name or "forged" in name}
        assert not any(faults.values()), f"{host}: {faults}"


def test_each_build_is_a_relay_for_the_other(mixed: Lab) -> None:
    one, two, three, four = mixed.hosts
    for near, far in ((one, three), (two, four)):
        cut(mixed, near, far, one_way=False)
    try:
        relayed = [(near, far) for near, far in ((one, three), (three, one), (two, four), (four, two))]
        wait_until("all go around", lambda: all(path(near, far).startswith("relay") for near, far in relayed), 10)
        for near, far in relayed:
            assert near.pods[0].ping(far.pods[0].address, count=3), f"{near} to {far}"
    finally:
        mixed.fabric.heal()


def test_a_node_is_brought_to_the_next_build_and_not_back(mixed: Lab, newer: Path) -> None:
    """Its disk is of the newer schema then: the older build leaves it as it is."""
    host, other = mixed.hosts[2], mixed.hosts[1]
    near, far = host.pods[0], other.pods[0]
    address = near.address
    host.agent.stop()
    host.agent.package = newer
    host.agent.restart()
    host.agent.wait_established(1)
    wait_until("pods reach each other", lambda: near.ping(far.address, seconds=0.5), 10)
    assert address in host.agent.command("ps").stdout
    assert protocols(host)[other.name] == 2
    host.agent.stop()
    host.agent.package = PACKAGE
    host.agent.restart(wait=False)
    assert host.agent.process.wait(15) == 1
    refusal = f"was written by a newer tunrouter (schema {SCHEMA + 1}, this version knows {SCHEMA})"
    assert refusal in host.agent.last_words()
    host.agent.package = newer
    host.agent.restart()
    wait_until("pods reach each other again", lambda: near.ping(far.address, seconds=0.5), 10)


def test_a_build_two_versions_ahead_is_refused_in_words_and_nobody_suffers(
    mixed: Lab, secret: str, tmp_path: Path
) -> None:
    stranger, old = mixed.hosts[3], mixed.hosts[0]
    stranger.agent.stop()
    (stranger.agent.directory / "state" / "state.db").unlink()
    stranger.agent.package = builds.build(builds.AFTER_NEXT, tmp_path)
    stranger.agent.start("--no-discovery", old.endpoint, password=secret)
    refusal = "peer speaks protocol version 3, this node 1"
    wait_until("it is refused", lambda: refusal in old.agent.log.read_text(), 10)
    rows = [(row.state, row.reason) for row in stranger.agent.connections() if row.address == old.endpoint]
    assert ("failed", "peer speaks another version of the protocol; this node speaks 2 and 3") in rows
    assert all(state == "failed" for state, _ in rows)
    found = snapshot(old)
    assert found is not None
    assert found.counters["handshake_version"] > 0
    assert found.counters.get("control_errors", 0) == 0
    assert mixed.hosts[0].pods[0].ping(mixed.hosts[2].pods[0].address, count=2)
