"""Strangers, thieves and liars: what they send is counted, and changes nothing for those who are there."""

from __future__ import annotations

import random

import pytest

from tests.sim.internet import Host, Internet, one_way
from tests.sim.test_two_nodes import pair
from tunrouter.core import bounds, seam, wire


@pytest.fixture
def internet() -> Internet:
    return Internet()


def test_no_bit_of_a_handshake_can_be_flipped() -> None:
    internet = Internet()
    pair(internet)
    recorded = [(s, d, data) for s, d, data in internet.wire if data[0] in (wire.FIRST, wire.ANSWER)][:2]
    for which, (_, _, data) in enumerate(recorded):
        for bit in (*range(wire.HEADER_BYTES * 8), *range(wire.HEADER_BYTES * 8, len(data) * 8, 7)):
            world = Internet()
            a, b = world.host("a", 1), world.host("b", 2)
            seen = [0]

            def fate(
                rng: random.Random,
                source: seam.Endpoint,
                destination: seam.Endpoint,
                data: bytes,
                which: int = which,
                bit: int = bit,
                seen: list[int] = seen,
            ) -> list[tuple[float, bytes]]:
                seen[0] += 1
                if seen[0] <= which:
                    return [(0.0, data)]
                if seen[0] > which + 1:
                    return []
                spoilt = bytearray(data)
                spoilt[bit // 8] ^= 1 << bit % 8
                return [(0.0, bytes(spoilt))]

            world.fate = fate
            a.connect(b)
            world.run(0.1)
            assert not a.node.sessions
            assert not b.node.sessions
            assert len(b.node.half_open) == which


def test_a_replayed_handshake_changes_nothing(internet: Internet) -> None:
    a, b = pair(internet)
    recorded = [(s, d, data) for s, d, data in internet.wire]
    internet.run(20)
    before = b.session(a).current  # type: ignore[union-attr]
    thief = ("203.0.113.9", 6783)
    for _ in range(3):
        for _, destination, data in recorded:
            if destination == b.endpoint:
                b.arrive(thief, data)
        internet.run(10)
    session = b.session(a)
    assert session is not None
    assert session.current is before
    assert session.endpoint == a.endpoint
    assert b.payloads == []
    assert b.counters["handshake_refused"] == 3
    assert "half_open_expired" not in b.counters


def test_reflected_datagrams_change_nothing(internet: Internet) -> None:
    a, b = pair(internet)
    for source, destination, data in list(internet.wire):
        if source == a.endpoint:
            a.arrive(destination, data)
    internet.run(10)
    assert a.established(b)
    assert a.payloads == []
    assert len(a.node.sessions) == 1


def test_random_and_mutated_datagrams_are_only_counted(internet: Internet) -> None:
    a, b = pair(internet)
    good = [data for _, destination, data in internet.wire if destination == b.endpoint]
    rng = random.Random(5)
    stranger = ("203.0.113.5", 999)
    sessions = dict(b.node.sessions)
    for _ in range(5000):
        data = bytearray(rng.choice(good)) if rng.random() < 0.5 else bytearray(rng.randbytes(rng.randrange(0, 700)))
        if data:
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        if rng.random() < 0.3:
            data = data[: rng.randrange(len(data) + 1)]
        b.arrive(stranger, bytes(data))
    internet.run(2)
    assert b.node.sessions == sessions
    assert b.payloads == []
    a.send("10.32.2.2", b"still here")
    internet.run(0.1)
    assert b.payloads == [b"still here"]


@pytest.mark.parametrize("outbound", [True, False])
def test_a_member_that_claims_to_be_another_is_refused(internet: Internet, outbound: bool) -> None:
    """It has the password, but not the other's key: neither another's key nor a signature of its own helps."""
    b, victim = internet.host("b", 2), internet.host("v", 3)
    victim.kill()
    for number, forge in enumerate(("key", "signature")):
        liar = internet.host(f"l{number}", 4 + number)
        identity = liar.node.local.identity
        liar.node.local.id = victim.identity.node_id
        if forge == "signature":
            identity.public_key = victim.identity.public_key
        one, other = (b, liar) if outbound else (liar, b)
        one.connect(other)
        internet.run(2)
        assert not b.node.sessions
        liar.kill()
    assert b.counters["handshake_bad_answer" if outbound else "identity_failed"] >= 2


def test_a_first_message_for_another_node_gets_no_answer(internet: Internet) -> None:
    a, b = internet.host("a", 1), internet.host("b", 2)
    a.node.dials.start(b.endpoint, internet.now, target=12345)
    a.carry_out(a.node.on_timer(internet.now))
    internet.run(1)
    assert not b.node.sessions
    assert not [1 for source, _, _ in internet.wire if source == b.endpoint]


def test_a_reject_counts_only_from_where_we_dialled(internet: Internet) -> None:
    a, b = internet.host("a", 1, secrets=("one",)), internet.host("b", 2, secrets=("two",))
    internet.fate = one_way(b.endpoint)
    a.connect(b)
    internet.run(0.1)
    reject = next(data for source, _, data in internet.wire if source == b.endpoint)
    a.arrive(("203.0.113.1", 6783), reject)
    assert [row.reason for row in a.connections()] == [""]
    a.arrive(b.endpoint, reject + b"x")
    assert [row.reason for row in a.connections()] == [""]
    a.arrive(b.endpoint, reject)
    assert [row.reason for row in a.connections()] == ["wrong password"]


def test_half_open_table_is_bounded_and_empties(internet: Internet) -> None:
    b = internet.host("b", 2)
    strangers = [Host(internet, f"s{n}", f"198.51.{n // 250}.{n % 250 + 1}", "10.32.9.0/24") for n in range(200)]
    for stranger in strangers:
        stranger.connect(b)
    internet.fate = one_way(b.endpoint)
    internet.run(4)
    assert 0 < len(b.node.half_open) <= bounds.MAX_HALF_OPEN
    for stranger in strangers:
        stranger.kill()
    internet.run(bounds.HALF_OPEN_SECONDS + 1)
    assert len(b.node.half_open) == 0
    assert not b.node.sessions


def test_an_inner_source_that_is_not_its_senders_is_dropped(internet: Internet) -> None:
    a, b = pair(internet)
    c = internet.host("c", 3)
    c.connect(b)
    internet.until(lambda: b.established(c), 5)
    a.send("10.32.2.2", b"spoofed", source="10.32.3.2")
    internet.run(0.1)
    assert b.payloads == []
    assert b.counters["drop_inner_source"] == 1


def test_two_nodes_that_announce_one_block_do_not_flap(internet: Internet) -> None:
    c = internet.host("c", 3)
    rivals = [Host(internet, f"r{n}", f"192.0.2.{n}", "10.32.7.0/24") for n in (7, 8)]
    for rival in rivals:
        rival.connect(c)
    internet.run(2)
    winner = min(rivals, key=lambda rival: rival.identity.node_id)
    for victim in (*rivals, *rivals):
        victim.kill()
        victim.boot(c)
        internet.run(5)
        c.send("10.32.7.2", b"x")
        internet.run(0.1)
        assert winner.payloads[-1:] == [b"x"]
        assert any("both announce 10.32.7.0/24" in line for line in c.log)
        winner.tun.written.clear()


def test_a_goodbyes_reason_is_shown_printable_and_short(internet: Internet) -> None:
    a, b = pair(internet)
    b.session(a).say(wire.Close("\x1b[2J\n" + "x" * 500))  # type: ignore[union-attr]
    b.carry_out(b.node.stop(internet.now))
    internet.until(lambda: not a.established(b), 0.1)
    reason = a.session(b).reason  # type: ignore[union-attr]
    assert reason == "[2J" + "x" * (bounds.MAX_NAME_BYTES - 5)
