"""Several workers a node on the virtual clock: lanes, deaths, roaming, and a control plane that stands still."""

from __future__ import annotations

from itertools import count

import pytest

from tests.dataplane.kernels import KERNELS
from tests.sim.internet import Host, Internet
from tunrouter.core import seam, wire
from tunrouter.core.states import State

identities = count(1)


def joined(workers_a: int, workers_b: int, *, seed: int = 1, settle: float = 15.0) -> tuple[Internet, Host, Host]:
    internet = Internet(seed)
    a, b = internet.host("a", 1, workers=workers_a), internet.host("b", 2, workers=workers_b)
    a.connect(b)
    internet.until(lambda: a.established(b) and b.established(a), 5)
    internet.run(settle)
    return internet, a, b


PACKET = 20 + 4
PACKET_BYTES = wire.OVERHEAD + PACKET
"""Of a datagram with one of `crossing`'s packets."""


def crossing(internet: Internet, sender: Host, receiver: Host, flows: int = 12, seconds: float = 0.1) -> int:
    """How many of so many flows' packets arrive."""
    payloads = [next(identities).to_bytes(4, "big") for _ in range(flows)]
    for payload in payloads:
        sender.send(str(receiver.block.network_address + 2), payload)
    internet.run(seconds)
    return len(set(payloads) & set(receiver.payloads))


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (1, 2), (2, 2), (3, 2), (5, 3)])
def test_every_lane_carries_packets_to_the_worker_that_opens_it(ours: int, theirs: int) -> None:
    internet, a, b = joined(ours, theirs)
    start = len(internet.wire)
    assert crossing(internet, a, b) == crossing(internet, b, a) == 12
    for sender, receiver in ((a, b), (b, a)):
        sent = [datagram for source, _, datagram in internet.wire[start:] if source == sender.endpoint]
        data = [datagram for datagram in sent if datagram[0] == wire.DATA and len(datagram) == PACKET_BYTES]
        indices = {int.from_bytes(datagram[4:8], "big") for datagram in data}
        assert len(indices) == sender.workers
        assert len({index % receiver.workers for index in indices}) == min(sender.workers, receiver.workers)
    assert (a.counters["drop_unknown_index"], b.counters["drop_unknown_index"]) == (0, 0)


def test_a_session_has_the_traffic_of_all_its_workers() -> None:
    internet, a, b = joined(3, 2)
    crossing(internet, a, b)
    internet.run(2)
    session, mirror = a.session(b), b.session(a)
    assert session is not None
    assert mirror is not None
    assert session.traffic()[0] == mirror.traffic()[2] == 12


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_byte_is_counted_also_on_keys_that_are_gone(kernel: str) -> None:
    """Keys are renewed in time, and given up while packets of this very moment passed on them."""
    internet = Internet(kernel=kernel)
    a, b = internet.host("a", 1, workers=3), internet.host("b", 2, workers=2)
    a.connect(b)
    sent = 0
    for _ in range(3):
        internet.until(lambda: a.established(b) and b.established(a), 5)
        for _ in range(8):
            internet.run(16.0)
            sent += crossing(internet, a, b)
            crossing(internet, b, a)
        sent += crossing(internet, a, b)
        crossing(internet, b, a, seconds=0.0)
        b.carry_out(b.node.stop(internet.now))
        internet.run(0.1)
        assert not a.established(b)
        b.kill()
        b.boot(a)
    internet.run(1)
    session = a.session(b)
    assert session is not None
    received = len(a.payloads)
    assert (sent, received) == (3 * 9 * 12, 3 * 9 * 12)
    passed = sent, sent * PACKET, received, received * PACKET
    assert session.traffic() == passed
    assert a.node.tally.payload == passed
    assert len(a.node.peers.by_base._retired) == 0, "nobody is waited for"


