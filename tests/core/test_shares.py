"""Several workers as one data plane: who is told what, and totals that survive deaths."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunrouter.core import bounds, seam
from tunrouter.core.seam import ToWorker
from tunrouter.core.shares import UNCARRIED, Shares

PEER = 7
HERE = ("192.0.2.7", 6783)


def lanes(count: int) -> tuple[seam.Lane, ...]:
    return tuple(seam.Lane(n, bytes([n]) * 32, bytes(8), bytes([n]) * 32, bytes(8)) for n in range(count))


def install(session: int = 128, count: int = 4) -> seam.Install:
    return seam.Install(session, PEER, 9999, lanes(count), HERE, 180.0, sealed=True)


def started(workers: int) -> Shares:
    shares = Shares(workers)
    for worker in range(workers):
        assert shares.joined(worker) == []
    return shares


def used(session: int, packets: int, at: float) -> seam.Used:
    return seam.Used(session, packets, packets * 10, packets * 2, packets * 20, at, at + 1)


def last(session: int, packets: int) -> seam.Retired:
    return seam.Retired(session, packets, packets * 10, packets * 2, packets * 20)


# --- outward ----------------------------------------------------------------------------------------------------------
@given(st.integers(1, 8), st.integers(1, bounds.MAX_WORKERS))
def test_each_lane_goes_to_the_worker_of_its_number_and_to_no_other(workers: int, count: int) -> None:
    shares = started(workers)
    told = shares.split(install(count=count))
    given_out = [(worker, lane) for worker, part in told if isinstance(part, seam.Install) for lane in part.lanes]
    assert sorted(lane.number for _, lane in given_out) == list(range(count))
    assert all(lane.number % workers == worker for worker, lane in given_out)
    assert all(part.lanes for _, part in told if isinstance(part, seam.Install))
    assert len(told) == min(workers, count)


def test_a_session_is_the_business_of_its_holders() -> None:
    shares = started(3)
    shares.split(install(count=2))
    assert shares.split(seam.Deliver(128)) == [(0, seam.Deliver(128)), (1, seam.Deliver(128))]
    assert [worker for worker, _ in shares.split(seam.Use(PEER, 128))] == [0, 1]
    assert [worker for worker, _ in shares.split(seam.SendControl(128, b""))] == [0]
    assert [worker for worker, _ in shares.split(seam.Retire(128))] == [0, 1]
    for message in (seam.Deliver(128), seam.Use(PEER, 128), seam.Retire(128), seam.Deliver(5)):
        assert shares.split(message) == []


def test_tables_are_everybodys_and_raw_datagrams_go_once() -> None:
    shares = started(3)
    tables: list[ToWorker] = [seam.Route(b"\n\0\0\0", 8, PEER), seam.PathMtu(PEER, 1200), seam.Known(("192.0.2.7",))]
    for message in tables:
        assert shares.split(message) == [(worker, message) for worker in range(3)]
    assert len(shares.split(seam.SendRaw(HERE, b"x"))) == 1
    shares.lost(0)
    assert [worker for worker, _ in shares.split(seam.SendRaw(HERE, b"x"))] == [1]


def test_control_speaks_through_who_has_started_and_best_through_whom_the_peer_spoke_to() -> None:
    """A newborn reads nothing for a while, and what the peer's control says comes to a worker that the peer reaches."""
    shares = started(3)
    body, datagram = seam.SendControl(128, b""), seam.SendRaw(HERE, b"x")
    for worker in range(3):
        shares.ready(worker)
    shares.lost(0)
    shares.joined(0)
    shares.split(install(128, 3))
    assert [worker for worker, _ in shares.split(body)] == [1]
    assert [worker for worker, _ in shares.split(datagram)] == [1]
    shares.merge(2, seam.Control(128, HERE, b"", 40))
    assert [worker for worker, _ in shares.split(body)] == [2]
    shares.lost(2)
    assert [worker for worker, _ in shares.split(body)] == [1]
    shares.lost(1)
    assert [worker for worker, _ in shares.split(body)] == [0], "better late than never"
    assert [worker for worker, _ in shares.split(datagram)] == [0]
    shares.ready(0)
    shares.joined(2)
    shares.split(install(256, 3))
    shares.merge(2, seam.Control(256, HERE, b"", 40))
    assert [worker for worker, _ in shares.split(seam.SendControl(256, b""))] == [0], "it heard, but has not started"


def test_what_nobody_can_carry_is_counted() -> None:
    shares = started(1)
    shares.split(install())
    shares.lost(0)
    assert shares.split(seam.SendRaw(HERE, b"x")) == []
    assert shares.split(seam.SendControl(128, b"x")) == []
    assert shares.split(seam.Deliver(128)) == []
    assert shares.counters == {UNCARRIED: 2}


