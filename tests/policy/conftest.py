"""One live cluster for all tests of a worker that change nothing of it but policies, labels and what they put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.policy.cluster import Cluster, probed
from tests.policy.probing import Prober


@pytest.fixture(scope="session")
def live() -> Iterator[tuple[Cluster, Prober]]:
    with probed() as made:
        yield made