def test_what_a_dead_worker_had_to_say_is_not_waited_for() -> None:
    internet, a, b = joined(2, 2)
    crossing(internet, a, b)
    a.lose_worker(0)
    internet.run(30)
    assert a.plane.shares._retired == {}
    assert len(a.node.peers.by_base._retired) == 0


@pytest.mark.parametrize("settle", [0.0, 3.0, 15.0])
@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_all_flows_are_back_soon_after_the_death_of_a_worker(ours: int, theirs: int, seed: int, settle: float) -> None:
    internet, a, b = joined(ours, theirs, seed=seed, settle=settle)
    for host in (a, b):
        for number in range(host.workers):
            host.lose_worker(number, replaced_after=0.3)
            internet.run(0.6)
            assert crossing(internet, a, b) == crossing(internet, b, a) == 12
            internet.run(settle)
    assert a.established(b)
    assert b.established(a)


def test_what_comes_for_a_dead_worker_waits_in_its_socket() -> None:
    internet, a, b = joined(1, 1)
    a.lose_worker(replaced_after=0.3)
    assert crossing(internet, b, a, seconds=0.0) == 0
    payload = b"waits"
    internet.at(0.1, lambda: b.send("10.32.1.2", payload))
    internet.run(1)
    # Sealed with keys that died with the worker it is lost, but what b seals with the next ones is not.
    assert crossing(internet, b, a) == 12


def test_packets_wait_in_the_newborn_until_the_keys_are_renewed() -> None:
    internet, a, b = joined(1, 1)
    a.lose_worker(replaced_after=0.0)
    internet.run(0.0)
    assert crossing(internet, a, b, seconds=0.5) == 12


def test_the_renewal_does_not_go_through_lanes_that_nobody_holds() -> None:
    internet, a, b = joined(1, 1)
    start = len(internet.wire)
    a.lose_worker(replaced_after=0.0)
    internet.run(0.0)
    assert len(internet.firsts(start)) == 1
    session = a.session(b)
    assert session is not None
    assert session.reason == ""
    keys = session.current
    internet.run(0.2)
    assert session.current is not keys
    assert a.established(b)


def test_surviving_lanes_carry_on_until_the_keys_are_renewed() -> None:
    internet, a, b = joined(2, 2)
    a.lose_worker(0, replaced_after=1.2)
    for _ in range(20):  # the kernel has spread a's flows over the queues that are left
        assert crossing(internet, a, b, seconds=0.05) == 12
    internet.run(0.5)
    assert crossing(internet, a, b) == crossing(internet, b, a) == 12


def test_a_worker_that_stays_away_costs_its_lanes_alone() -> None:
    internet, a, b = joined(2, 1)
    a.lose_worker(1, replaced_after=60.0)
    internet.run(10)
    assert crossing(internet, a, b) == 12
    internet.run(60)
    assert crossing(internet, a, b) == crossing(internet, b, a) == 12
    assert a.established(b)


@pytest.mark.parametrize("theirs", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 1])
def test_control_goes_on_through_whichever_worker_is_left(theirs: int, number: int) -> None:
    internet, a, b = joined(2, theirs)
    a.lose_worker(number, replaced_after=400.0)
    internet.run(1)
    before = [session.current for session in (a.session(b), b.session(a)) if session]
    for _ in range(20):
        internet.run(10)
        assert crossing(internet, a, b) == 12, "the kernel spreads them over the queues that are left"
    assert not any("too long" in line or "no answer" in line for line in a.log + b.log)
    after = [session.current for session in (a.session(b), b.session(a)) if session]
    assert not set(before) & set(after), "keys were renewed, too"


def test_both_ends_lose_their_worker_at_once() -> None:
    for seed in range(8):
        internet, a, b = joined(1, 1, seed=seed)
        a.lose_worker(replaced_after=0.3)
        b.lose_worker(replaced_after=0.3)
        internet.run(1.0)
        assert crossing(internet, a, b) == crossing(internet, b, a) == 12, seed


