"""Receiver indices: runs never overlap, start where the worker's filter expects, and rest before they return."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tunrouter.core import bounds
from tunrouter.core.indices import MAX_QUARANTINED, SLOT, Indices


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 63, 64])
def test_runs_start_at_a_multiple_of_the_workers_and_do_not_overlap(workers: int) -> None:
    indices = Indices(workers, random.Random(workers).randbytes)
    bases = [indices.allocate(0.0) for _ in range(5000)]
    assert all(base % workers == 0 for base in bases)
    spans = sorted((base, base + bounds.MAX_WORKERS) for base in bases)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    assert all(base > 0 and base + bounds.MAX_WORKERS < 1 << 32 for base in bases)


def test_an_index_rests_ten_minutes() -> None:
    draws = iter([(5).to_bytes(4, "big")] * 3 + [(6).to_bytes(4, "big")] + [(5).to_bytes(4, "big")] * 3)
    indices = Indices(1, lambda size: next(draws))
    first = indices.allocate(0.0)
    indices.release(first, 1.0)
    assert indices.allocate(2.0) == 6 * SLOT
    assert indices.allocate(1.0 + bounds.INDEX_QUARANTINE_SECONDS) == first


def test_what_rests_is_bounded() -> None:
    indices = Indices(1, random.Random(1).randbytes)
    for _ in range(MAX_QUARANTINED + 1000):
        indices.release(indices.allocate(0.0), 0.0)
    assert len(indices._resting) == len(indices._taken) == MAX_QUARANTINED
