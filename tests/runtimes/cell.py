"""A cell: where the container runtime of a lab's host lives, in its network, with process ids and mounts of its own.

    unshare (in the host's namespace) ── first process of the cell ── daemon, shims, monitors, containers

Law: whoever ends the first process has ended everything inside, and its mounts with it; the lab, which ends all that
runs in a host's network, ends a cell too. The one thing that leaves a cell is what a runtime mounts below /run/netns,
for there the agent looks.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import run, wait_until
from tunrouter.errors import HostError

PACKAGES: Final = {
    "busybox": "busybox-static",
    "containerd": "containerd",
    "ctr": "containerd",
    "podman": "podman",
    "runc": "runc",
    "unshare": "util-linux",
    "/usr/lib/cni/bandwidth": "containernetworking-plugins",
    "/usr/lib/cni/loopback": "containernetworking-plugins",
    "/usr/lib/cni/portmap": "containernetworking-plugins",
}
"""Of Debian: what brings a program."""
FIRST: Final = 'mount --bind "$0" "$0" && mount --make-private "$0" && trap "" CHLD && exec sleep infinity'
"""Mounts below the directory stay inside; and as it ignores SIGCHLD, the kernel buries the orphans that it adopts."""


def program(name: str) -> str:
    """Its path. Raises HostError that tells how to come by it."""
    found = shutil.which(name)
    if found is None:
        raise HostError(f"{name} is not installed", f"run `make test`, or: apt-get install {PACKAGES[name]}")
    return found


class Cell:
    """A context manager; mounts in `directory` are seen inside only."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self._outer: subprocess.Popen[bytes] | None = None
        self._first = 0
        self._let_in: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cell:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The first process ends with the one that made it: the lab need not know more than that one.
        wanted = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "unchanged"]
        command = ("sh", "-c", FIRST, str(self.directory))
        self._outer = self.host.namespace.spawn(program("unshare"), *wanted, *command, stdout=subprocess.DEVNULL)
        try:
            self._first = wait_until(f"a cell on {self.host} is ready", self._ready, 10)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is None:
            return
        # The outer one ends when the first has, which ends when all others have; a request would not move it.
        if self._outer.poll() is None:
            os.kill(self._first or self._outer.pid, signal.SIGKILL)
        for process in (self._outer, *self._let_in):
            process.wait()
        self._outer = None
        self._let_in.clear()

    def _ready(self) -> int | None:
        """The id of the first process, once it has nothing left to do."""
        assert self._outer is not None
        if self._outer.poll() is not None:
            raise HostError(f"a cell on {self.host} ended with {self._outer.returncode}", "see: unshare --help")
        for child in Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "sleep":
                return int(child)
        return None

    def enter(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self._first}", "--net", "--mount", "--pid", "--", program(argv[0]), *argv[1:]]

    def run(self, *argv: str, check: bool = True, seconds: float = 60.0,
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
        return run(self.enter(argv), stdin="", check=check, seconds=seconds, env=env)

    def spawn(self, *argv: str, log: IO[bytes], env: dict[str, str] | None = None) -> None:
        """A program that ends with the cell."""
        self._let_in.append(
            subprocess.Popen(
                self.enter(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        )
