"""Targets, endpoints and dials: one peer under several addresses, peers that move, leave and come back as others."""

from __future__ import annotations

import random
from ipaddress import IPv4Network

import pytest

from tests.sim.internet import Host, Internet, no_larger_than
from tests.sim.test_two_nodes import pair, reaches
from tunrouter.core import bounds, seam, wire


@pytest.fixture
def internet() -> Internet:
    return Internet()


def everything(
    rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
) -> list[tuple[float, bytes]]:
    return [(0.0, data)]


def test_two_addresses_of_one_peer_are_one_session(internet: Internet) -> None:
    a, b = pair(internet)
    internet.hosts["192.0.2.99", 6783] = b
    a.carry_out(a.node.connect("second", ("192.0.2.99", 6783), "", internet.now))
    internet.run(5)
    began = len(internet.wire)
    internet.run(60)
    assert not internet.firsts(began)
    assert len(a.node._by_base) == len(b.node._by_base) == 1
    a.carry_out(a.node.forget("b", internet.now))
    assert a.session(b).keep  # type: ignore[union-attr]


def test_a_peer_that_answers_from_another_address_is_followed(internet: Internet) -> None:
    """A virtual address: packets for it arrive, but what comes back comes from the machine's own."""
    a, b = internet.host("a", 1), internet.host("b", 2)
    internet.hosts["192.0.2.99", 6783] = b
    a.carry_out(a.node.connect("virtual", ("192.0.2.99", 6783), "", internet.now))
    internet.run(5)
    began = len(internet.wire)
    internet.run(60)
    assert a.established(b)
    assert not internet.firsts(began)
    assert a.session(b).endpoint == b.endpoint  # type: ignore[union-attr]


def test_who_only_copies_an_answer_does_not_become_the_peer(internet: Internet) -> None:
    a, b = internet.host("a", 1), internet.host("b", 2)
    thief = ("203.0.113.6", 6783)

    def fate(
        rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
    ) -> list[tuple[float, bytes]]:
        if data[0] == wire.ANSWER and source == b.endpoint:
            internet.at(0.0, lambda: a.arrive(thief, data))
        return [(0.0, data)]

    internet.fate = fate
    a.connect(b)
    internet.run(1)
    assert a.session(b).endpoint == b.endpoint  # type: ignore[union-attr]
    assert not [1 for _, destination, _ in internet.wire if destination == thief]


def test_a_dial_for_a_dead_node_finds_whoever_the_operator_wants_there(internet: Internet) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS + 10)
    b.kill()
    a.send("10.32.2.2", b"dial the dead one")
    internet.run(1)
    again = Host(internet, "b2", b.endpoint[0], "10.32.2.0/24")
    a.connect(again)
    internet.until(lambda: a.established(again), 10)


def test_a_goodbye_is_not_undone_by_a_redial(internet: Internet) -> None:
    a, b = pair(internet)
    b.carry_out(b.node.stop(internet.now))
    internet.run(0.5)
    assert not a.established(b)


def test_a_target_that_closes_each_session_is_dialled_once_a_second(internet: Internet) -> None:
    a, b = pair(internet)
    for _ in range(100):
        internet.run(0.05)
        session = b.session(a)
        if session is not None and session.current is not None:
            session.say(wire.Close("go away"))
            b.carry_out(b.node.on_timer(internet.now))
    assert len(internet.firsts()) <= 8


def test_a_late_goodbye_on_old_keys_closes_nothing(internet: Internet) -> None:
    a, b = pair(internet)
    old = b.session(a).current  # type: ignore[union-attr]
    internet.until(lambda: b.session(a).current is not old, 200)  # type: ignore[union-attr]
    b.session(a).say(wire.Close("late"), base=old.base)  # type: ignore[union-attr]
    b.carry_out(b.node.on_timer(internet.now))
    internet.run(0.1)
    assert a.established(b)


def test_a_message_before_the_timer_does_not_make_a_starved_node_accuse(internet: Internet) -> None:
    a, _ = pair(internet)
    a.pause()
    internet.run(10)
    a._stopped = None
    a.log.clear()
    a.carry_out(a.node.on_messages([seam.Counters({})], internet.now))
    assert not [line for line in a.log if "suspect" in line or "opening" in line]


