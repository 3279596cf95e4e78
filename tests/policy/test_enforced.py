"""Policy sets in real namespaces, every cell probed: all pods, their nodes and somebody outside, with each other."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.policy.cluster import Cluster
from tests.policy.expecting import expected
from tests.policy.probing import Cell, Prober
from tests.policy.written import Written, by_hand, drawn

pytestmark = pytest.mark.root
QUICK = (
    "default-deny-all", "operators", "named-port-out", "several-add-up", "block-with-exceptions", "seed-0", "seed-8"
)  # fmt: skip
"""Policy sets of the default suite."""


def check(live: tuple[Cluster, Prober], sets: Iterable[Written]) -> int:
    """How many cells there were; names all that are wrong."""
    found, prober = live
    count, faults, seen = 0, [], set()
    for one in sets:
        found.enforce(*one.policies)
        cells = expected(found, found.cells())
        seen |= set(cells.values())
        count += len(cells)
        faults += [f"{one.name}: {named(found, cell)} is {'open' if is_open else 'closed'}"
                   for cell, is_open in prober.wrong(cells).items()]  # fmt: skip
    assert not faults, "\n".join(faults)
    assert seen == {True, False}
    return count


def named(found: Cluster, cell: Cell) -> str:
    names = {address: name for name, address in found.addresses.items()}
    return f"{cell.source} > {names[cell.address]} {cell.protocol}/{cell.port}"


def all_sets(found: Cluster) -> list[Written]:
    return [*by_hand(found), *drawn(found)]


def test_without_policies_everything_is_open(live: tuple[Cluster, Prober]) -> None:
    found, prober = live
    found.enforce()
    cells = expected(found, found.cells())
    assert set(cells.values()) == {True}
    assert len(cells) == 9 * 8 * 6 + 9 * 3 * 2 * 6
    assert not prober.wrong(cells)


def test_a_few_policy_sets_are_enforced(live: tuple[Cluster, Prober]) -> None:
    chosen = [one for one in all_sets(live[0]) if one.name in QUICK]
    assert len(chosen) == len(QUICK)
    check(live, chosen)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_all_policy_sets_are_enforced(live: tuple[Cluster, Prober]) -> None:
    sets = all_sets(live[0])
    assert len(sets) >= 40
    assert check(live, sets) >= 30_000
