"""Who decides about blocks: the first electors, more of them, others, and none that are there."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from tests.core.villages import local
from tests.sim.parliament import LENGTH, NETWORK, Parliament, Seat
from tunrouter.core import bounds
from tunrouter.core.electorate import Founding
from tunrouter.core.electors import Electors
from tunrouter.core.holdings import FIRST, cut
from tunrouter.core.journal import BlockRow
from tunrouter.core.leave import Left
from tunrouter.core.outbox import Refusal
from tunrouter.core.reclaim import Removed
from tunrouter.core.requests import Remove, SetElectors


def electors(parliament: Parliament) -> set[frozenset[int]]:
    """As all that live know them, by number."""
    numbers = {seat.id: seat.number for seat in parliament.all}
    known = {seat.allocator.electors.electors for seat in parliament.alive}
    return {frozenset(numbers[node] for node in nodes) for nodes in known}


def epochs(parliament: Parliament) -> set[int]:
    known = [seat.allocator.electors.configuration for seat in parliament.alive]
    return {configuration.epoch if configuration is not None else 0 for configuration in known}


def settle(parliament: Parliament, count: int, seconds: float = 20) -> frozenset[int]:
    """All agree on so many electors, and those serve."""

    def settled() -> bool:
        (nodes, *more) = electors(parliament)
        serving = {seat.number for seat in parliament.alive if seat.allocator.electors.serving}
        return not more and len(nodes) == count and serving == nodes & {seat.number for seat in parliament.alive}

    parliament.until(settled, seconds)
    (nodes,) = electors(parliament)
    return nodes


def number(parliament: Parliament, one: int) -> Seat:
    return next(seat for seat in parliament.all if seat.number == one)


def can_claim(parliament: Parliament, seat: Seat, seconds: float = 20) -> None:
    """Takes a block more, which only a majority of the electors can give."""
    before = len(seat.ipam.own)
    for one in range(14):
        seat.add(f"more {before} {one}")
    parliament.until(lambda: len(seat.ipam.own) > before, seconds)


def test_a_lone_node_has_a_block_at_once() -> None:
    parliament = Parliament(1)
    (seat,) = parliament.all
    assert parliament.until(lambda: bool(seat.ipam.announced), 1) < 0.5
    seat.add("a")
    parliament.until(lambda: "a" in seat.containers, 0.2)
    assert seat.containers["a"] == IPv4Address("10.32.0.2")


def test_what_places_are_places_of_is_on_disk_with_the_blocks_and_on_an_older_disk_when_they_are_confirmed() -> None:
    parliament = Parliament(1)
    (seat,) = parliament.all
    parliament.run(1)
    row = cut(NETWORK, LENGTH)
    assert seat.disk[row.key] == row
    seat.kill()
    del seat.disk[row.key]
    seat.boot()
    parliament.run(1)
    assert seat.disk[row.key] == row


def test_a_second_and_third_join_without_being_counted() -> None:
    parliament = Parliament(1)
    parliament.run(5)
    for one in (2, 3):
        seat = parliament.join(one)
        assert parliament.until(lambda seat=seat: bool(seat.ipam.announced), 3) < 2  # type: ignore[misc]
    assert len({seat.allocator.electors.cluster for seat in parliament.all}) == 1


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)])
def test_electors_grow_with_the_cluster_and_are_never_two(size: int, count: int) -> None:
    parliament = Parliament(size)
    settle(parliament, count)
    assert epochs(parliament) == {{1: 1, 3: 2, 5: 2}[count]}
    can_claim(parliament, parliament.all[-1])


def test_from_three_to_five_every_block_stays_whose_it_is() -> None:
    parliament = Parliament(3)
    settle(parliament, 3)
    for seat in parliament.all:
        can_claim(parliament, seat)
    before = parliament.chosen()
    for one in (4, 5):
        parliament.join(one)
    settle(parliament, 5)
    parliament.run(1)
    assert before.items() <= parliament.chosen().items()


def test_allocation_goes_on_while_electors_change() -> None:
    parliament = Parliament(3)
    parliament.run(3)
    for one in (4, 5):
        parliament.join(one)
    gaps = []
    for one in range(60):
        seat = parliament.all[one % 3]
        ticket = seat.add(f"c{one}")
        gaps.append(parliament.until(lambda seat=seat, ticket=ticket: ticket in seat.answers, 5, 0.01))  # type: ignore[misc]
        parliament.run(0.1)
    settle(parliament, 5)
    assert max(gaps) < 0.1


@pytest.mark.parametrize("dead", [1, 2])
def test_a_minority_of_electors_may_be_dead(dead: int) -> None:
    parliament = Parliament(7)
    nodes = settle(parliament, 5)
    for one in sorted(nodes)[:dead]:
        number(parliament, one).kill()
    parliament.run(5)
    can_claim(parliament, next(seat for seat in parliament.alive if seat.number not in nodes))


def test_without_a_majority_what_one_has_can_be_used_and_nothing_more() -> None:
    parliament = Parliament(5)
    settle(parliament, 5)
    for seat in parliament.all[:3]:
        seat.kill()
    parliament.run(5)
    seat = parliament.all[4]
    tickets = [seat.add(f"c{one}") for one in range(40)]
    parliament.run(bounds.ALLOCATE_SECONDS + bounds.CHANGE_SECONDS + 1)
    answers = [seat.answers[ticket] for ticket in tickets]
    given = [answer for answer in answers if isinstance(answer, IPv4Address)]
    assert len(given) == 13, "what a block has without gateway, network and broadcast"
    (refusal, *_) = [answer for answer in answers if isinstance(answer, Refusal)]
    assert "no quorum: 2 of 5 electors" in refusal.what


def test_an_elector_that_is_gone_for_long_is_replaced() -> None:
    parliament = Parliament(4)
    nodes = settle(parliament, 3)
    number(parliament, min(nodes)).kill()
    parliament.run(bounds.ELECTOR_LOST_SECONDS + 20)
    assert min(nodes) not in settle(parliament, 3)
    can_claim(parliament, parliament.alive[0])


def test_an_elector_without_its_disk_is_another_one() -> None:
    parliament = Parliament(3)
    nodes = settle(parliament, 3)
    seat = number(parliament, min(nodes))
    before = seat.allocator.electors.booth.own
    seat.kill()
    seat.lose_disk()
    seat.boot()
    assert seat.allocator.electors.booth.own != before
    settle(parliament, 3)
    assert epochs(parliament) == {3}
    can_claim(parliament, seat)


def test_electors_named_by_the_operator_stay() -> None:
    parliament = Parliament(7)
    settle(parliament, 5)
    wanted = {number(parliament, one).id for one in (2, 4, 6)}
    parliament.all[6].allocator.ask(SetElectors(1, tuple(wanted)), parliament.now)
    parliament.all[6].step()
    assert settle(parliament, 3) == {2, 4, 6}
    parliament.run(20)
    assert settle(parliament, 3) == {2, 4, 6}
    can_claim(parliament, parliament.all[0])


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8])
def test_whoever_prepares_an_epoch_may_die_at_any_moment(after: float) -> None:
    parliament = Parliament(3, seed=int(after * 100))
    settle(parliament, 3)
    for seat in parliament.all:
        can_claim(parliament, seat)
    before = parliament.chosen()
    for one in (4, 5):
        parliament.join(one)
    parliament.until(lambda: any(seat.allocator.electors.booth.registers.frozen for seat in parliament.all), 10, 0.01)
    leader = min((seat for seat in parliament.alive if seat.allocator.electors.serving), key=lambda seat: seat.id)
    parliament.run(after)
    leader.kill(written=1)
    parliament.run(15)
    leader.boot()
    settle(parliament, 5, 60)
    parliament.run(1)
    assert before.items() <= parliament.chosen().items()
    can_claim(parliament, leader)


# --- founding ---------------------------------------------------------------------------------------------------------
def test_a_majority_of_the_founders_is_enough() -> None:
    parliament = Parliament(3, foundings=lambda one: Founding(5))
    parliament.until(lambda: all(seat.ipam.announced for seat in parliament.all), 30)
    assert len({seat.allocator.electors.cluster for seat in parliament.all}) == 1


def test_a_minority_of_the_founders_founds_nothing() -> None:
    parliament = Parliament(2, foundings=lambda one: Founding(5))
    parliament.run(120)
    assert not any(seat.allocator.electors.cluster for seat in parliament.all)


def test_founders_that_cannot_see_each_other_found_one_cluster() -> None:
    parliament = Parliament(5, foundings=lambda one: Founding(5))
    parliament.partition({1: 1, 2: 1})
    parliament.run(60)
    parliament.heal()
    parliament.until(lambda: all(seat.ipam.announced for seat in parliament.all), 20)
    assert len({seat.allocator.electors.cluster for seat in parliament.all}) == 1


def test_those_who_are_named_decide() -> None:
    seed = ("n2", "n3", "n4")
    parliament = Parliament(6, foundings=lambda one: Founding(seed=seed))
    parliament.until(lambda: all(seat.ipam.announced for seat in parliament.all), 20)
    seat = parliament.all[0]
    configuration = seat.allocator.electors.configuration
    assert configuration is not None
    assert {local(2).id, local(3).id, local(4).id} <= configuration.nodes


def test_two_clusters_stay_two() -> None:
    parliament = Parliament(4, foundings=lambda one: Founding(1) if one in (1, 2) else None)
    parliament.partition({1: 0, 3: 0, 2: 1, 4: 1})
    # The partition came before they heard of each other.
    parliament.run(10)
    first, second = parliament.all[0].allocator.electors, parliament.all[1].allocator.electors
    assert first.cluster != second.cluster
    parliament.heal()
    parliament.run(10)
    assert first.cluster != second.cluster
    assert parliament.all[1].id in first.foreign
    assert first.foreign[parliament.all[1].id] == second.cluster
    for seat in parliament.all:
        can_claim(parliament, seat)


def removed_by(seat: Seat, ticket: int) -> Removed:
    answer = seat.answers[ticket]
    assert isinstance(answer, tuple)
    (removed,) = answer
    assert isinstance(removed, Removed)
    return removed


# --- removal ----------------------------------------------------------------------------------------------------------
def test_removed_from_three_hosts_at_once_it_is_removed_once() -> None:
    parliament = Parliament(6)
    settle(parliament, 5)
    victim = parliament.all[5]
    blocks = len(victim.ipam.own)
    victim.kill(host=True)
    parliament.run(5)
    tickets = [(seat, parliament.remove(seat, victim)) for seat in parliament.all[:3]]
    parliament.until(lambda: all(ticket in seat.answers for seat, ticket in tickets), 10)
    taken = [removed_by(seat, ticket) for seat, ticket in tickets]
    assert sum(len(one.blocks) for one in taken) == blocks
    parliament.until(lambda: not any(seat.mesh.knows(victim.id) for seat in parliament.alive), 5)


def test_a_removed_node_that_comes_back_is_cut_off_within_a_second() -> None:
    parliament = Parliament(6)
    settle(parliament, 5)
    victim = parliament.all[5]
    victim.add("a")
    parliament.run(1)
    victim.kill()
    parliament.run(5)
    parliament.remove(parliament.all[0], victim)
    parliament.run(2)
    victim.boot()
    assert parliament.until(lambda: not victim.containers, 1) <= 1
    parliament.until(lambda: bool(victim.ipam.announced), 3)
    victim.add("b")
    parliament.until(lambda: "b" in victim.containers, 70)


def test_the_living_are_not_removed() -> None:
    parliament = Parliament(3)
    settle(parliament, 3)
    seat, other = parliament.all[:2]
    ticket = parliament.remove(seat, other)
    parliament.run(1)
    refusal = seat.answers[ticket]
    assert isinstance(refusal, Refusal)
    assert "alive" in refusal.what
    assert other.ipam.announced


def test_a_dry_run_takes_nothing() -> None:
    parliament = Parliament(4)
    settle(parliament, 3)
    victim, seat = parliament.all[3], parliament.all[0]
    blocks = set(victim.ipam.own)
    victim.kill()
    parliament.run(5)
    seat.allocator.ask(Remove(1, (victim.id,), dry_run=True), parliament.now)
    seat.step()
    parliament.until(lambda: 1 in seat.answers, 5)
    assert set(removed_by(seat, 1).blocks) == blocks
    victim.boot()
    parliament.run(5)
    assert set(victim.ipam.own) == blocks


def test_who_was_apart_while_it_was_removed_is_cut_off_within_a_second_of_healing() -> None:
    parliament = Parliament(6)
    settle(parliament, 5)
    victim = next(seat for seat in parliament.all if not seat.allocator.electors.serving)
    victim.add("a")
    parliament.run(1)
    parliament.partition({victim.number: 1})
    parliament.run(5)
    executor = next(seat for seat in parliament.all if seat is not victim)
    parliament.remove(executor, victim)
    parliament.run(30)
    assert victim.containers, "it cannot know"
    parliament.heal()
    assert parliament.until(lambda: not victim.containers, 1) <= 1


# --- leaving ----------------------------------------------------------------------------------------------------------
def test_who_leaves_hands_back_everything() -> None:
    parliament = Parliament(4)
    settle(parliament, 3)
    seat = next(seat for seat in parliament.all if seat.allocator.electors.serving)
    ticket = parliament.leave(seat)
    parliament.until(lambda: ticket in seat.answers, 20)
    assert isinstance(seat.answers[ticket], Left)
    assert not seat.alive
    parliament.run(5)
    assert seat.number not in settle(parliament, 3)


def test_a_block_is_free_for_others_only_when_it_is_on_disk_that_it_is_not_used() -> None:
    """A life that begins before would use it. The disk is slow, and the electors are looked at meanwhile."""
    parliament = Parliament(4)
    settle(parliament, 3)
    seat = parliament.all[3]
    (place,) = seat.ipam.own
    seat.slow = 5.0
    seat.ipam.give_back(place, parliament.now)
    seat.ipam.decided(parliament.now)
    seat.step()
    for _ in range(4):
        parliament.run(1)
        seat.ipam.decided(parliament.now)
        seat.step()
        (row,) = [row for row in seat.disk.values() if isinstance(row, BlockRow) and row.place == place]
        assert row.state == FIRST
        assert parliament.chosen()[place] == row.version, "it is not handed back yet"
    parliament.until(lambda: parliament.chosen()[place] == row.version + 1, 15)


def test_who_has_containers_does_not_leave() -> None:
    parliament = Parliament(4)
    settle(parliament, 3)
    seat = parliament.all[0]
    seat.add("a")
    parliament.run(1)
    ticket = parliament.leave(seat)
    parliament.run(1)
    assert "1 addresses are in use" in seat.answers[ticket].what  # type: ignore[attr-defined]


def test_the_last_one_cannot_leave() -> None:
    parliament = Parliament(1)
    parliament.run(2)
    ticket = parliament.leave(parliament.all[0])
    parliament.run(1)
    assert "last node" in parliament.all[0].answers[ticket].what  # type: ignore[attr-defined]


# --- a lost disk ------------------------------------------------------------------------------------------------------
def test_a_node_without_its_disk_finds_its_blocks_again_and_gives_none_of_what_is_in_use() -> None:
    parliament = Parliament(4)
    settle(parliament, 3)
    seat = parliament.all[3]
    for one in range(5):
        seat.add(f"c{one}")
    parliament.run(1)
    blocks = set(seat.ipam.own)
    seat.kill()
    seat.lose_disk()
    seat.boot()
    parliament.run(10)
    assert blocks <= set(seat.ipam.own)
    for one in range(5, 20):
        seat.add(f"c{one}")
    parliament.run(80)
    assert len(set(seat.containers.values())) == 20
    assert not parliament.violations


def removed_with_a_container(parliament: Parliament) -> tuple[Seat, IPv4Address, int]:
    """A node that is dead and removed while its only container runs on; the container's address and its block."""
    settle(parliament, 5)
    victim = parliament.all[5]
    victim.add("a")
    parliament.run(1)
    address, (place,) = victim.containers["a"], victim.ipam.own
    victim.kill()
    parliament.run(5)
    parliament.remove(parliament.all[0], victim)
    parliament.run(2)
    return victim, address, place


