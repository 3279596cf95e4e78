"""Keys grow old and are renewed, and what stands stays as it was: counts, path, and silence where nothing changed."""

from __future__ import annotations

import random

import pytest

from tests.sim.internet import Host, Internet, no_larger_than
from tests.sim.test_liveness import accusations
from tests.sim.test_targets import everything
from tests.sim.test_two_nodes import pair
from tunrouter.core import bounds, seam, wire
from tunrouter.core.keyslot import OLD_KEYS_SECONDS
from tunrouter.core.outbox import Effect
from tunrouter.core.states import State


@pytest.fixture
def internet() -> Internet:
    return Internet()


def effects_of(host: Host) -> list[Effect]:
    """What this host's node asks for from now on."""
    found: list[Effect] = []
    carry_out = host.carry_out

    def record(effects: list[Effect]) -> None:
        found.extend(effects)
        carry_out(effects)

    host.carry_out = record  # type: ignore[method-assign]
    return found


def installed(host: Host) -> int:
    """Sessions that this host's node believes the data plane to have."""
    return len(host.node.peers.by_base) + len(host.node.half_open)


def test_a_quiet_session_asks_for_nothing_but_heartbeats(internet: Internet) -> None:
    internet.fate = no_larger_than(1400)
    a, b = pair(internet)
    internet.run(10)
    both = (effects_of(a), effects_of(b))
    internet.run(30)
    for effects in both:
        assert {type(effect) for effect in effects} == {seam.SendControl}
        assert 30 <= len(effects) <= 90


def test_keys_are_renewed_inside_the_session_alone(internet: Internet) -> None:
    a, b = pair(internet)
    seen = set()
    for _ in range(50):
        internet.run(10)
        seen.add(a.session(b).current)  # type: ignore[union-attr]
    assert 4 <= len(seen) <= 5
    assert len(internet.firsts()) == 1
    assert accusations(a) == accusations(b) == []


def test_old_keys_are_given_back_soon_after_a_renewal(internet: Internet) -> None:
    a, b = pair(internet)
    before = a.session(b).current  # type: ignore[union-attr]
    assert before is not None
    effects = effects_of(a)
    internet.until(lambda: a.session(b).current is not before, 200)  # type: ignore[union-attr]
    assert installed(a) == 2
    internet.run(OLD_KEYS_SECONDS - 1)
    assert seam.Retire(before.base) not in effects
    internet.run(2)
    assert seam.Retire(before.base) in effects
    assert installed(a) == installed(b) == 1
    indices = a.node.local.indices
    assert len(indices._taken) - len(indices._resting) == 1


def test_keys_that_sealed_enough_are_renewed_at_once(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "REKEY_MESSAGES", 50)
    a, b = pair(internet)
    before = a.session(b).current  # type: ignore[union-attr]
    for _ in range(49):
        a.send("10.32.2.2", b"x")
    internet.run(5)
    assert a.session(b).current is before  # type: ignore[union-attr]
    a.send("10.32.2.2", b"x")
    internet.until(lambda: a.session(b).current is not before, 3)  # type: ignore[union-attr]


def test_packets_and_bytes_are_counted_over_all_keys(internet: Internet) -> None:
    a, b = pair(internet)
    for _ in range(400):
        a.send("10.32.2.2", bytes(80))
        internet.run(1)
    internet.run(30)
    (ours,), (theirs,) = a.connections(), b.connections()
    assert (ours.sent_packets, ours.sent_bytes) == (400, 400 * 100)
    assert (theirs.received_packets, theirs.received_bytes) == (400, 400 * 100)
    assert (ours.received_packets, theirs.sent_packets) == (0, 0)
    b.carry_out(b.node.stop(internet.now))
    internet.run(1)
    assert a.session(b).traffic()[:2] == (400, 400 * 100)  # type: ignore[union-attr]