def test_keys_are_renewed_inside_the_session_while_strangers_flood(internet: Internet) -> None:
    """Not one handshake datagram gets through by itself, and the session lives on."""
    a, b = pair(internet)
    internet.fate = lambda rng, source, destination, data: [] if data[0] != wire.DATA else [(0.0, data)]
    for number in range(700):
        a.send("10.32.2.2", b"%d" % number)
        internet.run(1)
    assert b.payloads == [b"%d" % number for number in range(700)]
    assert not [line for line in a.log + b.log if "opening" in line]


def test_keys_that_one_side_gave_up_are_not_sealed_with_for_long() -> None:
    for seed in range(40):
        internet = Internet(seed)
        a, b = pair(internet)
        internet.run(internet.rng.uniform(0, 4))
        deaf, seconds = internet.rng.choice((a, b)), internet.rng.uniform(3.0, 4.5)

        def fate(
            rng: random.Random,
            source: seam.Endpoint,
            destination: seam.Endpoint,
            data: bytes,
            deaf: Host = deaf,
        ) -> list[tuple[float, bytes]]:
            return [] if destination == deaf.endpoint and data[0] == wire.DATA else [(0.0, data)]

        internet.fate = fate
        internet.run(seconds)
        internet.fate = everything
        assert reaches(internet, a, b, b"there", 6) < 3.5
        assert reaches(internet, b, a, b"back", 6) < 3.5


def test_a_path_mtu_is_asked_for_routed_blocks_of_others_only(internet: Internet) -> None:
    """A member that announces our block, or another's, gets no kernel route for it, whatever its path is like."""
    a, b = internet.host("a", 1), internet.host("b", 2)
    rival = Host(internet, "rival", "192.0.2.9", "10.32.1.0/24")
    internet.fate = no_larger_than(1300)
    for peer in (b, rival):
        a.connect(peer)
    internet.run(10)
    assert a.established(rival)
    assert a.kernel_mtus == {b.block: 1280 - 61}


def test_a_node_that_is_evicted_leaves_no_kernel_route(internet: Internet) -> None:
    internet.fate = no_larger_than(1300)
    a, b = pair(internet)
    internet.run(5)
    assert a.kernel_mtus == {b.block: 1280 - 61}
    b.kill()
    internet.fate = everything
    again = Host(internet, "b2", b.endpoint[0], "10.32.2.0/24")
    internet.until(lambda: a.established(again), 20)
    internet.run(5)
    assert a.kernel_mtus == {}


def test_blocks_of_another_size_are_refused(internet: Internet) -> None:
    a, b = internet.host("a", 1), Host(internet, "b", "192.0.2.2", "10.32.2.128/25")
    a.connect(b)
    internet.run(1)
    assert a.established(b)
    assert a.node.routes.routed(b.identity.node_id) == ()
    assert "no /24" in a.connections()[0].reason


def test_a_peer_is_forgotten_after_a_day_and_its_block_is_free(internet: Internet) -> None:
    a, b = pair(internet)
    b.kill()
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS)
    assert a.node.routes.routed(b.identity.node_id) == (IPv4Network("10.32.2.0/24"),)
    internet.run(bounds.FORGET_SECONDS + 100)
    assert not a.node.sessions
    assert not a.node.dials.all()
    assert a.node.routes.routed(b.identity.node_id) == ()


def test_room_for_a_new_peer_is_made_by_the_one_gone_longest(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_PEERS", 2)
    a = internet.host("a", 1)
    guests = [internet.host(f"g{n}", n) for n in (2, 3, 4)]
    for guest in guests[:2]:
        guest.connect(a)
        internet.until(lambda guest=guest: a.established(guest), 3)  # type: ignore[misc]
        guest.carry_out(guest.node.stop(internet.now))
        guest.kill()
        internet.run(1)
    guests[2].connect(a)
    internet.until(lambda: a.established(guests[2]), 3)
    assert a.session(guests[0]) is None
    assert a.session(guests[1]) is not None
