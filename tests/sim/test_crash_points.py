"""A script of fifty steps, cut off at every point at which something is written to a disk."""

from __future__ import annotations

import pytest

from tests.sim.parliament import Parliament
from tunrouter.core.requests import SetElectors

STEPS = 50


def step(parliament: Parliament, number: int) -> None:
    """Containers come and go on three nodes; one node is removed, electors change, one leaves in the end."""
    seats = parliament.all
    seat = seats[number % 3]
    if not seat.alive:
        return
    match number:
        case 20:
            seats[3].kill(host=True)
        case 26:
            parliament.remove(seat, seats[3])
        case 32:
            seat.allocator.ask(SetElectors(next(parliament.tickets), (seats[0].id,)), parliament.now)
            seat.step()
        case 47:
            parliament.leave(seats[4])
        case _ if number % 4 == 3 and seat.containers:
            seat.drop(sorted(seat.containers)[0])
        case _:
            for one in range(3):
                seat.add(f"c{number}-{one}")


def play(crash_at: int, seed: int) -> Parliament:
    parliament = Parliament(5, seed=seed)
    parliament.crash_at = crash_at
    for number in range(STEPS):
        step(parliament, number)
        parliament.run(0.4)
        crashed = parliament.crashed
        if crashed is not None:
            parliament.crashed = None
            crashed.boot(claim=False)
            nothing_is_lost(parliament)
    parliament.run(20)
    return parliament


def nothing_is_lost(parliament: Parliament) -> None:
    """Who was told an address has it still, by the disk alone."""
    for seat in parliament.alive:
        for container, address in seat.containers.items():
            assert seat.allocator.addresses.held_by(container, "eth0") == address


def check(crash_at: int, seed: int) -> None:
    parliament = play(crash_at, seed)
    assert not parliament.violations, f"crash at {crash_at}: {parliament.violations}"
    nothing_is_lost(parliament)
    for seat in parliament.alive:
        before = len(seat.containers)
        seat.add("last")
        parliament.run(0.2)
        assert len(seat.containers) == before + 1, f"crash at {crash_at}: {seat.name}: {seat.ipam.reason}"


@pytest.mark.timeout(600)
def test_no_crash_point_loses_or_doubles_an_address() -> None:
    """Each moment before and after a write: what was not written is lost, what was written was not answered."""
    points = play(0, seed=1).writes
    assert points > 200
    for crash_at in range(1, points + 1):
        check(crash_at, seed=1)
