"""Packages come from the first suite whose program runs here, into a cache that never holds half of one.

apt-get and dpkg-deb are stand-ins on PATH: what a suite has is a line of the test.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunrouter.bench import packages
from tunrouter.bench.packages import Package
from tunrouter.errors import HostError

APT = """#!/bin/sh
echo "$@" >> {log}
suite=own
for word; do
    case $word in Dir::Etc::sourcelist=*) suite=$(sed 's/.* \\([a-z]*\\) main/\\1/' "${{word#*=}}");; esac
done
for word; do [ "$word" = download ] && break; done
[ "$word" = download ] || exit 0
[ -f {suites}/$suite ] || {{ echo "E: Unable to locate package tool" >&2; exit 100; }}
cp {suites}/$suite "tool_1%3a2.0~${{suite}}_amd64.deb"
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/bin" "$3/usr/lib/x86_64-linux-gnu"
cp "$2" "$3/usr/bin/tool" && chmod +x "$3/usr/bin/tool"
"""
TOOL = Package("tool", probe=("usr/bin/tool", "--version"), suites=("sid", "trixie", packages.OWN))
RUNS, BROKEN = "#!/bin/sh\nexit 0\n", "#!/bin/sh\necho 'wants a newer libc' >&2\nexit 1\n"


class World:
    """What the suites have, and what was asked of apt."""

    def __init__(self, place: Path) -> None:
        self.suites = place / "suites"
        self.log = place / "log"
        self.suites.mkdir()
        self.log.touch()

    def has(self, suite: str, program: str) -> None:
        (self.suites / suite).write_text(program)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
        (programs / name).write_text(text.format(log=world.log, suites=world.suites) if name == "apt-get" else text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(packages, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(packages, "KEYRING", world.log)
    return world


def test_the_newest_suite_whose_program_runs_is_taken(world: World) -> None:
    world.has("sid", BROKEN)
    world.has("trixie", RUNS)
    world.has("own", RUNS)
    found = packages.fetch(TOOL)
    assert found.suite == "trixie"
    assert found.version("tool") == "1:2.0~trixie"
    assert found.environment()["LD_LIBRARY_PATH"].endswith("/trixie/tool/usr/lib/x86_64-linux-gnu")


def test_a_cached_package_asks_nobody(world: World) -> None:
    world.has("own", RUNS)
    first = packages.fetch(TOOL)
    asked = world.log.read_text()
    assert packages.fetch(TOOL) == first
    assert world.log.read_text() == asked


def test_what_cannot_be_had_names_every_suite_and_leaves_nothing(world: World) -> None:
    world.has("sid", BROKEN)
    with pytest.raises(HostError) as refused:
        packages.fetch(TOOL)
    said = str(refused.value)
    assert "sid: " in said
    assert "wants a newer libc" in said
    assert "trixie: apt-get download: E: Unable to locate package tool" in said
    assert "own: apt-get download" in said
    assert not [file for file in packages.CACHE.rglob("*") if file.is_file() and file.name != "lock"]


def test_without_debians_keys_only_our_own_archive_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "KEYRING", world.log.parent / "missing")
    world.has("sid", RUNS)
    world.has("own", RUNS)
    assert packages.fetch(TOOL).suite == packages.OWN
    assert "sourcelist" not in world.log.read_text()
