"""Whatever happens to nodes, disks and the network: an address has one holder."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.sim.parliament import Parliament, Seat
from tunrouter.core import allocator, bounds, electorate
from tunrouter.core.clones import ROW_SECONDS, Clones
from tunrouter.core.electorate import Founding
from tunrouter.core.ipam import Ipam
from tunrouter.core.journal import RegisterRow, Row
from tunrouter.core.requests import SetElectors

NODES = st.integers(1, 9)
CONTAINERS = st.sampled_from("abcdef")
TIMES = st.sampled_from((0.005, 0.02, 0.1, 0.5, 2.0, 8.0, 20.0))


class Ownership(RuleBasedStateMachine):
    """Five to nine nodes; the first has founded the cluster, the others join."""

    parliament: Parliament
    Nodes: ClassVar = NODES

    @initialize(size=st.integers(5, 9), seed=st.integers(0, 1 << 16), settled=st.booleans())
    def begin(self, size: int, seed: int, settled: bool) -> None:
        self.parliament = Parliament(size, seed=seed)
        self.newest: dict[int, int] = {}
        if settled:
            self.parliament.run(15)

    def seat(self, number: int) -> Seat:
        seats = self.parliament.all
        return seats[number % len(seats)]

    # --- containers --------------------------------------------------------------------------------------------------
    @rule(number=NODES, container=CONTAINERS, count=st.integers(1, 8))
    def add(self, number: int, container: str, count: int) -> None:
        seat = self.seat(number)
        if seat.alive:
            for one in range(count):
                seat.add(f"{container}{one}")

    @rule(number=NODES, container=CONTAINERS, count=st.integers(1, 8))
    def drop(self, number: int, container: str, count: int) -> None:
        seat = self.seat(number)
        if seat.alive:
            for one in range(count):
                seat.drop(f"{container}{one}")

    @rule(number=NODES, other=NODES, container=CONTAINERS)
    def ask_for_one(self, number: int, other: int, container: str) -> None:
        """By address: perhaps one that another node has."""
        seat = self.seat(number)
        addresses = sorted(self.seat(other).containers.values()) or sorted(self.parliament.released)
        if seat.alive and addresses:
            seat.add(f"{container}0", addresses[0])

    # --- operators ---------------------------------------------------------------------------------------------------
    @rule(number=NODES, victim=NODES, force=st.booleans())
    def remove(self, number: int, victim: int, force: bool) -> None:
        self.parliament.remove(self.seat(number), self.seat(victim), force=force)

    @rule(number=NODES, force=st.booleans())
    def leave(self, number: int, force: bool) -> None:
        self.parliament.leave(self.seat(number), force=force)

    @rule(number=NODES, others=st.sets(NODES, min_size=1, max_size=5))
    def name_electors(self, number: int, others: set[int]) -> None:
        seat = self.seat(number)
        if seat.alive:
            nodes = {self.seat(other).id for other in others}
            seat.allocator.ask(SetElectors(next(self.parliament.tickets), tuple(nodes)), self.parliament.now)
            seat.step()

    # --- faults ------------------------------------------------------------------------------------------------------
    @rule(number=NODES, written=st.integers(0, 3), host=st.booleans())
    def kill(self, number: int, written: int, host: bool) -> None:
        self.seat(number).kill(written, host=host)

    @rule(number=NODES)
    def boot(self, number: int) -> None:
        seat = self.seat(number)
        if not seat.alive:
            seat.boot()

    @rule(
        number=NODES,
        container=CONTAINERS,
        seconds=st.sampled_from((0.0, 0.002, 0.01, 0.05)),
        written=st.integers(0, 3),
        host=st.booleans(),
    )
    def crash_at_work(self, number: int, container: str, seconds: float, written: int, host: bool) -> None:
        """Between asking and the answer, or soon after it; and it goes on at once."""
        seat = self.seat(number)
        if seat.alive:
            seat.add(f"{container}0")
            self.parliament.run(seconds)
            seat.kill(written, host=host)
            seat.boot()
            seat.add(f"{container}1")

    @rule(number=NODES, container=CONTAINERS)
    def clone(self, number: int, container: str) -> None:
        """Its disk is copied to another machine while both can be heard: the one that was there stays."""
        seat, parliament = self.seat(number), self.parliament
        self.all_is_well()
        parliament.run(ROW_SECONDS)
        if seat.alive:
            copy = parliament.copy(seat)
            seat.add(f"{container}0")
            copy.add(f"{container}9")  # which no other container is called
            parliament.run(bounds.CLONE_SECONDS + 1)
            assert seat.alive, f"who was there first has stopped: {seat.log[-3:]}"
            assert not copy.alive, "the copy runs on"

    @rule(number=NODES)
    def lose_disk(self, number: int) -> None:
        self.seat(number).lose_disk()

    @rule(number=NODES, seconds=TIMES)
    def stop_and_continue(self, number: int, seconds: float) -> None:
        self.seat(number).pause(seconds)

    @rule(sides=st.lists(st.integers(0, 2), min_size=9, max_size=9))
    def partition(self, sides: list[int]) -> None:
        self.parliament.partition({number + 1: side for number, side in enumerate(sides)})

    @rule(container=CONTAINERS, seconds=st.sampled_from((4.0, 8.0, 20.0)))
    def divide(self, container: str, seconds: float) -> None:
        """The electors, as evenly as it goes, and each side wants blocks."""
        known = [seat.allocator.electors.configuration for seat in self.parliament.all]
        newest = max((one for one in known if one is not None), key=lambda one: one.epoch, default=None)
        electors = newest.nodes if newest is not None else frozenset()
        ordered = sorted(self.parliament.all, key=lambda seat: seat.id not in electors)
        self.parliament.partition({seat.number: place % 2 for place, seat in enumerate(ordered)})
        for seat in ordered:
            if seat.alive:
                for one in range(8):
                    seat.add(f"{container}{one}")
        self.parliament.run(seconds)

    @rule()
    def heal(self) -> None:
        self.parliament.heal()

    @rule(loss=st.sampled_from((0.0, 0.1, 0.3)))
    def lose(self, loss: float) -> None:
        self.parliament.loss = loss

    @rule(seconds=TIMES)
    def wait(self, seconds: float) -> None:
        self.parliament.run(seconds)

    @rule()
    def rest(self) -> None:
        self.parliament.run(70)

    def all_is_well(self) -> None:
        self.parliament.heal()
        self.parliament.loss = 0.0
        for seat in self.parliament.all:
            seat.resume()

    # --- what always holds -------------------------------------------------------------------------------------------
    @invariant()
    def one_holder(self) -> None:
        if hasattr(self, "parliament"):
            assert not self.parliament.violations, self.parliament.violations
            self.commits_grow()

    def commits_grow(self) -> None:
        for place, version in self.parliament.chosen().items():
            assert version >= self.newest.get(place, 0), f"register {place} went back"
            self.newest[place] = version

    def teardown(self) -> None:
        """All is well again, and everybody finds out soon what is whose."""
        if not hasattr(self, "parliament"):
            return
        parliament = self.parliament
        self.all_is_well()
        for seat in parliament.all:
            if not seat.alive:
                seat.boot()
        parliament.run(30)
        parliament.excused.clear()
        for address, holders in parliament.holders.items():
            assert len(holders) <= 1, f"{address} has {holders}"
        self.one_holder()


def run(examples: int, steps: int = 50, *, fixed: int | None = None) -> None:
    """`fixed`: always the same lives, and what fails is not made smaller."""
    machine = type("Lives", (Ownership,), {})  # a seed stays with its class
    run_state_machine_as_test(
        machine if fixed is None else seed(fixed)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if fixed is None else (Phase.generate,),
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)
def test_an_address_has_one_holder() -> None:
    run(50)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_an_address_has_one_holder_in_ten_thousand_lives() -> None:
    run(10_000)


# --- the test can fail ------------------------------------------------------------------------------------------------
def use_before_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(allocator.Allocator, "_once_durable", lambda self, action: action())


def quorum_too_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(electorate.Configuration, "quorum", property(lambda self: max(1, len(self.electors) // 2)))


def elector_forgets(patch: pytest.MonkeyPatch) -> None:
    boot = Seat.boot

    def forgetful(self: Seat, *, claim: bool = True, moved: bool = False) -> None:
        self.disk = {key: row for key, row in self.disk.items() if not isinstance(row, RegisterRow)}
        boot(self, claim=claim, moved=moved)

    patch.setattr(Seat, "boot", forgetful)


def copy_goes_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Clones, "tick", lambda self, now: None)


def copy_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    start = Ipam.start

    def at_once(self: Ipam, now: float, *, moved: Row | None) -> None:
        start(self, now, moved=None)

    patch.setattr(Ipam, "start", at_once)


@pytest.mark.parametrize(
    "mutation", [use_before_commit, quorum_too_small, elector_forgets, copy_goes_on, copy_does_not_wait]
)
def test_the_test_finds(mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        run(500, fixed=3)


def test_founders_are_found_by_majority() -> None:
    parliament = Parliament(5, foundings=lambda number: Founding(5))
    parliament.until(lambda: all(seat.ipam.own for seat in parliament.all), 20)
    assert len({seat.allocator.electors.cluster for seat in parliament.all}) == 1
