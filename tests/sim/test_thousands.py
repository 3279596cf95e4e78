"""Clusters of the size that is promised: how fast a change is everywhere, what that costs and what a node keeps."""

from __future__ import annotations

import resource

import pytest

from tests.sim.test_cluster import report

THOUSAND = 1000


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("loss", "seconds"), [(0.0, 0.5), (0.1, 0.6)])
def test_a_change_is_everywhere_in_half_a_second_and_silence_is_cheap(loss: float, seconds: float) -> None:
    found = report(nodes=THOUSAND, seconds=60.0, changes=2.0, loss=loss)
    assert found.changes > 15
    assert found.unreached == 0
    assert found.reached_worst < seconds
    assert found.bytes_per_second <= 3000
    assert found.state_kib <= 1024
    assert found.settled is not None
    assert found.faults == ()


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_five_thousand_hear_of_a_change_within_a_second() -> None:
    found = report(nodes=5 * THOUSAND, seconds=10.0, changes=2.0)
    assert found.changes > 10
    assert found.unreached == 0
    assert found.reached_worst < 1.0
    assert found.faults == ()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss <= 8 << 20  # KiB
