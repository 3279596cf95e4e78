"""The fixture that runs a test once on each kernel."""

from __future__ import annotations

import pytest

from tests.dataplane.kernels import KERNELS


@pytest.fixture(scope="session", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    """The kernel's name, for `pair.Side`; of the session's scope, because property tests share it."""
    name: str = request.param
    return name
