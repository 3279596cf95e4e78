"""Two hosts with an agent and a container runtime each, for the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from nacl.utils import random

from tests.runtimes.leftovers import remains
from tests.runtimes.runtime import Pair, Runtime
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.keys import generate_secret

pytest.register_assert_rewrite("tests.runtimes.every")


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The runtime is the one that the test's file names."""
    kind: type[Runtime] = request.module.RUNTIME
    with Lab(hosts=2, offloads="off") as lab:
        lab.start_agents(password=generate_secret(random))
        with kind(lab.hosts[0]) as one, kind(lab.hosts[1]) as two:
            yield one, two


@pytest.fixture
def pair(started: Pair) -> Iterator[Pair]:
    """Without pods at first; and in the end nothing of any may remain."""
    yield started
    for runtime in started:
        if not runtime.host.agent.running:
            runtime.host.agent.restart()
        runtime.remove_all()
        wait_until(f"nothing remains on {runtime.host}", partial(_is_clean, runtime), 5)


def _is_clean(runtime: Runtime) -> bool:
    return not remains(runtime.host)
