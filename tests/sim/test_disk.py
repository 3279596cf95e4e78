"""The fake disk keeps its law; and addresses, cut at every point of a life, are neither lost nor given twice."""

from __future__ import annotations

from collections import deque
from ipaddress import IPv4Address, IPv4Network
from random import Random

import pytest

from tests.sim.disk import Disk, PowerCut, crash_points
from tunrouter.core import bounds
from tunrouter.core.addresses import Addresses, Refused
from tunrouter.core.journal import ClusterRow, Journal, LeaseRow, Persist
from tunrouter.core.timetable import NEVER


def batch(number: int, *names: str) -> Persist:
    rows = [ClusterRow(name, bytes([number])) for name in names]
    return Persist(number, {row.key: row for row in rows})


def names(disk: Disk) -> list[str]:
    return [row.name for row in disk.rows.values() if isinstance(row, ClusterRow)]


def test_what_is_written_becomes_durable_in_order_after_the_delay() -> None:
    disk = Disk(delay=2.0)
    disk.write(batch(1, "a", "b"), 0.0)
    disk.write(batch(2, "a"), 1.0)
    assert (disk.sync(1.0), disk.deadline, disk.start()) == (None, 2.0, [])
    assert disk.sync(2.0) == 1
    assert set(disk.start()) == {ClusterRow("a", b"\1"), ClusterRow("b", b"\1")}
    assert disk.sync(9.0) == 2
    assert set(disk.start()) == {ClusterRow("a", b"\2"), ClusterRow("b", b"\1")}
    disk.write(Persist(3, {("cluster", "a"): None, ("cluster", "none"): None}), 9.0)
    assert (disk.behind, disk.sync(11.0), disk.behind, names(disk)) == (1, 3, 0, ["b"])


@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_a_crash_keeps_the_first_of_what_was_not_durable(survivors: int) -> None:
    disk = Disk(delay=1.0)
    disk.write(batch(1, "told"), 0.0)
    disk.sync(1.0)
    disk.write(batch(2, "a", "b"), 1.0)
    disk.write(batch(3, "c"), 1.0)
    disk.crash(survivors)
    assert names(disk) == ["told", "a", "b", "c"][: (1, 3, 4)[survivors]]
    assert disk.sync(9.0) is None


def test_a_full_disk_holds_all_up_and_loses_nothing() -> None:
    disk = Disk()
    disk.full = True
    for number in (1, 2):
        disk.write(batch(number, f"{number}"), 0.0)
    assert (disk.sync(5.0), disk.deadline) == (None, NEVER)
    disk.full = False
    assert (disk.sync(5.0), names(disk)) == (2, ["1", "2"])


def test_a_damaged_disk_is_kept_aside_and_a_copy_lives_on_by_itself() -> None:
    disk = Disk()
    disk.write(batch(1, "a"), 0.0)
    disk.sync(0.0)
    copy = disk.clone()
    disk.damage()
    assert disk.start() == []
    assert disk.aside == [copy.rows]
    disk.write(batch(1, "new"), 0.0)
    disk.sync(0.0)
    assert (names(disk), names(copy)) == (["new"], ["a"])


def test_a_life_is_cut_at_every_event_with_every_number_of_survivors() -> None:
    def life(disk: Disk) -> None:
        disk.write(batch(1, "a"), 0.0)
        disk.write(batch(2, "b"), 0.0)
        disk.sync(5.0)

    left = [names(disk) for disk in crash_points(life, delay=1.0)]
    assert left == [
        [], ["a"],  # when the first was written
        [], ["a"], ["a", "b"],  # when the second was
        ["a"], ["a", "b"],  # when the first was durable, and nobody knew
        ["a", "b"],
    ]  # fmt: skip


def test_the_power_goes_once() -> None:
    disk = Disk(cut=1)
    with pytest.raises(PowerCut):
        disk.write(batch(1, "a"), 0.0)
    disk.crash(1)
    disk.write(batch(1, "b"), 0.0)
    assert (disk.sync(0.0), names(disk)) == (1, ["a", "b"])


# --- addresses on it -------------------------------------------------------------------------------------------------
BLOCK = IPv4Network("10.32.0.0/28")
STEPS = 50


class Script:
    """Fifty steps of one node, a second apart, and what its callers were told."""

    def __init__(self, seed: int, *, hasty: bool) -> None:
        self.seed = seed
        self.hasty = hasty
        """Answers before the disk has it: what must not be done."""
        self.cuts = 0

    def __call__(self, disk: Disk) -> None:
        self.told: dict[str, IPv4Address | None] = {}
        """The last answer to each container: its address, or that it is released."""
        self.asked: deque[str] = deque()
        """Containers with a question open: they may find either answer true."""
        random, journal = Random(self.seed), Journal()
        addresses = Addresses(journal)
        addresses.add_block(BLOCK, 0.0, rested=True)
        for step in range(STEPS):
            self.step(addresses, journal, random, float(step))
            changes = journal.take()
            if changes is not None:
                disk.write(changes, float(step))
            journal.run(float(step))
            durable = disk.sync(float(step))
            if durable is not None:
                journal.committed(durable, float(step))

    def step(self, addresses: Addresses, journal: Journal, random: Random, now: float) -> None:
        container = f"pod {random.randrange(12)}"
        answer: IPv4Address | Refused | None = None
        if random.random() < 0.4:
            addresses.release(container, None, now)
        else:
            answer = addresses.allocate(container, "eth0", now)
        self.asked.append(container)
        if self.hasty:
            self.tell(container, answer)
        else:
            journal.then(lambda _: self.tell(container, answer))

    def tell(self, container: str, answer: IPv4Address | Refused | None) -> None:
        assert self.asked.popleft() == container
        if not isinstance(answer, Refused):
            self.told[container] = answer

    def check_all(self, delay: float) -> None:
        for disk in crash_points(self, delay):
            self.check(disk)

    def check(self, disk: Disk) -> None:
        """A next life has what callers were told, nobody's address twice, and gives none of them away."""
        self.cuts += 1
        addresses = Addresses(Journal())
        addresses.add_block(BLOCK, 0.0, rested=True)
        addresses.restore([row for row in disk.start() if isinstance(row, LeaseRow)], 0.0)
        has = {lease.container: lease.address for lease in addresses.leases()}
        assert len(set(has.values())) == len(has)
        sure = {container: address for container, address in self.told.items() if container not in self.asked}
        assert {container: has.get(container) for container in sure} == sure
        for late in range(20):
            given = addresses.allocate(f"late {late}", "eth0", bounds.REST_SECONDS)
            assert given not in has.values()


@pytest.mark.parametrize("delay", [0.0, 1.0, 3.5])
def test_every_crash_point_of_fifty_steps_keeps_what_was_answered(delay: float) -> None:
    script = Script(1, hasty=False)
    script.check_all(delay)
    assert script.cuts > STEPS


def test_an_answer_before_it_is_durable_is_found_out() -> None:
    script = Script(1, hasty=True)
    with pytest.raises(AssertionError):
        script.check_all(delay=1.0)
