from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.host.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    found = Lab()
    try:
        yield found
    finally:
        found.close()
