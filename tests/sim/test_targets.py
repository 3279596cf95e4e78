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
    assert len(a.node.peers.by_base) == len(b.node.peers.by_base) == 1
    a.carry_out(a.node.forget("b", internet.now))
    assert a.session(b).keep  # type: ignore[union-attr]


def test_a_target_where_a_session_stands_is_held_without_a_handshake(internet: Internet) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(1)
    assert not a.session(b).keep  # type: ignore[union-attr]
    began = len(internet.wire)
    a.carry_out(a.node.connect("b again", b.endpoint, "", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS + 10)
    assert not internet.firsts(began)
    assert a.established(b)


def test_targets_are_bounded_and_those_that_are_there_can_still_move(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_TARGETS", 2)
    a, b, c = (internet.host(name, number) for number, name in enumerate("abc", 1))
    a.connect(b)
    a.carry_out(a.node.connect("c", None, "no such name", internet.now))
    assert "targets_full" not in a.counters
    a.carry_out(a.node.connect("d", ("192.0.2.4", 6783), "", internet.now))
    assert a.counters["targets_full"] == 1
    assert a.node.targets.names == ("b", "c")
    a.connect(c)
    internet.until(lambda: a.established(b) and a.established(c), 2)
    assert not [1 for _, destination, _ in internet.wire if destination == ("192.0.2.4", 6783)]


def test_a_target_at_another_address_lets_the_old_session_go(internet: Internet) -> None:
    a, b = pair(internet)
    c = internet.host("c", 3)
    a.carry_out(a.node.connect("b", c.endpoint, "", internet.now))
    internet.until(lambda: a.established(c), 2)
    internet.run(bounds.IDLE_CLOSE_SECONDS + 10)
    assert not a.established(b)
    assert a.established(c)


def test_a_target_whose_name_is_resolved_again_to_the_same_address_changes_nothing(internet: Internet) -> None:
    a, b = pair(internet)
    before = a.session(b).current  # type: ignore[union-attr]
    for _ in range(20):
        a.connect(b)
        internet.run(1)
    assert a.session(b).current is before  # type: ignore[union-attr]
    assert len(internet.firsts()) == 1


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
    monkeypatch.setattr(bounds, "FORGET_SECONDS", 50.0)
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
    internet.run(100)
    assert a.established(guests[2]), "what was due for the one that is gone is due no more"


def test_where_all_peers_are_there_a_new_one_is_turned_away(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_PEERS", 2)
    a = internet.host("a", 1)
    guests = [internet.host(f"g{n}", n) for n in (2, 3, 4)]
    for guest in guests:
        guest.connect(a)
        internet.run(2)
    assert [a.established(guest) for guest in guests] == [True, True, False]
    assert a.counters["peers_full"] > 0
    indices = a.node.local.indices
    assert len(indices._taken) - len(indices._resting) == len(a.node.peers.by_base) + len(a.node.half_open)


def test_endpoints_of_an_earlier_life_are_tried_for_a_minute_and_bounded(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_TARGETS", 3)
    a = internet.host("a", 1)
    a.kill()
    a.disk = tuple((f"192.0.2.{number}", 6783) for number in range(50, 60))
    a.boot()
    internet.run(70)
    assert {destination for _, destination, _ in internet.wire} == set(a.disk[:3])
    began = len(internet.wire)
    internet.run(60)
    assert len(internet.wire) == began


def test_a_node_that_nobody_knows_is_wanted_in_vain(internet: Internet) -> None:
    a = internet.host("a", 1)
    a.carry_out(a.node.on_messages([seam.Wanted(4711)], internet.now))
    assert a.counters["wanted_unknown"] == 1
    assert internet.wire == []


@pytest.mark.parametrize(
    ("datagram", "counter"),
    [
        (b"", "handshake_malformed"),
        (b"\x01" * 15, "handshake_malformed"),
        (bytes(16), "handshake_malformed"),
        (b"\x04" + bytes(60), "handshake_malformed"),
        (b"\x01" + bytes(15), "handshake_malformed"),
        (b"\x02" + bytes(15), "handshake_unexpected"),
        (b"\x03" + bytes(15), "handshake_unexpected"),
    ],
)
def test_rubbish_is_counted_under_one_name_by_itself_and_inside_a_session(
    internet: Internet, datagram: bytes, counter: str
) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.on_messages([seam.Raw(b.endpoint, datagram)], internet.now))
    assert a.node.counters[counter] == 1
    b.session(a).say(wire.Carried(datagram))  # type: ignore[union-attr]
    b.carry_out(b.node.on_timer(internet.now))
    internet.run(1)
    inside = "handshake_malformed" if datagram[:1] == b"\x03" else counter
    assert a.node.counters[inside] == (2 if inside == counter else 1)
    assert a.established(b)
