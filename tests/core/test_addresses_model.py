"""Addresses against a naive model: any order of calls, blocks that come and go, time, and crashes of the disk."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.core.test_addresses import REST, apply, leases
from tunrouter.core import bounds
from tunrouter.core.addresses import Addresses, Reason, Refused
from tunrouter.core.journal import Journal, Key, Row
from tunrouter.core.pool import Lease
from tunrouter.core.timetable import NEVER

BLOCKS = tuple(IPv4Network(f"10.32.{n}.0/29") for n in range(3))
RESTED_KEPT = 3
CONTAINERS = st.sampled_from("abcdefgh")
INTERFACES = st.sampled_from(("eth0", "eth1"))
PODS = st.sampled_from(("", "", "p", "q"))
"""What containers are for; most are for nothing that outlives them."""
ANY_ADDRESS = st.builds(lambda block, n: block[n], st.sampled_from(BLOCKS), st.integers(0, 7))


@dataclass
class Entry:
    """Of one address: held if it has an owner, else resting until a time, and then rested."""

    owner: tuple[str, str] | None = None
    keeper: tuple[str, str] | None = None
    """Who may have it again when it is released."""
    order: int = 0
    until: float = 0.0


@dataclass
class Model:
    """The law, slowly: every address is looked at."""

    blocks: dict[IPv4Network, bool] = field(default_factory=dict)
    """Whether each is open."""
    turns: dict[IPv4Network, int] = field(default_factory=dict)
    until: dict[IPv4Network, float] = field(default_factory=dict)
    """Blocks that rest as a whole."""
    entries: dict[IPv4Address, Entry] = field(default_factory=dict)
    released: int = 0

    def block(self, address: IPv4Address) -> IPv4Network | None:
        return next((block for block in self.blocks if address in block), None)

    def has(self, owner: tuple[str, str]) -> IPv4Address | None:
        ours = [address for address, entry in self.entries.items() if entry.owner == owner and self.block(address)]
        return ours[0] if ours else None

    def rested(self, block: IPv4Network, now: float) -> list[IPv4Address]:
        ours = [(entry.order, address) for address, entry in self.entries.items() if address in block]
        return [one for _, one in sorted(ours) if not self.entries[one].owner and self.entries[one].until <= now]

    def wake(self, now: float) -> None:
        for block in self.blocks:
            if self.until.get(block, NEVER) <= now:
                del self.until[block]
            for address in self.rested(block, now)[:-RESTED_KEPT]:
                del self.entries[address]

    def unused(self, block: IPv4Network) -> list[IPv4Address]:
        return [block[n] for n in range(2, 7) if block[n] not in self.entries]

    def allocatable(self, now: float) -> list[IPv4Address]:
        """In the order in which they are given."""
        unused = []
        for block, is_open in self.blocks.items():
            if is_open and block not in self.until:
                ours, turn = self.unused(block), self.turns[block]
                unused += [one for one in ours if int(one) >= turn] + [one for one in ours if int(one) < turn]
        rested = [one for block, is_open in self.blocks.items() if is_open for one in self.rested(block, now)]
        return unused + sorted(rested, key=lambda one: self.entries[one].order)

    def remembered(self, keeper: tuple[str, str]) -> IPv4Address | None:
        """What it had last and may have at once."""
        open_blocks = [block for block, is_open in self.blocks.items() if is_open]
        theirs = [
            (entry.order, address)
            for address, entry in self.entries.items()
            if entry.keeper == keeper and not entry.owner and self.block(address) in open_blocks
        ]
        return max(theirs)[1] if theirs else None

    def obtainable(self, address: IPv4Address) -> bool:
        """By who asks for exactly this one."""
        block = self.block(address)
        if block is None or not self.blocks[block] or address not in [block[n] for n in range(2, 7)]:
            return False
        return not self.entries[address].owner if address in self.entries else block not in self.until

    def rest(self, address: IPv4Address, now: float) -> None:
        self.released += 1
        self.entries[address] = Entry(None, self.entries[address].keeper, self.released, now + REST)

    def join(self, block: IPv4Network, now: float) -> None:
        self.turns[block] = int(block[0])
        away = sorted(address for address in self.entries if address in block)
        for address in away:
            entry = self.entries[address]
            if entry.owner is None:
                entry.until = now + REST
            elif self.has(entry.owner) is not None:
                self.rest(address, now)
        if block in self.until:
            self.until[block] = now + REST
        self.blocks[block] = True


class AddressesAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(bounds, "MAX_RESTED", RESTED_KEPT)
        self.now = self.past = 0.0
        """`past` is what earlier lives took: time as the world sees it is the sum."""
        self.model = Model()
        self.disk: dict[Key, Row] = {}
        self.on_disk = Model()
        self.pending: list[tuple[dict[Key, Row | None], Model]] = []
        self.freed: dict[IPv4Address, float] = {}
        """When each was last held, as the world sees it."""
        self.journal = Journal()
        self.addresses = Addresses(self.journal)

    def teardown(self) -> None:
        self.patch.undo()

    @rule(container=CONTAINERS, interface=INTERFACES, pod=PODS)
    def allocate(self, container: str, interface: str, pod: str) -> None:
        got = self.addresses.allocate(container, interface, self.now, pod=pod)
        expected = self.model.has((container, interface))
        again = self.model.remembered((pod or container, interface))
        if expected is None and again is not None:
            expected = again
            self.give(expected, (container, interface), pod)
        elif expected is None:
            candidates = self.model.allocatable(self.now)
            if not candidates:
                assert isinstance(got, Refused)
                assert got.reason is Reason.FULL
                return
            expected = candidates[0]
            block = self.model.block(expected)
            assert block is not None
            if expected not in self.model.entries:
                self.model.turns[block] = int(expected) + 1
            assert self.past + self.now - self.freed.get(expected, -REST) >= REST, "a stranger gets what has rested"
            self.give(expected, (container, interface), pod)
        assert got == expected

    @rule(container=CONTAINERS, interface=INTERFACES, wanted=ANY_ADDRESS, pod=PODS)
    def allocate_wanted(self, container: str, interface: str, wanted: IPv4Address, pod: str) -> None:
        got = self.addresses.allocate(container, interface, self.now, wanted, pod)
        has = self.model.has((container, interface))
        if has is not None:
            assert got == (wanted if wanted == has else Refused(Reason.HAS_ANOTHER, has))
        elif self.model.obtainable(wanted):
            assert got == wanted
            self.give(wanted, (container, interface), pod)
        else:
            assert isinstance(got, Refused)
            assert got.address == wanted

    def give(self, address: IPv4Address, owner: tuple[str, str], pod: str) -> None:
        entry = self.model.entries.get(address)
        assert entry is None or entry.owner is None, "no address is held twice"
        self.model.entries[address] = Entry(owner, (pod or owner[0], owner[1]))

    @rule(container=CONTAINERS, interface=INTERFACES | st.none())
    def release(self, container: str, interface: str | None) -> None:
        got = self.addresses.release(container, interface, self.now)
        owners = [(container, one) for one in ("eth0", "eth1") if interface in (None, one)]
        expected = {self.model.has(owner) for owner in owners} - {None}
        assert set(got) == expected
        away = sorted(a for a, entry in self.model.entries.items() if entry.owner in owners and not self.model.block(a))
        for address in (*away, *got):
            self.freed[address] = self.past + self.now
            self.model.rest(address, self.now)

    @rule(container=CONTAINERS, interface=INTERFACES, address=ANY_ADDRESS)
    def claim(self, container: str, interface: str, address: IPv4Address) -> None:
        got = self.addresses.claim(container, interface, address, self.now)
        block, owner = self.model.block(address), (container, interface)
        if block is None or address not in [block[n] for n in range(2, 7)]:
            assert got == Refused(Reason.RESERVED if block else Reason.ELSEWHERE, address)
            return
        has, entry = self.model.has(owner), self.model.entries.get(address, Entry())
        ended = []
        if entry.owner is not None and entry.owner != owner:
            ended.append(Lease(address, *entry.owner))
        if has is not None and has != address:
            ended.append(Lease(has, *owner))
            self.freed[has] = self.past + self.now
            self.model.rest(has, self.now)
        if entry.owner != owner:
            self.model.entries[address] = Entry(owner, owner)
        assert not isinstance(got, Refused)
        assert [lease[:3] for lease in got] == [lease[:3] for lease in ended]

    @rule(block=st.sampled_from(BLOCKS), rested=st.booleans())
    def add(self, block: IPv4Network, rested: bool) -> None:
        if block in self.model.blocks:
            return
        self.addresses.add_block(block, self.now, rested=rested)
        if not rested:
            self.model.until[block] = self.now + REST
        self.model.join(block, self.now)

    @rule(block=st.sampled_from(BLOCKS))
    def drop(self, block: IPv4Network) -> None:
        lost = self.addresses.drop_block(block)
        known = block in self.model.blocks
        mine = {address: entry for address, entry in self.model.entries.items() if address in block}
        assert {lease[:3] for lease in lost} == {
            (a, *entry.owner) for a, entry in mine.items() if entry.owner and known
        }
        for address in mine:
            del self.model.entries[address]
        for address in block:  # whose rest is another's business now
            self.freed.pop(address, None)
        self.model.blocks.pop(block, None)
        self.model.until.pop(block, None)

    @precondition(lambda self: self.model.blocks)
    @rule(data=st.data(), is_open=st.booleans())
    def close_or_open(self, data: st.DataObject, is_open: bool) -> None:
        block = data.draw(st.sampled_from(sorted(self.model.blocks)))
        (self.addresses.open if is_open else self.addresses.close)(block)
        self.model.blocks[block] = is_open

    @rule(seconds=st.sampled_from((1.0, 20.0, REST, 2 * REST)))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        free = self.addresses.free(self.now)
        self.addresses.wake(self.now)
        assert free == self.addresses.free(self.now)

    @rule(batches=st.integers(1, 3))
    def commit(self, batches: int) -> None:
        for changes, model in self.pending[:batches]:
            apply(self.disk, changes)
            self.on_disk = model
        del self.pending[:batches]

    @rule(survive=st.integers(0, 5), early=st.sets(st.sampled_from(BLOCKS)), late=st.sets(st.sampled_from(BLOCKS)))
    def crash(self, survive: int, early: set[IPv4Network], late: set[IPv4Network]) -> None:
        """Blocks come before their rows or after them, or only much later."""
        self.commit(survive)
        self.pending.clear()
        self.model = copy.deepcopy(self.on_disk)
        # Who held what is not even on disk was never told of it.
        self.freed = {address: at for address, at in self.freed.items() if address in self.model.entries}
        known = list(self.model.blocks)
        self.model.blocks = {}
        self.past, self.now = self.past + self.now, 0.0
        self.journal = Journal()
        self.addresses = Addresses(self.journal)
        for block in [block for block in known if block in early]:
            self.addresses.add_block(block, self.now, rested=True)
            self.model.join(block, self.now)
        self.addresses.restore(leases(self.disk), self.now)
        for block in [block for block in known if block in late - early]:
            self.addresses.add_block(block, self.now, rested=True)
            self.model.join(block, self.now)

    @invariant()
    def agrees(self) -> None:
        self.model.wake(self.now)
        self.addresses.wake(self.now)
        batch = self.journal.take()
        if batch is not None:
            self.pending.append((batch.changes, copy.deepcopy(self.model)))
        held = {a: entry.owner for a, entry in self.model.entries.items() if entry.owner and self.model.block(a)}
        given = list(self.addresses.leases())
        assert {lease.address: (lease.container, lease.interface) for lease in given} == held
        assert len(given) == self.addresses.used == len(held)
        assert self.addresses.free(self.now) == len(self.model.allocatable(self.now))
        here = [entry for address, entry in self.model.entries.items() if not entry.owner and self.model.block(address)]
        assert len(self.addresses._keepers) == len(here), "no more is remembered than rests, or has rested"
        resting = [
            entry.until
            for address, entry in self.model.entries.items()
            if not entry.owner and entry.until > self.now and self.model.block(address)
        ]
        blocks = [block for block in self.model.until if block in self.model.blocks]
        assert self.addresses.resting == len(resting) + sum(len(self.model.unused(block)) for block in blocks)
        assert self.addresses.deadline == min(resting + [self.model.until[block] for block in blocks], default=NEVER)


def test_any_history_against_the_model() -> None:
    run_state_machine_as_test(AddressesAgainstModel, settings=settings(max_examples=100, stateful_step_count=50))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_histories_against_the_model() -> None:
    run_state_machine_as_test(AddressesAgainstModel, settings=settings(max_examples=3000, stateful_step_count=100))
