"""The compiler against the evaluator, cell by cell, over the stated clusters and drawn ones."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.policy.drawing import clusters
from tests.policy.judged import ORDERS, wrong
from tests.policy.objects import cells, cells_stated, some_cells
from tests.policy.spec.cluster import Cluster
from tests.policy.stated import Stated, statements
from tests.policy.test_spec import EVERY

QUICK_CLUSTERS, QUICK_CELLS = 100, 250
MANY_CLUSTERS = 150


@pytest.mark.parametrize("stated", EVERY, ids=lambda stated: stated.name)
def test_the_stated_cells(stated: Stated) -> None:
    said = statements(f"{stated.may}, {stated.may_not}")
    asked = [cell for one in said for cell in cells_stated(stated.cluster, one)]
    for order in ORDERS:
        assert wrong(stated.cluster, asked, order)[1] == []


def test_drawn_cells() -> None:
    assert _compared(QUICK_CLUSTERS, QUICK_CELLS) >= 20_000


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_cell_of_many_drawn_clusters() -> None:
    count = _compared(MANY_CLUSTERS, None)
    print(f"{count} cells compared")  # noqa: T201
    assert count >= 100_000


def _compared(examples: int, each: int | None) -> int:
    """How many cells, in as many clusters; of each cluster so many, or all."""
    total = 0

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(clusters(), st.sampled_from(ORDERS), st.integers(0, 1 << 32))
    def compare(cluster: Cluster, order: tuple[str, ...], seed: int) -> None:
        nonlocal total
        asked = list(cells(cluster)) if each is None else some_cells(cluster, each, seed)
        count, found = wrong(cluster, asked, order)
        total += count
        note(f"{len(found)} of {count} cells")
        assert found[:3] == []

    compare()
    return total
