"""A network namespace of the test's own, in which it runs as a whole: its servers, its loop, and what it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pyroute2.netns import setns

from tests.npc.tables import namespace
from tunrouter.bench.namespaces import Namespace


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """Threads and processes that the test starts are in it, too."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace("npc") as made:
            setns(str(made.path))
            try:
                yield made
            finally:
                setns(home)
    finally:
        os.close(home)
