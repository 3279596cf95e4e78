"""Addresses: who gets which one, when it comes back, and what a restart may not change."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import count

import pytest

from tunrouter.core import bounds
from tunrouter.core.addresses import Addresses, Reason, Refused
from tunrouter.core.journal import Journal, Key, LeaseRow, Row
from tunrouter.core.pool import Lease
from tunrouter.core.timetable import NEVER

REST = bounds.REST_SECONDS
BLOCK = IPv4Network("10.32.5.0/29")
"""2 to 6 are usable."""
OTHER = IPv4Network("10.32.6.0/29")


def ip(last: int, block: IPv4Network = BLOCK) -> IPv4Address:
    return block[last]


class Life:
    """Addresses and what is on disk; `restart` forgets the rest."""

    def __init__(self, *blocks: IPv4Network) -> None:
        self.rows: dict[Key, Row] = {}
        self.start(*blocks)

    def start(self, *blocks: IPv4Network, now: float = 0.0) -> Addresses:
        self.journal = Journal()
        self.addresses = Addresses(self.journal)
        for block in blocks:
            self.addresses.add_block(block, now, rested=True)
        return self.addresses

    def commit(self) -> dict[Key, Row | None]:
        batch = self.journal.take()
        if batch is None:
            return {}
        apply(self.rows, batch.changes)
        self.journal.committed(batch.number, 0.0)
        return batch.changes

    def restart(self, *blocks: IPv4Network, now: float = 0.0) -> Addresses:
        self.start(*blocks, now=now).restore(leases(self.rows), now)
        return self.addresses


def apply(rows: dict[Key, Row], changes: dict[Key, Row | None]) -> None:
    for key, row in changes.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row


def leases(rows: dict[Key, Row]) -> list[LeaseRow]:
    return sorted(row for row in rows.values() if isinstance(row, LeaseRow))


def fill(addresses: Addresses, now: float = 0.0, name: str = "filler") -> list[IPv4Address]:
    """Until no more are given."""
    given: list[IPv4Address] = []
    for number in count():
        address = addresses.allocate(f"{name} {number}", "eth0", now)
        if isinstance(address, Refused):
            return given
        given.append(address)
    raise AssertionError


def test_addresses_are_given_in_order_and_the_reserved_ones_never() -> None:
    assert fill(Life(BLOCK, OTHER).addresses) == [ip(n, block) for block in (BLOCK, OTHER) for n in range(2, 7)]


def test_the_operators_gateway_is_reserved_too() -> None:
    addresses = Addresses(Journal(), gateway=ip(4))
    addresses.add_block(BLOCK, 0.0, rested=True)
    assert fill(addresses) == [ip(2), ip(3), ip(5), ip(6)]


@pytest.mark.parametrize("block", ["10.32.0.0/32", "10.32.0.0/31", "10.32.0.0/30", "10.32.0.0/29"])
def test_small_blocks_give_what_they_have(block: str) -> None:
    network = IPv4Network(block)
    assert len(fill(Life(network).addresses)) == max(network.num_addresses - 3, 0)


def test_the_same_interface_gets_the_same_address_and_is_told_if_it_asks_for_another() -> None:
    life = Life(BLOCK)
    assert life.addresses.allocate("one", "eth0", 0.0) == ip(2)
    assert life.commit() == {("lease", int(ip(2))): LeaseRow(ip(2), "one", "eth0", 0)}
    assert life.addresses.allocate("one", "eth0", 1.0) == ip(2)
    assert life.addresses.allocate("one", "eth0", 1.0, ip(2)) == ip(2)
    assert life.addresses.allocate("one", "eth0", 1.0, ip(3)) == Refused(Reason.HAS_ANOTHER, ip(2))
    assert life.commit() == {}
    assert life.addresses.allocate("one", "eth1", 1.0) == ip(3)


def test_a_wanted_address_is_given_or_it_is_said_why_not() -> None:
    addresses = Life(BLOCK, OTHER).addresses
    assert addresses.allocate("one", "eth0", 0.0, ip(5)) == ip(5)
    taken = Refused(Reason.TAKEN, ip(5), Lease(ip(5), "one", "eth0"))
    assert addresses.allocate("two", "eth0", 0.0, ip(5)) == taken
    for reserved in (0, 1, 7):
        assert addresses.allocate("two", "eth0", 0.0, ip(reserved)) == Refused(Reason.RESERVED, ip(reserved))
    elsewhere = IPv4Address("10.32.7.2")
    assert addresses.allocate("two", "eth0", 0.0, elsewhere) == Refused(Reason.ELSEWHERE, elsewhere)
    addresses.close(OTHER)
    assert addresses.allocate("two", "eth0", 0.0, ip(3, OTHER)) == Refused(Reason.CLOSED, ip(3, OTHER))
    addresses.release("one", "eth0", 10.0)
    assert addresses.allocate("two", "eth0", 11.0, ip(5)) == ip(5), "it rests for who does not ask for it"
    assert addresses.allocate("", "eth0", 0.0) == Refused(Reason.NAMELESS)


def test_who_was_released_first_comes_back_first_and_only_after_its_rest() -> None:
    addresses = Life(BLOCK).addresses
    fill(addresses)
    assert addresses.allocate("late", "eth0", 0.0) == Refused(Reason.FULL)
    addresses.release("filler 3", "eth0", 10.0)
    addresses.release("filler 0", None, 20.0)
    assert addresses.deadline == 10.0 + REST
    assert (addresses.free(10.0 + REST), addresses.resting, addresses.used) == (1, 2, 3)
    assert addresses.allocate("late", "eth0", 10.0) == Refused(Reason.FULL, until=10.0 + REST)
    assert addresses.allocate("late", "eth0", 20.0 + REST) == ip(5)
    assert addresses.allocate("later", "eth0", 20.0 + REST) == ip(2)
    assert addresses.deadline == NEVER


def test_the_oldest_of_all_blocks_comes_first() -> None:
    addresses = Life(BLOCK, OTHER).addresses
    fill(addresses)
    for filler in (7, 1, 8):
        addresses.release(f"filler {filler}", "eth0", 0.0)
    again = [addresses.allocate(f"late {n}", "eth0", REST) for n in range(3)]
    assert again == [ip(4, OTHER), ip(3), ip(5, OTHER)]


def test_who_rested_longest_ago_is_forgotten_and_still_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_RESTED", 2)
    life = Life(BLOCK)
    for container in ("a", "b", "c"):
        life.addresses.allocate(container, "eth0", 0.0)
        life.addresses.release(container, "eth0", 0.0)
    life.addresses.wake(REST)
    life.commit()
    assert [row.address for row in leases(life.rows)] == [ip(3), ip(4)]
    assert fill(life.addresses, REST) == [ip(n) for n in (5, 6, 2, 3, 4)]


def test_an_unknown_container_has_nothing_to_release() -> None:
    life = Life(BLOCK)
    life.addresses.allocate("one", "eth0", 0.0)
    life.commit()
    assert life.addresses.release("two", None, 0.0) == life.addresses.release("one", "eth1", 0.0) == ()
    assert life.commit() == {}


def test_a_container_gives_back_all_its_addresses_at_once() -> None:
    addresses = Life(BLOCK).addresses
    for interface in ("eth0", "eth1"):
        addresses.allocate("one", interface, 0.0)
    assert addresses.release("one", None, 0.0) == (ip(2), ip(3))
    assert list(addresses.leases()) == []


def test_a_restart_keeps_leases_and_lets_all_others_rest_again_in_the_old_order() -> None:
    life = Life(BLOCK)
    fill(life.addresses)
    for filler, now in ((2, 0.0), (0, 500.0), (4, 1000.0)):
        life.addresses.release(f"filler {filler}", "eth0", now)
    life.commit()
    again = life.restart(BLOCK, now=7.0)
    assert {lease.container for lease in again.leases()} == {"filler 1", "filler 3"}
    assert again.allocate("late", "eth0", 6.0 + REST) == Refused(Reason.FULL, until=7.0 + REST)
    assert fill(again, 7.0 + REST, "late") == [ip(4), ip(2), ip(6)]


def test_the_order_goes_on_in_the_next_life() -> None:
    life = Life(BLOCK)
    fill(life.addresses)
    for filler in (3, 1, 2):
        life.addresses.release(f"filler {filler}", "eth0", 0.0)
        life.commit()
        life.restart(BLOCK)
    assert fill(life.addresses, REST, "late") == [ip(5), ip(3), ip(4)]


def test_a_block_that_another_node_had_rests_as_a_whole_and_that_is_one_row() -> None:
    life = Life(OTHER)
    life.addresses.add_block(BLOCK, 0.0, rested=False)
    assert len(life.commit()) == 1
    assert set(fill(life.addresses)) == {ip(n, OTHER) for n in range(2, 7)}
    assert life.addresses.allocate("late", "eth0", 0.0, ip(3)) == Refused(Reason.RESTING, ip(3), until=REST)
    life.commit()
    again = life.restart(BLOCK, OTHER, now=100.0)
    assert (again.free(100.0), again.resting, again.deadline) == (0, 5, 100.0 + REST)
    assert again.free(100.0 + REST) == 5
    assert fill(again, 100.0 + REST, "late") == [ip(n) for n in range(2, 7)]
    life.commit()
    assert ip(0) not in {row.address for row in leases(life.rows)}


def test_a_closed_block_gives_nothing_new_but_keeps_and_takes_back_what_it_gave() -> None:
    addresses = Life(BLOCK).addresses
    addresses.allocate("one", "eth0", 0.0)
    addresses.close(BLOCK)
    assert addresses.allocate("one", "eth0", 0.0) == ip(2)
    assert addresses.allocate("two", "eth0", 0.0) == Refused(Reason.FULL)
    assert addresses.free(0.0) == 0
    assert addresses.held_in(BLOCK) == (Lease(ip(2), "one", "eth0"),)
    assert addresses.release("one", "eth0", 0.0) == (ip(2),)
    addresses.open(BLOCK)
    assert addresses.allocate("two", "eth0", 0.0) == ip(3)


def test_a_dropped_block_takes_its_leases_and_rows_with_it() -> None:
    life = Life(BLOCK, OTHER)
    fill(life.addresses)
    life.addresses.release("filler 1", "eth0", 0.0)
    life.commit()
    lost = life.addresses.drop_block(BLOCK)
    assert {lease.container for lease in lost} == {"filler 0", "filler 2", "filler 3", "filler 4"}
    life.commit()
    assert {row.address for row in leases(life.rows)} == {ip(n, OTHER) for n in range(2, 7)}
    assert life.addresses.release("filler 0", "eth0", 0.0) == ()
    assert life.addresses.allocate("filler 5", "eth0", 0.0) == ip(2, OTHER)


def test_what_is_in_use_wins_over_any_row_also_in_a_closed_block() -> None:
    life = Life(BLOCK)
    for container in ("row", "moved"):
        life.addresses.allocate(container, "eth0", 0.0)
    life.commit()
    addresses = life.restart(BLOCK)
    addresses.close(BLOCK)
    assert addresses.claim("live", "eth0", ip(2), 1.0) == (Lease(ip(2), "row", "eth0"),)
    assert addresses.claim("moved", "eth0", ip(5), 1.0) == (Lease(ip(3), "moved", "eth0"),)
    assert addresses.claim("moved", "eth0", ip(5), 1.0) == ()
    assert addresses.claim("new", "eth0", ip(3), 1.0) == ()
    assert {(lease.address, lease.container) for lease in addresses.leases()} == {
        (ip(2), "live"),
        (ip(3), "new"),
        (ip(5), "moved"),
    }
    assert addresses.release("row", "eth0", 1.0) == ()
    life.commit()
    assert set(life.restart(BLOCK).leases()) == set(addresses.leases())


def test_what_cannot_be_ours_is_not_claimed() -> None:
    addresses = Life(BLOCK).addresses
    assert addresses.claim("live", "eth0", ip(2, OTHER), 0.0) == Refused(Reason.ELSEWHERE, ip(2, OTHER))
    assert addresses.claim("live", "eth0", ip(1), 0.0) == Refused(Reason.RESERVED, ip(1))
    assert addresses.claim("", "eth0", ip(2), 0.0) == Refused(Reason.NAMELESS)


def test_rows_wait_for_their_block_and_what_happened_meanwhile_is_newer() -> None:
    life = Life(BLOCK)
    for container in ("stays", "moves", "rests"):
        life.addresses.allocate(container, "eth0", 0.0)
    life.addresses.release("rests", "eth0", 0.0)
    life.commit()
    addresses = life.restart(OTHER)
    assert list(addresses.leases()) == []
    assert addresses.allocate("moves", "eth0", 0.0) == ip(2, OTHER)
    addresses.add_block(BLOCK, 10.0, rested=True)
    assert set(addresses.leases()) == {Lease(ip(2), "stays", "eth0"), Lease(ip(2, OTHER), "moves", "eth0")}
    assert addresses.resting == 2
    life.commit()
    assert life.restart(OTHER).drop_block(BLOCK) == ()
    life.commit()
    assert [row.address for row in leases(life.rows)] == [ip(2, OTHER)]


def test_who_has_an_address_in_a_block_that_is_away_is_known_and_can_be_released() -> None:
    """Its pod may be gone by now, and nobody would ever ask for it."""
    life = Life(BLOCK)
    life.addresses.allocate("ghost", "eth0", 0.0)
    life.addresses.allocate("rests", "eth0", 0.0)
    life.addresses.release("rests", "eth0", 0.0)
    life.commit()
    addresses = life.restart(OTHER)
    addresses.allocate("here", "eth0", 0.0)
    assert set(addresses.holders()) == {Lease(ip(2), "ghost", "eth0"), Lease(ip(2, OTHER), "here", "eth0")}
    addresses.release("ghost", "eth0", 0.0)
    life.commit()
    addresses = life.restart(OTHER)
    assert [lease.container for lease in addresses.holders()] == ["here"]
    addresses.add_block(BLOCK, 0.0, rested=True)
    assert addresses.held_in(BLOCK) == ()


def test_overlapping_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="overlaps"):
        Life(BLOCK).addresses.add_block(IPv4Network("10.32.4.0/23"), 0.0, rested=True)


def test_memory_and_rows_follow_what_is_held_not_the_size_of_the_block() -> None:
    life = Life(IPv4Network("10.32.0.0/16"))
    pool = next(iter(life.addresses._pools.values()))
    now = 0.0
    for number in range(70_000):
        now += 0.1
        assert isinstance(life.addresses.allocate(f"pod {number}", "eth0", now), IPv4Address)
        life.addresses.release(f"pod {number - 100}", "eth0", now)
        if number % 1000 == 0:
            life.commit()
    life.commit()
    remembered = 100 + REST / 0.1 + bounds.MAX_RESTED
    assert len(list(pool.remembered())) <= remembered
    assert len(life.rows) <= remembered
    assert len(pool._unused._firsts) < 10


def test_who_is_released_while_its_block_is_away_has_nothing_when_it_comes() -> None:
    life = Life(BLOCK)
    for container in "abc":
        life.addresses.allocate(container, "eth0", 0.0)
    life.commit()
    away = life.restart()
    for container in ("b", "a"):
        assert away.release(container, "eth0", 0.0) == ()
    life.commit()
    for addresses in (away, life.restart()):
        addresses.add_block(BLOCK, 0.0, rested=True)
        assert list(addresses.leases()) == [Lease(ip(4), "c", "eth0")]
        assert addresses.rests(ip(2))
        assert fill(addresses) == [ip(5), ip(6)]
        assert fill(addresses, REST, "later") == [ip(3), ip(2)], "in the order of their release"


# --- who comes again -------------------------------------------------------------------------------------------------
def test_who_comes_again_gets_what_it_had_however_soon_and_no_stranger_does() -> None:
    life = Life(BLOCK)
    for container in ("a", "b"):
        life.addresses.allocate(container, "eth0", 0.0)
    life.addresses.release("a", "eth0", 1.0)
    assert life.addresses.allocate("c", "eth0", 1.0) == ip(4)
    assert life.addresses.allocate("a", "eth1", 1.0) == ip(5), "another interface is another one's"
    assert life.addresses.allocate("a", "eth0", 1.0) == ip(2)
    assert life.addresses.resting == 0


def test_a_boot_leaves_each_container_its_address() -> None:
    """All namespaces are gone: what was held is released at the start, and those that come are served in any order."""
    life = Life(BLOCK)
    given = {container: life.addresses.allocate(container, "eth0", 0.0) for container in ("a", "b", "c")}
    for _ in range(3):
        life.commit()
        life.restart(BLOCK)
        for container in given:
            life.addresses.release(container, None, 0.0)
        assert life.addresses.allocate("stranger", "eth0", 0.0) == ip(5)
        assert {one: life.addresses.allocate(one, "eth0", 0.0) for one in reversed(given)} == given
        life.addresses.release("stranger", None, 0.0)
        life.commit()
        life.restart(BLOCK)
        assert {lease.container: lease.address for lease in life.addresses.leases()} == given, "it was on disk"


def test_a_pod_has_its_address_in_another_sandbox_once_the_first_is_gone() -> None:
    life = Life(BLOCK)
    assert life.addresses.allocate("net/1", "eth0", 0.0, pod="net/default/web-0") == ip(2)
    assert life.addresses.allocate("net/2", "eth0", 0.0, pod="net/default/web-0") == ip(3), "the first one lives"
    life.addresses.release("net/2", "eth0", 0.0)
    life.addresses.release("net/1", "eth0", 0.0)
    life.commit()
    life.restart(BLOCK)
    assert life.addresses.allocate("net/1", "eth0", 0.0) == ip(4), "who is no such pod is a stranger"
    assert life.addresses.allocate("net/3", "eth0", 0.0, pod="net/default/web-0") == ip(2), "the last that it had"
    assert life.addresses.allocate("net/4", "eth0", 0.0, pod="net/default/web-0") == ip(3)
    assert life.addresses.allocate("net/5", "eth0", 0.0, pod="net/default/web-0") == ip(5)


def test_what_somebody_else_was_given_meanwhile_is_not_taken_from_him() -> None:
    addresses = Life(BLOCK).addresses
    addresses.allocate("a", "eth0", 0.0)
    addresses.release("a", "eth0", 0.0)
    assert len(fill(addresses, REST)) == 5
    assert addresses.allocate("a", "eth0", REST) == Refused(Reason.FULL)


def test_a_block_that_gives_nothing_gives_nobody_his_old_address_either() -> None:
    addresses = Life(BLOCK, OTHER).addresses
    addresses.allocate("a", "eth0", 0.0)
    addresses.release("a", "eth0", 0.0)
    addresses.close(BLOCK)
    assert addresses.allocate("a", "eth0", 0.0) == ip(2, OTHER)
    addresses.drop_block(BLOCK)
    addresses.release("a", "eth0", 0.0)
    assert addresses.allocate("a", "eth0", 0.0) == ip(2, OTHER)