def test_who_is_cut_off_stays_so_in_the_next_life_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    parliament = Parliament(6)
    victim, address, place = removed_with_a_container(parliament)
    heir = parliament.all[1]
    monkeypatch.setattr(heir.ipam, "_candidate", lambda now: (place, False))
    can_claim(parliament, heir)
    monkeypatch.undo()
    victim.boot()
    parliament.until(lambda: victim.fenced == {address}, 1)
    victim.kill()
    victim.containers["a"] = address  # it runs on, whatever its agent does
    victim.fenced.clear()
    victim.boot()
    parliament.until(lambda: victim.fenced == {address}, 3)
    victim.drop("a")
    parliament.until(lambda: not victim.fenced, 1)


def test_a_block_that_nobody_took_meanwhile_is_its_again_with_what_is_in_use_there() -> None:
    parliament = Parliament(6)
    victim, address, place = removed_with_a_container(parliament)
    victim.boot()
    parliament.until(lambda: place in victim.ipam.own and victim.ipam.own[place].version == 3, 5)
    parliament.run(1)
    assert victim.allocator.addresses.held_by("a", "eth0") == address
    assert not victim.fenced


def test_a_node_that_never_belonged_to_a_cluster_leaves_at_once() -> None:
    parliament = Parliament(2, foundings=lambda number: None)
    seat = parliament.all[0]
    ticket = parliament.leave(seat)
    parliament.run(0.5)
    assert seat.answers[ticket] == Left(0)


