from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doctor.patients import Patient
from tests.host.lab import Lab


@pytest.fixture(scope="module")
def whole() -> Iterator[Patient]:
    """One host for all tests of a module, which each leave it as well as it was."""
    with Patient() as found:
        yield found


@pytest.fixture
def healthy(whole: Patient) -> Iterator[Patient]:
    if whole.last:
        assert whole.ailments() == [], "the test before left something"
    yield whole
    whole.told = whole.known


@pytest.fixture
def lab() -> Iterator[Lab]:
    found = Lab()
    try:
        yield found
    finally:
        found.close()
