"""A link on which only one direction is dead: each end says which, as far as it can know."""

from __future__ import annotations

import pytest

from tests.sim.internet import Host, Internet, no_larger_than
from tests.sim.test_relays import Lab, cutting, path
from tests.sim.test_two_nodes import pair
from tunrouter.core import bounds, seam, status
from tunrouter.core.status import Connection


@pytest.fixture
def internet() -> Internet:
    return Internet()


def row(one: Host, other: Host) -> Connection:
    (found,) = [row for row in one.connections() if row.address.startswith(other.endpoint[0])]
    return found


def faults(one: Host, other: Host) -> tuple[str, str]:
    return row(one, other).fault, row(other, one).fault


def test_with_a_relay_both_ends_know_the_direction_and_go_on_knowing_it(internet: Internet) -> None:
    lab = Lab(internet, 3)
    _, b, c = lab.hosts
    lab.sever(b, c, both=False)
    internet.until(lambda: path(b, c) == path(c, b) == "relay through host1", 10)
    internet.until(lambda: faults(b, c) == (status.ONE_WAY_OUT, status.ONE_WAY_IN), 15)
    internet.run(5 * bounds.DIRECT_RETRY_SECONDS)
    assert faults(b, c) == (status.ONE_WAY_OUT, status.ONE_WAY_IN)
    assert row(b, c).reason == "no direct way: it does not hear us, though we hear it"
    assert row(c, b).reason == "no direct way: we do not hear it, though it hears us"
    lab.cut.clear()
    internet.until(lambda: path(b, c) == path(c, b) == "direct", 2 * bounds.DIRECT_RETRY_SECONDS)
    internet.run(2)
    assert faults(b, c) == ("", "")
    lab.sever(b, c)
    internet.until(lambda: path(b, c) == path(c, b) == "relay through host1", 10)
    assert faults(b, c) == (status.RELAYED, status.RELAYED), "what was so before says nothing of now"


def test_of_a_link_that_is_dead_both_ways_no_direction_is_blamed(internet: Internet) -> None:
    lab = Lab(internet, 3)
    _, b, c = lab.hosts
    lab.sever(b, c)
    internet.until(lambda: path(b, c) == path(c, b) == "relay through host1", 10)
    for _ in range(200):
        assert faults(b, c) == (status.RELAYED, status.RELAYED)
        internet.run(1)


def test_a_link_that_dies_the_other_way_too_is_not_blamed_for_long(internet: Internet) -> None:
    lab = Lab(internet, 3)
    _, b, c = lab.hosts
    lab.sever(b, c, both=False)
    internet.until(lambda: faults(b, c) == (status.ONE_WAY_OUT, status.ONE_WAY_IN), 15)
    lab.sever(c, b)
    internet.until(lambda: faults(b, c) == (status.RELAYED, status.RELAYED), 2 * bounds.DIRECT_RETRY_SECONDS)


def test_whoever_is_told_so_hears_it_no_more_often_than_heartbeats(internet: Internet) -> None:
    lab = Lab(internet, 3)
    _, b, c = lab.hosts
    lab.sever(b, c)
    internet.until(lambda: path(b, c) == path(c, b) == "relay through host1", 10)
    session = b.node.sessions[c.identity.node_id]
    b.carry_out(b.node.on_timer(internet.now))
    for number in range(20):
        session.on_unconfirmed(internet.now + number * bounds.HEARTBEAT_SECONDS / 10)
    said = [effect for effect in b.node.on_timer(internet.now) if isinstance(effect, seam.SendControl)]
    assert len(said) == 2


@pytest.mark.parametrize("met", [True, False], ids=["that have met", "that never met"])
def test_of_two_alone_who_hears_knows_it(internet: Internet, met: bool) -> None:
    if met:
        a, b = pair(internet)
        internet.run(1)
    else:
        a, b = internet.host("a", 1), internet.host("b", 2)
    internet.fate = cutting({(a.endpoint, b.endpoint)})
    b.connect(a)
    internet.until(lambda: row_fault(a, b) == status.ONE_WAY_OUT, 15)
    internet.run(100)
    assert row_fault(a, b) == status.ONE_WAY_OUT
    assert row_fault(b, a) == status.SILENT, "whoever hears nothing cannot know more"
    internet.fate = cutting(set())
    internet.until(lambda: a.established(b) and b.established(a), 15)
    assert row_fault(a, b) == row_fault(b, a) == ""


def row_fault(one: Host, other: Host) -> str:
    """The worst that is said of it, an address being shown as dialled and as where handshakes come from."""
    rows = [row for row in one.connections() if row.address.startswith(other.endpoint[0])]
    found = {row.fault for row in rows}
    return status.ONE_WAY_OUT if status.ONE_WAY_OUT in found else max(found, default="")


def test_a_peer_that_was_stopped_for_a_while_is_accused_of_nothing(internet: Internet) -> None:
    a, b = pair(internet)
    b.pause()
    internet.run(10)
    b.resume()
    internet.until(lambda: a.established(b) and b.established(a), 5)
    internet.run(bounds.HALF_OPEN_SECONDS)
    assert row_fault(a, b) == row_fault(b, a) == ""


def test_a_path_below_the_smallest_size_is_called_a_hole(internet: Internet) -> None:
    a, b = pair(internet)
    internet.fate = no_larger_than(1000)
    internet.until(lambda: row(a, b).fault == status.HOLE, 180)
    assert row(a, b).reason == "not even datagrams of 1200 bytes arrive"
    assert (row(a, b).path_mtu, row(a, b).path_mtu_wanted) == (bounds.PATH_MTU_BASE, 1437)
    internet.fate = cutting(set())
    internet.until(lambda: row(a, b).fault == "", 120)


def test_of_a_peer_that_said_goodbye_and_is_not_heard_again_it_is_known_too(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(1)
    b.carry_out(b.node.stop(internet.now))
    internet.run(1)
    a.carry_out(a.node.forget("b", internet.now))
    internet.fate = cutting({(a.endpoint, b.endpoint)})
    b.boot(a)
    internet.until(lambda: row_fault(a, b) == status.ONE_WAY_OUT, 15)
