"""The image, built once, as an archive, as the files of its root, and on a lab's host that has podman."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nacl.utils import random

from tests.image.archive import ARCHIVE, Archive
from tests.image.contained import Contained
from tunrouter.bench.lab import Lab
from tunrouter.core.keys import generate_secret

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 900


@pytest.fixture(scope="session")
def archive() -> Archive:
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "COV"))}
    subprocess.run(["make", "-s", "image"], cwd=ROOT, env=outer, timeout=BUILD_SECONDS, check=True)
    return Archive(ROOT / ARCHIVE)


@pytest.fixture(scope="session")
def root(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("root")
    with tarfile.open(fileobj=archive.layer()) as layer:
        layer.extractall(directory, filter="fully_trusted")
    return directory


@pytest.fixture(scope="session")
def contained(archive: Archive) -> Iterator[Contained]:
    """On a host whose one neighbour has an agent of this checkout."""
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        one.filter_bridged(False)
        secret = generate_secret(random)
        two.agent.start(password=secret)
        with Contained(one, two, archive, secret) as podman:
            yield podman
