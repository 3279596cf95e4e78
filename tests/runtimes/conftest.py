"""Two hosts with an agent and a container runtime each, for the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest
from nacl.utils import random

from tests.runtimes.leftovers import remains
from tests.runtimes.runtime import Pair, Runtime
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.keys import generate_secret

if TYPE_CHECKING:
    from tests.runtimes.scene import Scene

# These are imported by tests only, so that their assertions tell what they compare.
for module in ("crashes", "every", "inside", "ports", "scene", "spoofing"):
    pytest.register_assert_rewrite(f"tests.runtimes.{module}")


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


@pytest.fixture(scope="class", params=["hairpin", "isolated"])
def bridge_mode(started: Pair, request: pytest.FixtureRequest) -> Iterator[str]:
    """Both modes of the bridge, which the hosts' `bridge-nf-call-iptables` decides; it is as it was afterwards."""
    mode: str = request.param
    before = started[0].host.agent.snapshot().host.bridge_mode
    _switch(started, mode)
    yield mode
    _switch(started, before)


def _switch(pair: Pair, mode: str) -> None:
    for runtime in pair:
        runtime.host.filter_bridged(mode == "hairpin")
        # The agent looks every two seconds, and whenever a link comes or goes.
        runtime.host.namespace.ip("link add bell type bridge", "link del bell")
    for runtime in pair:
        wait_until(f"{runtime.host} is in mode {mode}", partial(_in_mode, runtime, mode), 10)


def _in_mode(runtime: Runtime, mode: str) -> bool:
    return runtime.host.agent.snapshot().host.bridge_mode == mode


@pytest.fixture(scope="class")
def scene(started: Pair, bridge_mode: str) -> Iterator[Scene]:
    """With pods of its own, in one mode of the bridge after the other."""
    from tests.runtimes.scene import Scene

    with Scene(started, started[0].launch("sleep", "infinity")) as scene:
        yield scene
    for runtime in started:
        runtime.remove_all()
        assert _is_clean(runtime)
