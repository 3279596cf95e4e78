"""An API server for one test, over plain HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube.apiserver import Served, serving


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as served:
        yield served