# --- deaths -----------------------------------------------------------------------------------------------------------
def test_a_death_maims_the_sessions_it_held() -> None:
    shares = started(2)
    shares.split(install(128, 2))
    shares.split(install(256, 1))
    assert shares.maimed() == []
    shares.lost(0)
    assert shares.maimed() == [128, 256]
    assert shares.split(seam.SendControl(128, b"x")) == [(1, seam.SendControl(128, b"x"))]
    shares.joined(0)
    assert shares.maimed() == [128, 256], "the newborn has none of their lanes"
    assert shares.split(seam.SendControl(256, b"x")) == []
    shares.split(seam.Retire(128))
    assert shares.maimed() == [256]


def test_keys_installed_while_a_worker_is_away_are_maimed_from_the_start() -> None:
    shares = started(2)
    shares.lost(1)
    assert [worker for worker, _ in shares.split(install(128, 2))] == [0]
    assert shares.maimed() == [128]
    shares.lost(0)
    shares.split(install(256, 2))
    assert shares.maimed() == [128, 256]
    shares.joined(0)
    shares.joined(1)
    shares.split(install(384, 2))
    assert 384 not in shares.maimed()


def test_keys_are_given_out_once_whoever_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newborn does not know what its predecessor had, nor that there is no room: it would begin the counters anew."""
    shares = started(2)
    shares.split(install(128, 2))
    shares.lost(1)
    shares.joined(1)
    assert shares.split(install(128, 2)) == []
    monkeypatch.setattr(bounds, "MAX_SESSIONS", 1)
    assert shares.split(install(256, 2)) == []
    assert shares.counters == {"seam_refused": 2}


def test_a_newborn_is_told_state_and_never_keys() -> None:
    shares = started(2)
    route, other = seam.Route(b"\n\0\1\0", 24, PEER), seam.Route(b"\n\0\2\0", 24, PEER)
    for message in (route, other, seam.PathMtu(PEER, 1300), seam.PathMtu(PEER, 1200), seam.Known(("a",)), install()):
        shares.split(message)
    shares.split(seam.Unroute(b"\n\0\2\0", 24))
    shares.split(seam.Known(("b",)))
    shares.lost(1)
    assert shares.joined(1) == [route, seam.PathMtu(PEER, 1200), seam.Known(("b",))]


Prefix = st.sampled_from([bytes((10, 0, i, 0)) for i in range(4)])
Change = st.one_of(
    st.builds(seam.Route, Prefix, st.just(24), st.integers(1, 3)),
    st.builds(seam.Unroute, Prefix, st.just(24)),
    st.builds(seam.PathMtu, st.integers(1, 3), st.integers(1000, 1010)),
    st.builds(lambda name: seam.Known((name,)), st.text(max_size=2)),
)


def state_after(messages: list[ToWorker]) -> dict[object, object]:
    """What a worker knows that has obeyed these."""
    state: dict[object, object] = {}
    for message in messages:
        match message:
            case seam.Route(prefix, length, node):
                state[prefix, length] = node
            case seam.Unroute(prefix, length):
                state.pop((prefix, length), None)
            case seam.PathMtu(node, mtu):
                state[node] = mtu
            case seam.Known(addresses):
                state["known"] = addresses
    return state


@given(st.lists(Change, max_size=40), st.data())
def test_a_newborn_knows_what_the_others_know(changes: list[ToWorker], data: st.DataObject) -> None:
    shares = started(3)
    heard: dict[int, list[ToWorker]] = {0: [], 1: [], 2: []}
    for change in changes:
        for worker, message in shares.split(change):
            heard[worker].append(message)
        victim = data.draw(st.integers(0, 5))
        if victim < 3:
            shares.lost(victim)
            heard[victim] = shares.joined(victim)
    assert state_after(heard[0]) == state_after(heard[1]) == state_after(heard[2]) == state_after(changes)


def test_state_for_newborns_is_bounded() -> None:
    shares = started(1)
    for node in range(2 * bounds.MAX_PEERS + 100):
        shares.split(seam.PathMtu(node, 1200))
    shares.lost(0)
    told = shares.joined(0)
    assert len(told) == 2 * bounds.MAX_PEERS
    assert told[-1] == seam.PathMtu(2 * bounds.MAX_PEERS + 99, 1200)


# --- inward -----------------------------------------------------------------------------------------------------------
def test_reports_of_one_session_are_one_total() -> None:
    shares = started(2)
    shares.split(install(128, 2))
    assert shares.merge(0, used(128, 5, 10.0)) == used(128, 5, 10.0)
    assert shares.merge(1, used(128, 2, 20.0)) == used(128, 7, 20.0)
    assert shares.merge(0, used(128, 6, 30.0)) == used(128, 8, 30.0)
    shares.lost(0)
    assert shares.merge(1, used(128, 3, 25.0)) == used(128, 9, 30.0)
    shares.split(seam.Retire(128))
    assert shares.merge(1, used(128, 4, 25.0)) is None, "its last word follows"
    assert shares.merge(1, last(128, 5)) == last(128, 11)
    assert shares.merge(1, last(128, 5)) is None, "and is said once"


def test_all_of_a_session_have_the_last_word_or_are_dead() -> None:
    shares = started(3)
    shares.split(install(128, 3))
    shares.merge(2, used(128, 7, 1.0))
    shares.split(seam.Retire(128))
    assert shares.merge(0, last(128, 1)) is None
    assert shares.lost(2) == []
    assert shares.merge(1, last(128, 2)) == last(128, 10)
    shares.split(install(256, 3))
    shares.split(seam.Retire(256))
    shares.joined(2)
    assert shares.merge(0, last(256, 5)) is None
    assert shares.merge(1, last(256, 5)) == last(256, 10), "the newborn had nothing of that session"
    shares.split(install(384, 3))
    shares.split(seam.Retire(384))
    assert [shares.merge(worker, last(384, 5)) for worker in (0, 1)] == [None, None]
    assert shares.lost(2) == [last(384, 10)], "nobody is waited for who is dead"


def test_who_never_says_the_last_word_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_RETIRED", 10)
    shares = started(1)
    for session in range(12):
        shares.split(install(session))
        shares.split(seam.Retire(session))
    assert len(shares._retired) == 10
    assert [shares.merge(0, last(session, 5)) for session in (0, 1, 2)] == [None, None, last(2, 5)]


def test_the_rest_passes_as_it_is() -> None:
    shares = started(2)
    for message in (seam.Raw(HERE, b"x"), seam.Control(128, HERE, b"", 40), seam.Wanted(PEER), seam.TooBig(128, 1500)):
        assert shares.merge(1, message) is message


def test_the_other_holders_hear_where_a_session_moved() -> None:
    shares = started(3)
    shares.split(install(128, 2))
    there = ("192.0.2.99", 1)
    assert shares.follow(1, seam.Moved(128, there)) == [(0, seam.Move(128, there))]
    assert shares.follow(0, seam.Moved(5, there)) == []
    shares.lost(0)
    assert shares.follow(1, seam.Moved(128, there)) == []


def test_where_a_session_was_heard_moves_no_worker_off_the_relay() -> None:
    """The word of a worker may cross control's, that all goes by relay from now on, on its way."""
    shares = started(2)
    shares.split(install(128, 2))
    there, around = ("192.0.2.99", 1), seam.relayed(PEER)
    shares.split(seam.Move(128, around))
    assert shares.follow(1, seam.Moved(128, there)) == []
    shares.split(seam.Move(128, HERE))
    assert shares.follow(1, seam.Moved(128, there)) == [(0, seam.Move(128, there))]
    shares.split(msgspec.structs.replace(install(256, 2), endpoint=around))
    assert shares.follow(1, seam.Moved(256, there)) == []


