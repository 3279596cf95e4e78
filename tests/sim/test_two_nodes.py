"""Two whole nodes on a virtual clock: what a session does when the network, the other side or the operator errs."""

from __future__ import annotations

import random

import pytest

from tests.sim.internet import Host, Internet, lossy
from tunrouter.core import bounds, seam, wire
from tunrouter.core.states import State


def pair(internet: Internet, **options: object) -> tuple[Host, Host]:
    """a knows b; both have the same secret."""
    a, b = internet.host("a", 1, **options), internet.host("b", 2, **options)
    a.connect(b)
    internet.until(lambda: a.established(b) and b.established(a), 5)
    return a, b


@pytest.fixture
def internet() -> Internet:
    return Internet()


def reaches(internet: Internet, a: Host, b: Host, mark: bytes, seconds: float = 5.0) -> float:
    """Sends a's packet again and again until b's pod has it; how long that took."""
    target = str(b.block.network_address + 2)

    def arrived() -> bool:
        if mark in b.payloads:
            return True
        a.send(target, mark)
        return mark in b.payloads

    return internet.until(arrived, seconds)


def test_one_round_trip_and_a_half_opens_a_session(internet: Internet) -> None:
    a, b = internet.host("a", 1), internet.host("b", 2)
    a.connect(b)
    assert internet.until(lambda: b.established(a), 1) <= 0.03
    a.send("10.32.2.2", b"hello")
    b.send("10.32.1.2", b"back")
    internet.run(0.1)
    assert b.payloads == [b"hello"]
    assert a.payloads == [b"back"]


def test_packets_wait_for_the_session_and_keep_their_order(internet: Internet) -> None:
    a, b = pair(internet)
    b.kill()
    internet.run(bounds.DEAD_SECONDS + 1)
    for number in range(bounds.MAX_WAITING + 5):
        a.send("10.32.2.2", b"%d" % number)
    b.boot()
    internet.run(6)
    assert b.payloads == [b"%d" % number for number in range(5, bounds.MAX_WAITING + 5)]
    assert a.counters["drop_queue_full"] == 5


def test_simultaneous_open_ends_with_one_session_on_both_sides(internet: Internet) -> None:
    for seed in range(20):
        world = Internet(seed)
        a, b = world.host("a", 1), world.host("b", 2)
        a.connect(b)
        b.connect(a)
        world.run(1)
        for host, peer in ((a, b), (b, a)):
            lower = host.identity.node_id < peer.identity.node_id
            assert host.session(peer).current.ours == lower  # type: ignore[union-attr]
        for number in range(50):
            a.send("10.32.2.2", b"a%d" % number)
            b.send("10.32.1.2", b"b%d" % number)
        world.run(30)
        assert len(a.payloads) == len(b.payloads) == 50
        ours, theirs = a.session(b), b.session(a)
        assert ours is not None
        assert theirs is not None
        assert ours.current is not None
        assert theirs.current is not None
        assert ours.current.ours != theirs.current.ours, "both ends seal with the keys of one handshake"
        assert not ours.older
        assert not theirs.older
        assert len(world.firsts()) == 2


def test_keys_are_renewed_under_traffic_without_a_loss(internet: Internet) -> None:
    a, b = pair(internet)
    first = a.session(b).current  # type: ignore[union-attr]
    for number in range(2000):
        a.send("10.32.2.2", b"%d" % number)
        b.send("10.32.1.2", b"%d" % number)
        internet.run(0.2)
    assert b.payloads == a.payloads == [b"%d" % number for number in range(2000)]
    assert a.session(b).current is not first  # type: ignore[union-attr]
    assert a.node.local.next_sequence() <= 6, "400 s need three renewals, not a storm"


def test_the_other_side_restarts(internet: Internet) -> None:
    a, b = pair(internet)
    a.send("10.32.2.2", b"before")
    internet.run(3)
    b.kill()
    internet.run(0.4)
    b.boot()  # without targets: what it remembered on disk is tried at once
    assert reaches(internet, a, b, b"after") < 0.3


