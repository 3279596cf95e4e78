"""Labs with running agents, for the tests of the whole product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from nacl.utils import random

from tunrouter.bench.lab import Lab
from tunrouter.core.keys import generate_secret


@pytest.fixture(scope="session")
def secret() -> str:
    """One 256-bit secret for all labs."""
    return generate_secret(random)


@pytest.fixture
def underlay() -> Literal[4, 6]:
    """Which IP version the hosts speak; a test that is parametrized with `underlay` chooses."""
    return 4


@pytest.fixture
def pair(secret: str, underlay: Literal[4, 6]) -> Iterator[Lab]:
    """Two hosts that know each other, a pod `a` on each; the underlay carries single packets, without offloads."""
    with Lab(hosts=2, offloads="off", underlay=underlay) as lab:
        lab.start_agents(password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        yield lab
