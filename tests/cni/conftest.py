"""The plugin for the tests of this folder: each runs with both of its programs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cni import programs
from tests.cni.shim import Agent, Runtime

Answering = Callable[[bytes | None], Agent]


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each kind the program without patience."""
    made = tmp_path_factory.mktemp("hasty")
    return {kind: programs.variant(kind, made / kind, programs.HASTY[kind]) for kind in programs.KINDS}


@pytest.fixture(params=programs.KINDS)
def runtime(request: pytest.FixtureRequest, tmp_path: Path, hasty: dict[str, Path]) -> Runtime:
    return Runtime(tmp_path, request.param, programs.program(request.param), hasty[request.param])


@pytest.fixture
def answering(runtime: Runtime) -> Iterator[Answering]:
    with contextlib.ExitStack() as stack:

        def start(answer: bytes | None) -> Agent:
            agent = Agent(runtime.socket, answer)
            stack.callback(agent.close)
            return agent

        yield start
