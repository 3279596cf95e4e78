"""Containers by name or id, as the runtimes on this host know them.

Law: a runtime is asked, never its files; one that is not installed, does not know the container, or does not answer in
time is passed over.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Final, NamedTuple

RUNTIMES: Final = ("docker", "podman", "nerdctl")
SECONDS: Final = 10.0


class Container(NamedTuple):
    id: str
    pid: int
    """Of its first process, 0 while it does not run."""


def find(name: str) -> Container | None:
    """The first runtime's that knows it. What begins like an option is no name."""
    for runtime in RUNTIMES if not name.startswith("-") else ():
        if shutil.which(runtime) is not None and (found := _ask(runtime, name)) is not None:
            return found
    return None


def _ask(runtime: str, name: str) -> Container | None:
    argv = [runtime, "inspect", "--type", "container", "--format", "{{.Id}} {{.State.Pid}}", name]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    if done.returncode or len(words) != 2 or not words[1].isdigit():
        return None
    return Container(words[0], int(words[1]))
