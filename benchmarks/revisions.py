"""Another revision of this repository, checked out and built beside this one.

Law: a checkout is a detached `git worktree` in a directory of its own and gone at the end; what a killed run registered
is pruned by the next. The revision's compiled kernel is built there from its own sources.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tunrouter.bench.agent import PACKAGE
from tunrouter.bench.namespaces import run
from tunrouter.errors import ConfigError, HostError

BUILD_SECONDS: Final = 300.0


def resolve(revision: str, checkout: Path = PACKAGE) -> str:
    """The commit of that name, in full."""
    argv = [
        "git",
        "-C",
        str(checkout),
        "rev-parse",
        "--quiet",
        "--verify",
        "--end-of-options",
        f"{revision}^{{commit}}",
    ]
    done = run(argv, check=False)
    if done.returncode:
        raise ConfigError(f"{revision!r} is no revision of this repository", "git fetch, or choose another --base")
    return done.stdout.strip()


@contextmanager
def checked_out(commit: str, checkout: Path = PACKAGE) -> Iterator[Path]:
    """A directory that holds the commit, built, while the context lasts."""
    git = ["git", "-C", str(checkout), "worktree"]
    run([*git, "prune"])
    home = Path(tempfile.mkdtemp(prefix="tunrouter-revision-"))
    place = home / "tree"
    try:
        run([*git, "add", "--quiet", "--detach", str(place), commit])
        build(place)
        yield place
    finally:
        run([*git, "remove", "--force", str(place)], check=False)
        shutil.rmtree(home, ignore_errors=True)


def build(place: Path) -> None:
    """Compiles what the checkout has to compile, in place; nothing in revisions that were Python alone."""
    if not (place / "setup.py").exists():
        return
    # setup.py's own relative paths count from where it stands.
    argv = ["env", "-C", str(place), sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = run(argv, check=False, seconds=BUILD_SECONDS)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise HostError(f"cannot build {place}: {said[-1] if said else f'exit {done.returncode}'}", "make install")
    # The compiler's failure does not fail the build, so that the package installs without one.
    plane = place / "tunrouter" / "dataplane"
    if (plane / "build.py").exists() and not any(plane.glob("_kernel*.so")):
        raise HostError(f"the compiled kernel of {place} was not built: its figures would be the reference kernel's",
                        "see what `setup.py build_ext --inplace` says there")  # fmt: skip
