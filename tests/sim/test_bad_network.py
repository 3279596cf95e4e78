"""A network that loses, repeats, reorders, spoils and shrinks: what is delayed by it, and what must not be."""

from __future__ import annotations

import random

import pytest

from tests.sim.internet import Host, Internet, corrupted, lossy, no_larger_than, reordered, twice
from tests.sim.test_two_nodes import pair, reaches
from tunrouter.core import bounds


@pytest.fixture
def internet() -> Internet:
    return Internet()


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


def shown_loss(host: Host) -> float | None:
    (row,) = host.connections()
    return row.loss


def test_both_ends_show_the_share_of_heartbeats_that_is_lost(internet: Internet) -> None:
    """One of ten lost each way: of a heartbeat and its answer 19 % do not arrive."""
    a, b = pair(internet)
    assert shown_loss(a) is None
    internet.run(30)
    assert shown_loss(a) == shown_loss(b) == 0.0
    internet.fate = lossy(0.1)
    internet.run(200)
    seen = []
    for _ in range(40):
        internet.run(40)
        seen += [shown_loss(a) or 0.0, shown_loss(b) or 0.0]
    assert sum(seen) / len(seen) == pytest.approx(0.19, abs=0.02)
    assert 0.08 < min(seen) <= max(seen) < 0.32
    internet.fate = lambda rng, source, destination, data: [(0.0, data)]
    internet.run(500)
    assert (shown_loss(a) or 0.0) < 0.01


def test_probes_that_are_too_large_for_the_path_are_no_loss(internet: Internet) -> None:
    internet.fate = no_larger_than(1300)
    a, b = pair(internet)
    internet.run(120)
    assert a.kernel_mtus == {b.block: 1280 - 61}
    assert shown_loss(a) == shown_loss(b) == 0.0


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


def test_a_packet_that_is_too_large_for_the_path_is_answered_with_the_paths_size(internet: Internet) -> None:
    internet.fate = no_larger_than(1300)
    a, b = pair(internet)
    internet.run(5)
    largest = 1280 - 61
    a.send("10.32.2.2", bytes(largest - 20))
    internet.run(0.1)
    assert [len(data) for data in b.received] == [largest]
    assert a.received == []
    a.send("10.32.2.2", bytes(largest - 19))
    (answer,) = a.received
    assert answer[20:22] == bytes((3, 4)), "ICMP: fragmentation needed"
    assert int.from_bytes(answer[26:28], "big") == largest
    internet.fate = lambda rng, source, destination, data: [(0.0, data)]
    internet.run(bounds.PATH_MTU_RAISE_SECONDS + 10)
    a.send("10.32.2.2", bytes(1376 - 20))
    internet.run(0.1)
    assert len(b.received[-1]) == 1376


def test_a_peer_that_was_forgotten_and_is_back_has_its_paths_size_again(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "FORGET_SECONDS", 20.0)
    internet.fate = no_larger_than(1300)
    a, b = pair(internet)
    internet.run(5)
    b.kill()
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS + 30)
    assert not a.node.sessions
    assert a.kernel_mtus == {}
    a.tick()
    b.boot(a)
    internet.until(lambda: a.kernel_mtus == {b.block: 1280 - 61}, 5)
    a.send("10.32.2.2", bytes(1300))
    assert len(a.received) == 1, "ICMP"


def test_a_new_path_after_roaming_is_tested_at_once(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(6)
    internet.fate = no_larger_than(1300)
    a.move("192.0.2.77")
    internet.until(lambda: b.kernel_mtus.get(a.block) == 1280 - 61, 3.5)