Step = st.tuples(st.integers(0, 2), st.sampled_from(["count", "die"]), st.integers(0, 100))


@settings(max_examples=200)
@given(st.lists(Step, max_size=60))
def test_counters_are_exact_and_never_go_back(steps: list[tuple[int, str, int]]) -> None:
    shares = started(3)
    life: dict[int, Counter[str]] = {worker: Counter() for worker in range(3)}
    total: Counter[str] = Counter()
    for worker, what, more in steps:
        if what == "die":
            shares.lost(worker)
            shares.joined(worker)
            life[worker] = Counter()
        else:
            life[worker]["frames_in"] += more
            total["frames_in"] += more
            merged = shares.merge(worker, seam.Counters(dict(life[worker])))
            assert isinstance(merged, seam.Counters)
            assert merged.values == dict(total)
    assert shares.counters.get("frames_in", 0) == total["frames_in"]


def test_what_another_control_said_is_taken_back_unless_this_one_says_it_too() -> None:
    shares = started(2)
    routes = (bytes((10, 32, 1, 0)), 24), (bytes((10, 32, 2, 0)), 24)
    for worker in range(2):
        assert shares.merge(worker, seam.Inherited(sessions=(64,))) is None
        assert shares.merge(worker, seam.Inherited(routes=routes, hops=(5, 6))) is None
    shares.split(seam.Route(*routes[0], PEER))
    shares.split(seam.Hop(6, PEER))
    shares.lost(1)  # with it all that it was told
    assert shares.settled() == {0: [seam.Retire(64), seam.Unroute(*routes[1]), seam.Hop(5, 0)]}
    assert shares.settled() == {}


def test_a_will_goes_to_one_who_has_keys_for_it() -> None:
    shares = started(2)
    shares.split(install())
    assert shares.split(seam.Will(128, b"goodbye")) == [(0, seam.Will(128, b"goodbye"))]


def test_a_number_that_an_earlier_control_drew_is_taken_from_its_session_first() -> None:
    shares = started(2)
    for worker in range(2):
        shares.merge(worker, seam.Inherited(sessions=(64, 128)))
    told = shares.split(install())
    assert told[:2] == [(0, seam.Retire(128)), (1, seam.Retire(128))]
    assert [type(message) for _, message in told[2:]] == [seam.Install, seam.Install]
    assert shares.settled() == {0: [seam.Retire(64)], 1: [seam.Retire(64)]}