def test_who_leaves_by_force_gives_nobody_the_address_that_is_just_being_asked_for() -> None:
    """The answer would come after the release; and the node may stay, if the others do not answer."""
    parliament = Parliament(3)
    parliament.run(15)
    seat = parliament.all[2]
    ticket = seat.add("a")
    parliament.leave(seat, force=True)
    parliament.run(0.2)
    assert isinstance(seat.answers[ticket], Refusal)
    assert seat.containers == {}


def test_who_leaves_waits_until_a_majority_without_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    parliament = Parliament(4)
    parliament.run(20)
    seat = parliament.all[0]
    assert all(one.allocator.electors.begun for one in parliament.all)
    monkeypatch.setattr(Electors, "begun", property(lambda self: False))
    ticket = parliament.leave(seat)
    parliament.run(10)
    assert ticket not in seat.answers
    parliament.run(15)
    assert isinstance(seat.answers[ticket], Refusal)
    assert seat.alive
    monkeypatch.undo()
    ticket = parliament.leave(seat)
    parliament.run(10)
    assert isinstance(seat.answers[ticket], Left)


def test_after_a_boot_everybody_waits_for_the_electors_and_then_has_what_he_had() -> None:
    """Also who asks for exactly one. A container that nobody knew before is not in their way, nor they in its."""
    parliament = Parliament(3)
    settle(parliament, 3)
    seat = parliament.all[2]
    for container in ("a", "b", "c"):
        seat.add(container)
    parliament.run(1)
    had = dict(seat.containers)
    seat.kill(written=99, host=True)
    seat.boot(moved=True)
    for container in had:
        seat.drop(container)
    stranger = seat.add("stranger")
    tickets = {seat.add("b"): "b", seat.add("a", had["a"]): "a", seat.add("c"): "c"}
    parliament.run(bounds.CLONE_SECONDS / 2)
    assert not seat.answers.keys() & {stranger, *tickets}, "its blocks may be another's by now"
    assert ("cluster", "boot") not in seat.disk, "the next life would not wait"
    parliament.until(lambda: seat.answers.keys() >= {stranger, *tickets}, bounds.ALLOCATE_SECONDS)
    assert {container: seat.answers[ticket] for ticket, container in tickets.items()} == had
    assert seat.answers[stranger] not in had.values()
    parliament.until(lambda: ("cluster", "boot") in seat.disk, 1)
    assert parliament.violations == []


