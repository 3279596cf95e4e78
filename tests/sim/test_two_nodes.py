"""Two whole nodes on a virtual clock: what a session does when the network, the other side or the operator errs."""

from __future__ import annotations

import random

import pytest

from tests.sim.internet import Host, Internet, corrupted, lossy, no_larger_than, one_way, reordered, twice
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
        confirmation = source == a.endpoint and data[0] == wire.DATA and 140 < len(data) < 220
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


# --- a bad network ---------------------------------------------------------------------------------------------------
def test_loss_of_a_third_delays_but_does_not_prevent(internet: Internet) -> None:
    internet.fate = lossy(0.3)
    a, b = internet.host("a", 1), internet.host("b", 2)
    a.connect(b)
    internet.until(lambda: a.established(b) and b.established(a), 20)
    internet.run(600)
    assert reaches(internet, a, b, b"through", 10) < 10


def test_ten_percent_loss_declares_nobody_dead() -> None:
    for seed in range(5):
        internet = Internet(seed)
        a, b = pair(internet)
        internet.fate = lossy(0.1)
        internet.run(300)
        assert a.established(b)
        assert not [line for line in a.log + b.log if "too long" in line]


def test_duplicates_reach_nobody_twice(internet: Internet) -> None:
    internet.fate = twice
    a, b = pair(internet)
    for number in range(500):
        a.send("10.32.2.2", b"%d" % number)
        internet.run(0.01)
    assert b.payloads == [b"%d" % number for number in range(500)]


def test_reordering_inside_the_window_loses_nothing(internet: Internet) -> None:
    a, b = pair(internet)
    internet.fate = reordered(0.25, 0.2)
    for number in range(2000):
        a.send("10.32.2.2", b"%d" % number)
        internet.run(0.001)
    internet.run(1)
    assert sorted(b.payloads, key=int) == [b"%d" % number for number in range(2000)]
    assert b.counters["drop_replay"] == 0


def test_every_spoilt_datagram_is_rejected_and_counted(internet: Internet) -> None:
    a, b = pair(internet)
    internet.fate = corrupted(0.2)
    for number in range(500):
        a.send("10.32.2.2", b"payload %d" % number)
        internet.run(0.01)
    internet.fate = lambda rng, source, destination, data: [(0.0, data)]
    internet.run(2)
    assert set(b.payloads) <= {b"payload %d" % number for number in range(500)}
    assert 300 < len(b.payloads) < 480
    assert a.established(b)


@pytest.mark.parametrize("seed", range(30))
def test_everything_at_once_heals(seed: int) -> None:
    internet = Internet(seed)
    a, b = internet.host("a", 1), internet.host("b", 2)
    a.connect(b)
    b.connect(a)

    def fate(rng: random.Random, *datagram: object) -> list[tuple[float, bytes]]:
        arrivals = lossy(0.2)(rng, *datagram)  # type: ignore[arg-type]
        return [(delay + rng.uniform(0, 0.3), copy) for delay, copy in arrivals for _ in range(rng.choice((1, 1, 2)))]

    internet.fate = fate
    for _ in range(6):
        internet.run(internet.rng.uniform(1, 40))
        victim = internet.rng.choice((a, b))
        victim.kill()
        internet.run(internet.rng.uniform(0, 5))
        victim.boot(b if victim is a else a)
    internet.fate = lambda rng, source, destination, data: [(0.0, data)]
    internet.run(10)
    assert reaches(internet, a, b, b"a to b", 1) < 1
    assert reaches(internet, b, a, b"b to a", 1) < 1
    assert len(a.node.half_open) == len(b.node.half_open) == 0


# --- strangers and liars ---------------------------------------------------------------------------------------------
def test_no_bit_of_a_handshake_can_be_flipped() -> None:
    internet = Internet()
    pair(internet)
    recorded = [(s, d, data) for s, d, data in internet.wire if data[0] in (wire.FIRST, wire.ANSWER)][:2]
    for which, (_, _, data) in enumerate(recorded):
        for bit in range(0, len(data) * 8, 7):
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


# --- path MTU --------------------------------------------------------------------------------------------------------
def test_a_silently_smaller_hop_is_found_and_told_to_the_kernel(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(5)
    assert a.kernel_mtus == {}
    internet.fate = no_larger_than(1300)
    started = internet.now

    def small() -> bool:
        a.send("10.32.2.2", b"traffic")
        return a.kernel_mtus.get(b.block) == 1280 - 61

    internet.until(small, 5)
    assert internet.now - started <= 3
    assert a.established(b)
    internet.fate = lambda rng, source, destination, data: [(0.0, data)]
    internet.run(bounds.PATH_MTU_RAISE_SECONDS + 10)
    assert a.kernel_mtus == {}


def test_a_path_that_is_small_from_the_start(internet: Internet) -> None:
    internet.fate = no_larger_than(1400)
    a, b = pair(internet)
    internet.run(2)
    assert a.kernel_mtus == {b.block: 1400 - 61}
    assert b.kernel_mtus == {a.block: 1400 - 61}


def test_a_new_path_after_roaming_is_tested_at_once(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(6)
    internet.fate = no_larger_than(1300)
    a.move("192.0.2.77")
    internet.until(lambda: b.kernel_mtus.get(a.block) == 1280 - 61, 3.5)


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