def test_a_newborn_does_not_seal_with_keys_of_the_dead() -> None:
    internet, a, b = joined(2, 2)
    seen = {bytes(d[:16]) for s, _, d in internet.wire if s == a.endpoint and d[0] == wire.DATA}
    start = len(internet.wire)
    for _ in range(3):
        for number in (0, 1):
            a.lose_worker(number)
            internet.run(0.5)
            crossing(internet, a, b)
    after = [bytes(d[:16]) for s, _, d in internet.wire[start:] if s == a.endpoint and d[0] == wire.DATA]
    assert len(after) == len(set(after))
    assert not seen & set(after)


def test_all_workers_follow_a_peer_that_one_of_them_heard_elsewhere() -> None:
    internet, a, b = joined(2, 2)
    b.move("192.0.2.77")
    internet.run(3)  # heartbeats go by one lane only
    assert crossing(internet, a, b) == 12


def test_counters_and_traffic_never_go_back() -> None:
    internet, a, b = joined(2, 1)
    before: dict[str, int] = {}
    sent = 0
    for step in range(12):
        crossing(internet, a, b)
        if step % 4 == 3:
            a.lose_worker(step // 4 % 2)
        internet.run(1.1)
        counters = a.node.worker_counters
        assert all(counters.get(name, 0) >= value for name, value in before.items())
        before = counters
        session = a.session(b)
        assert session is not None
        assert session.traffic()[0] >= sent
        sent = session.traffic()[0]
    assert before["datagrams_out"] > 12 * 12


# --- a control plane that stands still --------------------------------------------------------------------------------
@pytest.mark.parametrize("settle", [1.0, 15.0])
def test_a_stall_of_control_under_traffic_is_no_fall(settle: float) -> None:
    internet, a, b = joined(1, 1, settle=settle)
    internet.at(1.0, a.stall)
    internet.at(6.0, a.recover)
    session, mirror = a.session(b), b.session(a)
    assert session is not None
    assert mirror is not None
    for _ in range(100):
        assert crossing(internet, a, b, flows=1, seconds=0.05) == crossing(internet, b, a, flows=1, seconds=0.05) == 1
        assert mirror.state is not State.OPENING
        b.plane.report()
        b.settle()
    assert (session.state, mirror.state) == (State.ESTABLISHED, State.ESTABLISHED)
    assert (a.kernel_mtus, b.kernel_mtus) == ({}, {})
    assert not any("no answer" in line or "MTU" in line for line in a.log + b.log)


def test_a_black_hole_for_large_packets_is_found_as_soon_as_without_workers() -> None:
    internet, a, b = joined(1, 1)
    a.carry_out(a.node.forget(b.name, internet.now))
    internet.run(2)
    internet.fate = lambda rng, source, destination, data: [(0.0, data)] if len(data) + 28 <= 1300 else []
    start, since = len(internet.wire), internet.now
    while not a.kernel_mtus:
        a.send("10.32.2.2", b"x")
        b.send("10.32.1.2", b"x")
        internet.run(0.1)
        assert internet.now - since < 4
        for host in (a, b):
            host.plane.report()
            host.settle()
    assert list(a.kernel_mtus) == [b.block]
    # A small heartbeat goes beside each probe that follows a lost one: who answers it is no stalled peer.
    sent = [len(data) for source, _, data in internet.wire[start:] if source == a.endpoint]
    assert len([size for size in sent if size > 1400]) == 6
    assert len([size for size in sent if 38 <= size < 50]) >= 10


def test_used_reports_name_the_session_and_not_a_lane() -> None:
    internet, a, b = joined(2, 2)
    crossing(internet, a, b)
    a.plane.report()
    used = [message for message in a.plane.heard if isinstance(message, seam.Used)]
    session = a.session(b)
    assert session is not None
    assert session.current is not None
    assert {report.session for report in used} == {session.current.base}
