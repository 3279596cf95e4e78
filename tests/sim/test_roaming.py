"""Peers that move: the path's size is looked for anew, and an address that another node has now is asked no more."""

from __future__ import annotations

import pytest

from tests.sim.internet import Host, Internet, lossy, no_larger_than
from tests.sim.test_targets import everything
from tests.sim.test_two_nodes import pair, reaches
from tunrouter.core import bounds, seam, wire


@pytest.fixture
def internet() -> Internet:
    return Internet()


def moved_and_died(internet: Internet) -> tuple[Host, Host]:
    """a keeps a session with b, which opened at one address, was last heard from another, and is dead now."""
    a, b = pair(internet)
    b.move("192.0.2.77")
    b.send("10.32.1.2", b"from elsewhere")
    internet.run(0.1)
    assert a.session(b).endpoint == b.endpoint  # type: ignore[union-attr]
    b.kill()
    return a, b


def test_a_larger_path_after_roaming_is_used_at_once(internet: Internet) -> None:
    internet.fate = no_larger_than(1300)
    a, b = pair(internet)
    internet.run(5)
    assert b.kernel_mtus == {a.block: 1280 - 61}
    internet.fate = everything
    a.move("192.0.2.77")
    internet.until(lambda: b.kernel_mtus == {}, 1.5)


def test_a_smaller_path_after_roaming_is_found_in_two_seconds(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(6)
    internet.fate = no_larger_than(1300)
    a.move("192.0.2.77")
    a.send("10.32.2.2", b"from elsewhere")
    internet.until(lambda: b.kernel_mtus.get(a.block) == 1280 - 61, 2.1)


@pytest.mark.parametrize("known", [False, True])
def test_who_hears_of_its_own_move_is_followed_at_once(internet: Internet, known: bool) -> None:
    """Whether it knows where it is or not."""
    a, b = pair(internet)
    internet.run(3)
    assert b.node.mesh.endpoints(a.node.local.id) == (a.endpoint,)
    for address in ("192.0.2.77", "192.0.2.78"):
        a.move(address)
        a.carry_out(a.node.readdressed((a.endpoint,) if known else (), internet.now))
        a.settle()
        internet.run(0.02)
        assert b.session(a).endpoint == a.endpoint  # type: ignore[union-attr]
        internet.run(3)
        if known:
            assert b.node.mesh.endpoints(a.node.local.id) == (a.endpoint,), "it is nowhere else any more"


def test_a_larger_path_after_its_own_move_is_used_at_once(internet: Internet) -> None:
    internet.fate = no_larger_than(1300)
    a, b = pair(internet)
    internet.run(5)
    assert a.kernel_mtus == {b.block: 1280 - 61}
    internet.fate = everything
    a.carry_out(a.node.readdressed((), internet.now))
    internet.run(0.5)
    assert a.kernel_mtus == {b.block: 1280 - 61}, "the same card: what is known of the path stays known"
    a.move("192.0.2.77")
    a.carry_out(a.node.readdressed((a.endpoint,), internet.now))
    a.settle()
    internet.until(lambda: a.kernel_mtus == {}, 0.5)


def test_what_is_dialled_in_vain_is_tried_at_once_from_a_new_address(internet: Internet) -> None:
    a = internet.host("a", 1)
    b = internet.host("b", 2)
    internet.fate = lossy(1.0)
    a.connect(b)
    internet.run(20)
    internet.fate = everything
    a.carry_out(a.node.readdressed((a.endpoint,), internet.now))
    a.settle()
    internet.until(lambda: a.established(b), 0.1)


def test_a_replayed_or_older_datagram_moves_nobody(internet: Internet) -> None:
    a, b = pair(internet)
    a.send("10.32.2.2", b"once")
    internet.run(0.1)
    thief = ("203.0.113.9", 6783)
    for _, destination, data in list(internet.wire):
        if destination == b.endpoint:
            b.arrive(thief, data)
    internet.run(1)
    assert b.session(a).endpoint == a.endpoint  # type: ignore[union-attr]
    assert not [1 for _, destination, _ in internet.wire if destination == thief]


def evicted_by_a_caller(internet: Internet) -> tuple[Host, Host, Host]:
    """b died, and another node called a from b's address; a had no answer from there."""
    a, b = pair(internet)
    b.kill()
    internet.until(lambda: not a.established(b), 10)
    internet.fate = lambda rng, source, destination, data: (
        [] if source == a.endpoint and data[0] == wire.FIRST else [(0.0, data)]
    )
    again = Host(internet, "b2", b.endpoint[0], "10.32.2.0/24")
    again.connect(a)
    internet.until(lambda: a.established(again), 20)
    internet.fate = everything
    return a, b, again


@pytest.mark.parametrize("late", [0.0, 30.0])
def test_an_address_that_another_node_has_now_is_not_asked_for_the_old_one(internet: Internet, late: float) -> None:
    """Not even when packets for the old one, which the data plane still held, want a session."""
    a, b, again = evicted_by_a_caller(internet)
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(late)
    began = len(internet.wire)
    a.carry_out(a.node.on_messages([seam.Wanted(b.identity.node_id)], internet.now))
    internet.run(30)
    assert not internet.firsts(began)
    assert a.established(again)


@pytest.mark.parametrize("at", ["home", "endpoint"])
def test_a_dead_node_that_moved_is_given_up_when_another_has_one_of_its_addresses(internet: Internet, at: str) -> None:
    a, _ = moved_and_died(internet)
    address = "192.0.2.2" if at == "home" else "192.0.2.77"
    if at == "endpoint":
        a.carry_out(a.node.forget("b", internet.now))
    again = Host(internet, "b2", address, "10.32.2.0/24")
    a.connect(again)
    internet.until(lambda: a.established(again), 20)
    internet.until(lambda: again.established(a), 5)
    internet.run(120)
    began = len(internet.wire)
    internet.run(100)
    assert not internet.firsts(began)
    assert [row.state for row in a.connections()] == ["established"]
    assert reaches(internet, a, again, b"for the new one", 1) < 1


@pytest.mark.parametrize("called", [True, False])
def test_a_node_that_was_evicted_is_forgotten_after_a_day(internet: Internet, called: bool) -> None:
    if called:
        a, b, again = evicted_by_a_caller(internet)
    else:
        a, b = pair(internet)
        b.kill()
        again = Host(internet, "b2", b.endpoint[0], "10.32.2.0/24")
        internet.until(lambda: a.established(again), 20)
    again.kill()
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS + bounds.FORGET_SECONDS + 100)
    assert b.identity.node_id not in a.node.sessions
    assert not a.node.dials.all()


def test_a_node_that_was_evicted_may_come_back_from_elsewhere(internet: Internet) -> None:
    a, b = pair(internet)
    b.kill()
    again = Host(internet, "b2", b.endpoint[0], "10.32.9.0/24")
    internet.until(lambda: a.established(again), 20)
    b.endpoint = ("192.0.2.55", 6783)
    internet.hosts[b.endpoint] = b
    b.boot(a)
    internet.until(lambda: a.established(b), 5)
    assert reaches(internet, a, b, b"for the old one", 1) < 1
    assert a.established(again)