def test_a_restart_without_memory_is_noticed_by_the_other_side(internet: Internet) -> None:
    a, b = pair(internet)
    b.kill()
    internet.run(0.4)
    b.disk = ()
    b.boot()
    assert reaches(internet, a, b, b"after") < 2.5


def test_roaming_follows_the_newest_authentic_packet(internet: Internet) -> None:
    a, b = pair(internet)
    a.move("192.0.2.77")
    a.send("10.32.2.2", b"from elsewhere")
    internet.run(0.02)
    b.send("10.32.1.2", b"found you")
    internet.run(0.1)
    assert a.payloads == [b"found you"]
    assert b.session(a).endpoint == ("192.0.2.77", 6783)  # type: ignore[union-attr]


def test_an_idle_session_closes_and_the_next_packet_opens_it_again(internet: Internet) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS + 10)
    assert a.session(b).state is State.CLOSED  # type: ignore[union-attr]
    assert b.session(a).state is State.CLOSED  # type: ignore[union-attr]
    quiet = len(internet.wire)
    internet.run(300)
    assert len(internet.wire) == quiet, "a closed session costs nothing"
    b.send("10.32.1.2", b"wake up")
    internet.run(1)
    assert a.payloads == [b"wake up"]


def test_a_kept_session_stays_open(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(3 * bounds.IDLE_CLOSE_SECONDS)
    assert a.established(b)
    assert b.established(a)
    assert not [line for line in a.log + b.log if "no answer" in line or "suspect" in line]


def test_a_dead_peer_is_declared_dead_in_time_and_dialled_for_ever(internet: Internet) -> None:
    a, b = pair(internet)
    b.kill()
    took = internet.until(lambda: not a.established(b), 10)
    assert took <= bounds.DEAD_SECONDS + 1.1
    internet.run(3600)
    assert a.connections()[0].state == "retrying"
    b.boot()
    internet.until(lambda: a.established(b), 7)


def test_a_goodbye_is_heard_at_once(internet: Internet) -> None:
    a, b = pair(internet)
    b.carry_out(b.node.stop(internet.now))
    b.kill()
    internet.until(lambda: not a.established(b), 0.1)


def test_a_lost_confirmation_of_new_keys_holds_nothing_up(internet: Internet) -> None:
    a, b = pair(internet)
    first = a.session(b).current  # type: ignore[union-attr]
    lost: list[bytes] = []

    def fate(
        rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
    ) -> list[tuple[float, bytes]]:
        confirmation = source == a.endpoint and data[0] == wire.DATA and 280 < len(data) < 420
        if confirmation and a.session(b).current is not first and len(lost) < 2:  # type: ignore[union-attr]
            lost.append(data)
            return []
        return [(0.0, data)]

    internet.fate = fate
    internet.until(lambda: bool(lost), 200)
    a.send("10.32.2.2", b"not held up")
    internet.run(0.01)
    assert b.payloads == [b"not held up"]
    internet.run(3)
    assert a.node.local.next_sequence() == 3
    a.send("10.32.2.2", b"on new keys")
    internet.run(0.1)
    assert b.payloads[1:] == [b"on new keys"]


def test_the_same_first_message_is_repeated_while_it_is_young(internet: Internet) -> None:
    a, b = internet.host("a", 1), internet.host("b", 2)
    b.kill()
    a.connect(b)
    internet.run(4)
    assert len(internet.firsts()) >= 3
    assert len(set(internet.firsts())) == 1
    internet.run(10)
    assert len(set(internet.firsts())) > 1


def test_a_slow_answer_to_any_copy_counts(internet: Internet) -> None:
    internet.delay = 0.8
    a, b = internet.host("a", 1), internet.host("b", 2)
    a.connect(b)
    internet.until(lambda: a.established(b) and b.established(a), 4)
    assert len(set(internet.firsts())) == 1


def test_a_machine_set_up_anew_is_found_under_its_old_address(internet: Internet) -> None:
    a, b = pair(internet)
    b.kill()
    again = Host(internet, "b2", b.endpoint[0], "10.32.2.0/24")
    internet.until(lambda: a.established(again), 20)
    assert a.node.routes.conflicts == ()
    began = len(internet.wire)
    internet.run(60)
    assert not internet.firsts(began), "the old identity is not dialled at the new one's address"


def test_an_idle_session_is_not_judged_by_its_silence(internet: Internet) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(100)
    a.send("10.32.2.2", b"after a long silence")
    internet.run(3)
    assert not [line for line in a.log + b.log if "suspect" in line]


def test_who_was_stopped_accuses_nobody(internet: Internet) -> None:
    a, b = pair(internet)
    a.pause()
    internet.run(10)
    assert not b.established(a), "b sees that a is gone"
    a.log.clear()
    a.resume()
    internet.run(0.1)
    assert not [line for line in a.log if "too long" in line or "a while" in line]
    assert reaches(internet, a, b, b"back again", 2) < 2


# --- three distinct mismatches, at both ends -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ours", "theirs", "here", "there"),
    [
        (("one",), ("two",), "wrong password", "wrong password"),
        ((), ("two",), "peer requires a password", "peer has no password"),
        (("one",), (), "peer has no password", "peer requires a password"),
    ],
)
def test_mismatch_is_named_at_both_ends(
    internet: Internet, ours: tuple[str, ...], theirs: tuple[str, ...], here: str, there: str
) -> None:
    a = internet.host("a", 1, secrets=ours)
    b = internet.host("b", 2, secrets=theirs)
    c = internet.host("c", 3, secrets=theirs)
    c.connect(b)
    a.connect(b)
    internet.run(2)
    assert [(row.state, row.reason) for row in a.connections()] == [("failed", here)]
    refused = [row for row in b.connections() if not row.outbound and row.state == "failed"]
    assert [row.reason for row in refused] == [there]
    assert b.established(c), "others are not touched"
    a.send("10.32.2.2", b"never")
    internet.run(10)
    assert b.payloads == []


