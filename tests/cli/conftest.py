"""A command line of its own for each test, and a stub agent for it to ask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.test_render import SNAPSHOT
from tests.edge.serving import Stub, serving
from tunrouter.cli.run import run


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("TUNROUTER_", "WEAVE_", "IPALLOC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TUNROUTER_RUN_DIR", str(tmp_path))


@pytest.fixture
def tunrouter(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Done:
        code = run(arguments)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(SNAPSHOT)
    with serving(tmp_path / "tunrouter.sock", stub):
        yield stub