def test_who_waits_for_what_there_is_not_stands_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses rest, and a stranger came first."""
    monkeypatch.setattr(bounds, "MAX_BLOCKS_ANNOUNCED", 1)
    parliament = Parliament(1)
    (seat,) = parliament.all
    for one in range(13):
        seat.add(f"c{one}")
    parliament.run(1)
    had = dict(seat.containers)
    assert len(had) == 13, "the block is full"
    seat.kill(written=99, host=True)
    seat.boot(moved=True)
    for container in had:
        seat.drop(container)
    strangers = [seat.add(f"stranger {one}") for one in range(2)]
    tickets = {seat.add(container): container for container in had}
    parliament.run(bounds.ALLOCATE_SECONDS - 1)
    assert {container: seat.answers.get(ticket) for ticket, container in tickets.items()} == had
    assert not seat.answers.keys() & strangers
    parliament.run(2)
    assert all(isinstance(seat.answers[ticket], Refusal) for ticket in strangers)


def test_who_asks_for_one_in_a_block_that_stays_closed_hears_why() -> None:
    parliament = Parliament(3)
    settle(parliament, 3)
    seat = parliament.all[2]
    parliament.until(lambda: bool(seat.ipam.own), 10)
    (place,) = seat.ipam.own
    for other in parliament.all[:2]:
        other.kill()
    seat.kill(written=99, host=True)
    seat.boot()
    ticket = seat.add("a", seat.ipam.block(place)[3])
    parliament.run(bounds.ALLOCATE_SECONDS - 1)
    assert ticket not in seat.answers
    parliament.run(2)
    refused = seat.answers[ticket]
    assert isinstance(refused, Refusal)
    assert "gives no addresses at present" in refused.what
