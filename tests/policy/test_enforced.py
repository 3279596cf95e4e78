"""Policy sets in real namespaces, every cell probed: all pods, their nodes and somebody outside, with each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
EXPLAINED = 11
"""Every so many-th cell is explained, too: prime to protocols, ports and pods."""


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
        faults += unlike_explained(found, dict(list(cells.items())[::EXPLAINED]))
    assert not faults, "\n".join(faults)
    assert seen == {True, False}
    return count


def unlike_explained(found: Cluster, cells: Mapping[Cell, bool]) -> list[str]:
    """Where the endpoint's node, or the client's where that is none, explains something else than is so."""
    names = {address: name for name, address in found.addresses.items()}
    wrong = []
    for cell, is_open in cells.items():
        pod = found.pods.get(names[cell.address]) or found.pods[cell.source]
        npc = next(one for one in found.npcs if one.host is pod.host)
        source = cell.source if cell.source in found.pods else found.addresses[cell.source]
        if cell.source == pod.host.name:
            source = "node"
        elif cell.source in (host.name for host in found.hosts):
            source = found.bridge(next(host for host in found.hosts if host.name == cell.source))
        told = npc.explains(source, cell.address, cell.protocol, cell.port)
        if told.allowed != is_open:
            wrong.append(f"{named(found, cell)} is {'open' if is_open else 'closed'}, explained: {told}")
    return wrong


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
