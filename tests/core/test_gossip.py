"""Spreading: floods, losses, rounds of digests, and neighbours that mean no good."""

from __future__ import annotations

import pytest

from tests.core.villages import Village, Villager, body, local
from tunrouter.core import bounds, record, wire
from tunrouter.core.record import Block, BlocksBody, Link, LinksBody, Record
from tunrouter.errors import ProtocolError


def announced(village: Village) -> None:
    for number, villager in enumerate(village.people.values()):
        villager.gossip.announce(body(number))


def settled(village: Village, seconds: float = 60.0) -> Village:
    announced(village)
    village.until_equal(seconds)
    village.run(5.0)
    return village


@pytest.mark.parametrize(("loss", "seconds"), [(0.0, 0.4), pytest.param(0.1, 0.6, marks=pytest.mark.soak)])
def test_a_change_floods(loss: float, seconds: float) -> None:
    village = settled(Village(100, loss=loss))
    before = village.messages
    next(iter(village.people.values())).gossip.announce(body(77))
    assert village.until_equal(2.0) <= seconds
    village.run(1.5)
    assert village.messages - before < 100 * 12


def test_a_message_that_is_lost_comes_again() -> None:
    village = settled(Village(2))
    one, other = village.people.values()
    village.cut = lambda source, target: source == one.id
    one.gossip.announce(body(5))
    village.run(0.3)
    assert one.view != other.view
    village.cut = lambda source, target: False
    assert village.until_equal(5.0) < 2 * bounds.GOSSIP_RETRY_SECONDS


@pytest.mark.parametrize("way", [0.3, 0.7, 3.0])
def test_on_a_slow_path_news_is_not_said_for_ever(way: float) -> None:
    """An acknowledgement that takes longer than the first patience is one all the same."""
    village = settled(Village(2))
    village.delay = (way, way)
    one, _ = village.people.values()
    for number in range(40):
        one.gossip.announce(body(number))
        village.run(0.1)
    village.until_equal(10.0)
    village.run(30.0)
    before = village.messages
    village.run(10.0)
    assert village.messages - before <= 4, "a round of digests at most"


def test_news_for_a_slow_path_with_a_full_window_comes_to_its_end() -> None:
    village = settled(Village(2))
    village.delay = (3.0, 3.0)
    one, other = village.people.values()
    for seed in range(1000, 1400):
        one.gossip.own_word(local(seed).id, foreign(seed).data)
    village.until_equal(120.0)
    village.run(60.0)
    assert not one.gossip.neighbours[other.id].flight
    assert not one.gossip.neighbours[other.id].queue


def test_many_acknowledgements_leave_room_for_the_largest_record() -> None:
    village = settled(Village(2))
    one, other = village.people.values()
    neighbour = one.gossip.neighbours[other.id]
    neighbour.acks = list(range(0x7000_0000, 0x7000_0000 + bounds.GOSSIP_ACKS))
    links = LinksBody(tuple(Link((1 << 63) + number, 3) for number in range(bounds.MAX_LINKS)))
    one.gossip.announce(links)
    village.run(0.2)
    assert one.view == other.view


def test_acknowledged_news_is_not_said_again() -> None:
    village = settled(Village(2))
    one, other = village.people.values()
    before = village.messages
    one.gossip.announce(body(5))
    village.run(2.0)
    assert village.messages - before == 2  # it, and its acknowledgement
    assert not one.gossip.neighbours[other.id].flight


def test_copies_that_cross_acknowledge_each_other() -> None:
    village = settled(Village(3))
    one, two, three = village.people.values()
    before = village.messages
    village.part(two.id, three.id)
    village.befriend(two.id, three.id)
    village.run(5.0)
    before = village.messages
    one.gossip.announce(body(5))
    village.run(5.0)
    assert village.until_equal(0.1) == 0.0
    assert village.messages - before <= 6
    assert not any(n.flight for v in village.people.values() for n in v.gossip.neighbours.values())


def test_only_the_newest_version_waits_for_a_neighbour() -> None:
    village = settled(Village(2))
    one, other = village.people.values()
    for version in range(100, 120):
        one.gossip.announce(body(version))
    before = village.messages
    village.run(2.0)
    assert one.view == other.view
    assert village.messages - before == 2


def test_a_newcomer_gets_all_by_one_neighbour_even_with_loss() -> None:
    village = settled(Village(60))
    village.loss = 0.1
    old = next(iter(village.people))
    newcomer = village.add(1000)
    newcomer.gossip.announce(body(9))
    village.befriend(old, newcomer.id)
    assert village.until_equal(60.0) < 40
    assert len(newcomer.view) == 61


def test_halves_that_meet_again_find_out_what_they_missed() -> None:
    village = settled(Village(40, seed=3))
    half = set(list(village.people)[:20])
    village.cut = lambda source, target: (source in half) != (target in half)
    links = [(a, b) for a, v in village.people.items() for b in v.gossip.neighbours if a in half and b not in half]
    for link in links:
        village.part(*link)
    for number, villager in enumerate(village.people.values()):
        villager.gossip.announce(body(1000 + number))
    village.run(5.0)
    assert len({villager.view for villager in village.people.values()}) == 2
    village.cut = lambda source, target: False
    village.befriend(*links[0])
    assert village.until_equal(40.0) < 3


