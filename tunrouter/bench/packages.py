"""Programs out of Debian packages, unpacked into a cache of ours: nothing is installed, and apt's configuration stays.

Law: a package is taken from the first suite that has it and whose program runs here (a newer suite's may want a newer
libc); what cannot be had is an error that names every suite and what it said. A cached package is used without asking
the network. Downloads into one cache take turns, and a package appears in it whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from tunrouter.bench.namespaces import run
from tunrouter.errors import HostError

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "tunrouter-bench"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR: Final = "http://deb.debian.org/debian"
OWN: Final = "own"
"""The suite that this machine's own apt configuration names."""
DOWNLOAD_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Package:
    name: str
    probe: tuple[str, ...]
    """A program of it and arguments with which it ends at once with 0: the proof that it runs here."""
    suites: tuple[str, ...] = ("sid", "trixie", OWN)
    """The preferred first."""
    libraries: tuple[str, ...] = ()
    """Packages whose shared libraries it needs and a machine may lack; from the same suite."""


@dataclass(frozen=True)
class Unpacked:
    root: Path
    suite: str

    def program(self, path: str) -> str:
        return str(self.root / path)

    def version(self, name: str) -> str:
        """A package's version, from its file name."""
        return unquote(next(self.root.glob(f"{name}_*.deb")).name.split("_")[1])

    def environment(self) -> dict[str, str]:
        """Of a process that runs one of these programs."""
        libraries = [str(path) for part in ("lib", "usr/lib") for path in (self.root / part).glob("*-linux-gnu")]
        return dict(os.environ) | ({"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})


def fetch(package: Package) -> Unpacked:
    """The package, from the cache or downloaded; HostError with each suite's reason when it cannot be had."""
    if found := cached(package):
        return found
    reasons = []
    with cache_locked():
        if found := cached(package):  # by whom we waited for
            return found
        for suite in package.suites:
            try:
                return unpack(package, suite)
            except HostError as error:
                reasons.append(f"{suite}: {error.what}")
    raise HostError(f"no suite has a {package.name} that runs here ({'; '.join(reasons)})", "apt-get update")


def cached(package: Package) -> Unpacked | None:
    places = (Unpacked(CACHE / suite / package.name, suite) for suite in package.suites)
    return next((place for place in places if place.root.exists()), None)


def unpack(package: Package, suite: str) -> Unpacked:
    """Downloads, unpacks and tries the package in a directory beside its place, then moves it there."""
    target = CACHE / suite / package.name
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{package.name}-", dir=target.parent))
    try:
        download([package.name, *package.libraries], suite, fresh)
        for archive in sorted(fresh.glob("*.deb")):
            run(["dpkg-deb", "-x", str(archive), str(fresh)])
        try_out(package, Unpacked(fresh, suite))
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Unpacked(target, suite)


def try_out(package: Package, place: Unpacked) -> None:
    program, *arguments = package.probe
    run([place.program(program), *arguments], env=place.environment(), seconds=10)


def download(names: list[str], suite: str, directory: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="apt-", dir=CACHE) as lists:
        options = [] if suite == OWN else foreign(suite, Path(lists))
        # apt's own unprivileged user cannot write here.
        apt = ["apt-get", "-q", *(word for option in (*options, "APT::Sandbox::User=root") for word in ("-o", option))]
        if options:
            run([*apt, "update"], seconds=DOWNLOAD_SECONDS)
        argv = [*apt, "download", *names]
        done = subprocess.run(
            argv, cwd=directory, check=False, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise HostError(f"apt-get download: {said[-1] if said else f'exit {done.returncode}'}")


def foreign(suite: str, directory: Path) -> list[str]:
    """apt options for lists and sources of its own, under `directory`."""
    if not KEYRING.exists():
        raise HostError(f"{KEYRING} is not here")
    for part in ("lists/partial", "archives/partial"):
        (directory / part).mkdir(parents=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    return [
        f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=/dev/null", f"Dir::State::lists={directory}/lists",
        f"Dir::Cache={directory}", f"Dir::Cache::archives={directory}/archives",
    ]  # fmt: skip


@contextmanager
def cache_locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