def test_silent_nodes_do_not_answer_strangers(internet: Internet) -> None:
    a, b = internet.host("a", 1, secrets=("one",)), internet.host("b", 2, secrets=("two",))
    b.node.local.silent = True
    a.connect(b)
    internet.run(5)
    assert [row.reason for row in a.connections()] == ["no answer"]
    assert not [1 for source, _, _ in internet.wire if source == b.endpoint]


def test_a_secret_is_rotated_without_an_outage(internet: Internet) -> None:
    a, b = pair(internet, secrets=("old",))
    for host, ring in ((a, ("old", "new")), (b, ("new", "old")), (a, ("new",)), (b, ("new",))):
        host.secrets = ring
        host.kill()
        host.boot(b if host is a else a)
        internet.run(3)
        a.send("10.32.2.2", repr(ring).encode())
        internet.run(0.1)
        assert b.payloads[-1:] == [repr(ring).encode()]


def test_networks_of_different_names_do_not_meet(internet: Internet) -> None:
    a, b = internet.host("a", 1, network="blue"), internet.host("b", 2, network="green")
    a.connect(b)
    internet.run(3)
    assert not a.established(b)


def test_connecting_to_oneself_is_named(internet: Internet) -> None:
    a = internet.host("a", 1)
    a.connect(a)
    internet.run(3)
    assert [(row.state, row.reason) for row in a.connections()] == [("failed", "cannot connect to ourself")]
    assert not a.node.sessions


def test_a_cloned_identity_is_an_alarm(internet: Internet) -> None:
    a = internet.host("a", 1, seed=7)
    b = internet.host("b", 2, seed=7)
    b.incarnation += 5
    b.kill()
    b.boot(a)
    internet.run(3)
    assert any("cloned" in line for line in a.log)
    assert not a.node.sessions


# --- the seed repeats a run ------------------------------------------------------------------------------------------
def test_a_seed_repeats_a_run_exactly() -> None:
    def run(seed: int) -> list[tuple[seam.Endpoint, seam.Endpoint, bytes]]:
        internet = Internet(seed)
        internet.fate = lossy(0.2)
        a, b = internet.host("a", 1), internet.host("b", 2)
        a.connect(b)
        internet.run(30)
        return internet.wire

    assert run(3) == run(3)
    assert run(3) != run(4)