def test_a_short_outage_is_over_when_something_is_heard(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(5)
    internet.fate = lambda rng, source, destination, data: []
    internet.until(lambda: a.session(b).state is State.SUSPECT, 4)  # type: ignore[union-attr]
    internet.fate = everything
    internet.until(lambda: a.session(b).state is State.ESTABLISHED, 0.6)  # type: ignore[union-attr]
    internet.run(3)
    began = len(internet.wire)
    internet.run(60)
    assert not internet.firsts(began), "what was dialled meanwhile is not dialled any more"
    assert a.session(b).state is State.ESTABLISHED  # type: ignore[union-attr]
    sent = [1 for source, _, data in internet.wire[began:] if source == a.endpoint and data[0] == wire.DATA]
    assert len(sent) < 200, "and heartbeats have their slow pace again"


def test_what_is_heard_after_an_outage_is_enough_without_new_keys(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(5)
    before = a.session(b).current  # type: ignore[union-attr]
    internet.fate = lambda rng, source, destination, data: []
    internet.until(lambda: a.session(b).state is State.SUSPECT, 4)  # type: ignore[union-attr]
    internet.fate = lambda rng, source, destination, data: [(0.0, data)] if len(data) < 200 else []
    internet.until(lambda: a.session(b).state is State.ESTABLISHED, 0.6)  # type: ignore[union-attr]
    assert a.session(b).current is before  # type: ignore[union-attr]
    assert not a.node.dials.all(), "what was begun meanwhile is ended"


def test_a_confirmation_is_repeated_four_times_a_second_and_no_more(internet: Internet) -> None:
    a, b = internet.host("a", 1), internet.host("b", 2)
    internet.fate = lambda rng, source, destination, data: [(0.0, data)] if data[0] != wire.DATA else []
    a.connect(b)
    internet.until(lambda: a.established(b), 1)
    session = a.session(b)
    assert session is not None
    assert session.current is not None
    base, confirm = session.current.base, session.current.confirm
    effects = effects_of(a)
    for _ in range(100):
        a.carry_out(a.node.on_messages([seam.Moved(base, b.endpoint)], internet.now))
        internet.run(0.01)
    assert effects.count(seam.SendControl(base, confirm)) in range(3, 5)
    internet.fate = everything
    internet.until(lambda: b.established(a), 0.3)
    effects.clear()
    internet.run(1)
    assert seam.SendControl(base, confirm) not in effects


def test_of_two_crossed_handshakes_the_one_that_the_peer_never_learnt_of_is_given_up(internet: Internet) -> None:
    """The lower id's keys should win, but not one of their datagrams gets through: the other's are used."""
    a, b = internet.host("a", 1), internet.host("b", 2)
    lower, higher = sorted((a, b), key=lambda host: host.identity.node_id)
    lost: set[bytes] = set()

    def fate(
        rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
    ) -> list[tuple[float, bytes]]:
        session = lower.session(higher)
        if session is not None and session.current is not None and session.current.ours:
            lost.add(session.current.remote.to_bytes(4, "big"))
        lost_now = source == lower.endpoint and data[0] == wire.DATA and data[4:8] in lost
        return [] if lost_now else [(0.0, data)]

    internet.fate = fate
    a.connect(b)
    b.connect(a)
    internet.run(1)
    assert lower.session(higher).current.ours  # type: ignore[union-attr]
    internet.until(lambda: not lower.session(higher).current.ours, 3)  # type: ignore[union-attr]
    assert lost
    for number in range(20):
        lower.send(str(higher.block[2]), b"%d" % number)
        higher.send(str(lower.block[2]), b"%d" % number)
        internet.run(1)
    assert len(lower.payloads) == len(higher.payloads) == 20
    assert installed(lower) == installed(higher) == 1
    internet.run(2)
    assert lower.session(higher).traffic()[0] == 20  # type: ignore[union-attr]
    assert accusations(higher) == []


def test_a_session_that_stands_longer_than_a_day_is_not_forgotten(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "FORGET_SECONDS", 20.0)
    a, b = pair(internet)
    internet.run(200)
    assert b.established(a)
    assert b.node.routes.routed(a.identity.node_id) == (a.block,)
    assert accusations(a) == accusations(b) == []


def test_who_has_stopped_lets_nobody_in_again(internet: Internet) -> None:
    a, b = pair(internet)
    b.carry_out(b.node.stop(internet.now))
    internet.run(1.45)  # until it would itself miss its peers
    assert len(internet.firsts()) > 1, "it is asked"
    assert not a.established(b)
    assert len(b.node.half_open) == 0


def test_a_handshake_goes_inside_the_session_with_that_address_and_no_other(internet: Internet) -> None:
    a, b = pair(internet)
    before = a.session(b).current  # type: ignore[union-attr]
    a.carry_out(a.node.connect("ghost", ("192.0.2.99", 6783), "", internet.now))
    internet.run(30)
    assert a.session(b).current is before  # type: ignore[union-attr]
    assert a.session(b).endpoint == b.endpoint  # type: ignore[union-attr]
    assert sum(data[0] == wire.FIRST for _, destination, data in internet.wire if destination[0] == "192.0.2.99") > 5


def test_only_peers_that_stand_are_remembered_for_the_next_life(internet: Internet) -> None:
    a, b = pair(internet)
    c, d = internet.host("c", 3), internet.host("d", 4)
    a.connect(c)
    a.connect(d)
    internet.until(lambda: a.established(c) and a.established(d), 2)
    assert set(a.disk) == {b.endpoint, c.endpoint, d.endpoint}
    c.kill()
    internet.run(bounds.DEAD_SECONDS + 2)
    assert set(a.disk) == {b.endpoint, d.endpoint}
    d.carry_out(d.node.stop(internet.now))
    internet.run(0.1)
    assert a.disk == (b.endpoint,)


def test_a_peer_cannot_make_keys_without_end(internet: Internet) -> None:
    """Handshakes inside a session have a budget, and few of the keys that they make are kept."""
    a, b = pair(internet)
    for _ in range(60):
        session = a.session(b)
        assert session is not None
        a.node.dials.start(b.endpoint, internet.now, target=b.identity.node_id)
        a.tick()
        internet.run(0.05)
    theirs = b.session(a)
    assert theirs is not None
    assert len(theirs.older) <= bounds.MAX_OLD_KEYS
    assert b.established(a)
    assert b.counters["carried_over_budget"] > 20