def test_what_the_flood_missed_is_found_within_a_round() -> None:
    village = settled(Village(2))
    one, other = village.people.values()
    one.gossip.announce(body(5))
    one.gossip.neighbours[other.id].queue.clear()
    assert village.until_equal(40.0) <= bounds.GOSSIP_ROUND_SECONDS * (1 + bounds.RETRY_JITTER) + 1


def test_a_life_that_forgot_its_sequence_wins_by_its_incarnation() -> None:
    village = settled(Village(5, degree=4))
    first = next(iter(village.people.values()))
    neighbours = list(first.gossip.neighbours)
    for node in neighbours:
        village.part(first.id, node)
    again = village.add(first.seed, incarnation=2)
    again.gossip.announce(body(4242))
    for node in neighbours:
        village.befriend(again.id, node)
    village.until_equal(40.0)
    held = next(iter(village.people.values())).gossip.replica.get(again.id, record.BLOCKS)
    assert held is not None
    assert held.incarnation == 2


# --- neighbours that mean no good -------------------------------------------------------------------------------------
def pair() -> tuple[Village, Villager, Villager]:
    village = settled(Village(2))
    victim, bad = village.people.values()
    return village, victim, bad


def hear(village: Village, victim: Villager, bad: Villager, *records: bytes) -> list[Record]:
    return victim.gossip.hear(bad.id, wire.Records((), 7, records), village.now)


def foreign(seed: int, sequence: int = 1) -> Record:
    return record.write(local(seed).identity, 1, sequence, body(seed))


def test_forged_records_are_counted_and_not_passed_on() -> None:
    village, victim, bad = pair()
    data = bytearray(foreign(77).data)
    data[-70] ^= 1
    before = victim.view
    try:
        record.read(bytes(data))
    except Exception:
        data = bytearray(foreign(77).data)
        data[-1] ^= 1
    assert hear(village, victim, bad, bytes(data)) == []
    assert victim.out.counters["gossip_forged"] == 1
    assert victim.view == before


def test_malformed_and_oversize_records_are_counted() -> None:
    village, victim, bad = pair()
    oversize = foreign(77).data.ljust(bounds.MAX_RECORD_BYTES + 1, b"x")
    assert hear(village, victim, bad, b"", b"\x03", oversize, foreign(78).data) != []
    assert victim.out.counters["gossip_malformed"] == 3


def test_a_record_that_names_a_block_twice_is_none() -> None:
    once = Block("10.32.9.0/24", 0)
    with pytest.raises(ProtocolError, match="one twice"):
        record.write(local(77).identity, 1, 1, BlocksBody((once, Block(once.network, 1))))


def test_an_author_that_never_rests_is_held_back() -> None:
    village, victim, bad = pair()
    taken = sum(bool(hear(village, victim, bad, foreign(77, sequence).data)) for sequence in range(1, 500))
    assert taken == bounds.AUTHOR_RECORDS_BURST
    assert victim.out.counters["gossip_author_over_budget"] == 499 - taken
    village.now += 1.0
    assert hear(village, victim, bad, foreign(77, 1000).data)


def test_a_neighbour_that_brings_too_much_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "GOSSIP_RECORDS_BURST", 50)
    village, victim, bad = pair()
    taken = sum(bool(hear(village, victim, bad, foreign(seed).data)) for seed in range(1000, 1200))
    assert taken < 50 + 2
    assert victim.out.counters["gossip_over_budget"] == 200 - taken


def test_a_full_replica_takes_no_more_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    village, victim, bad = pair()
    monkeypatch.setattr(bounds, "MAX_PEERS", 12)
    for seed in range(1000, 1100):
        hear(village, victim, bad, foreign(seed).data)
    assert len(victim.gossip.replica.nodes) == 12
    assert victim.out.counters["gossip_full"] == 90
    assert hear(village, victim, bad, foreign(1000, 2).data)


def test_questions_cost() -> None:
    village, victim, bad = pair()
    before = village.messages
    for _ in range(bounds.GOSSIP_QUESTIONS_PER_SECOND + 500):
        victim.gossip.hear(bad.id, wire.Have(0, (1 << 64) - 1, b"", answer=True), village.now)
    assert village.messages == before
    assert victim.out.counters["gossip_over_budget"] > 400


def test_strangers_are_not_heard() -> None:
    village, victim, _ = pair()
    assert victim.gossip.hear(424242, wire.Records((), 1, (foreign(5).data,)), village.now) == []
    assert victim.out.counters["gossip_of_no_neighbour"] == 1


def test_a_clone_of_this_node_is_an_alarm() -> None:
    village, victim, bad = pair()
    clone = record.write(victim.local.identity, 99, 1, body(3))
    assert hear(village, victim, bad, clone.data) == []
    assert victim.gossip.usurper == 99
