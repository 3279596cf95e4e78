"""After a long series of changes the kernel has exactly what a fresh process makes of their end alone."""

from __future__ import annotations

from random import Random

import pytest

from tests.policy.cluster import Cluster, Pod
from tests.policy.expecting import expected
from tests.policy.kernel import listing
from tests.policy.probing import Prober
from tests.policy.written import drawn
from tunrouter.bench.namespaces import wait_until

pytestmark = pytest.mark.root


def test_changes_add_up(live: tuple[Cluster, Prober]) -> None:
    churn(live, seed=3, changes=25)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_many_changes_add_up(live: tuple[Cluster, Prober]) -> None:
    for seed in range(8):
        churn(live, seed, changes=150)


def churn(live: tuple[Cluster, Prober], seed: int, changes: int) -> None:
    found, prober = live
    random = Random(seed)
    sets = list(drawn(found))
    guests: list[Pod] = []
    for number in range(changes):
        match random.randrange(6):
            case 0 | 1:
                found.apply(*random.choice(sets).policies)
            case 2:
                found.label_pod(random.choice(sorted(found.pods)), tier=random.choice(("front", "back")))
            case 3:
                found.label_namespace(random.choice("xyz"), **random.choice(({}, {"tier": "front"}, {"ns": "other"})))
            case 4 if len(guests) < 3:
                guests.append(found.add_pod(random.choice("xyz"), f"guest{number}", random.choice(found.hosts)))
            case _ if guests:
                found.delete_pod(guests.pop(random.randrange(len(guests))))
    for guest in guests:
        found.delete_pod(guest)
    found.enforce(*random.choice(sets).policies)
    wait_until("cells are as they should be", lambda: not prober.wrong(expected(found, found.cells())), 5)
    before = [listing(host) for host in found.hosts]
    for npc in found.npcs:
        npc.kill()
        npc.start(wait=False)
    found.wait_in_force(20)
    assert [listing(host) for host in found.hosts] == before
    assert not prober.wrong(expected(found, found.cells()))
    for key in found.pods:
        found.label_pod(key)
    for namespace in "xyz":
        found.label_namespace(namespace)
