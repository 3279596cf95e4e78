from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyroute2.netns import setns

from tunrouter.edge import netns


@pytest.fixture
def inside() -> Iterator[Callable[[Callable[[], object]], object]]:
    """Runs a function in a fresh namespace."""
    name = f"tredge{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with netns.Namespace(f"/run/netns/{name}") as namespace, ThreadPoolExecutor(1) as thread:
            thread.submit(setns, namespace.descriptor).result()
            yield lambda work: thread.submit(work).result(timeout=30)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
