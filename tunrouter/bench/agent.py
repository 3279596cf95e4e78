"""One agent of the product as a lab's host runs it: a subprocess with its own state, sockets, password file and log.

Law: the lab knows the product only from outside, by its command line; what a user cannot do, the lab does not do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from tunrouter.bench.namespaces import Namespace, kill_all, run, stop, wait_until
from tunrouter.core.status import Connection, Snapshot
from tunrouter.errors import HostError

PORT: Final = 6783
START_SECONDS: Final = 15.0
PACKAGE: Final = Path(__file__).parents[2]
"""The checkout that this very file is of; an agent may be told to run another's."""
CLI: Final = (sys.executable, "-m", "tunrouter.cli")


class Agent:
    """`tunrouter up` in a host's namespace, and the commands that talk to it."""

    def __init__(self, namespace: Namespace, directory: Path, *, name: str, block: str) -> None:
        self.namespace = namespace
        self.directory = directory
        self.name = name
        self.block = block
        self.log = directory / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._arguments: tuple[str, ...] = ()
        self.package = PACKAGE
        self.extra_environment: dict[str, str] = {}
        """Variables for `up` alone."""
        for part in ("state", "run"):
            (directory / part).mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TUNROUTER_", "WEAVE_"))}
        return inherited | {
            "PYTHONPATH": str(self.package),
            # Else `-m` would find the package of the directory we stand in first.
            "PYTHONSAFEPATH": "1",
            "TUNROUTER_STATE_DIR": str(self.directory / "state"),
            "TUNROUTER_RUN_DIR": str(self.directory / "run"),
        }

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise HostError(f"the agent of {self.name} was not started")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *arguments: str, password: str | None = None, wait: bool = True) -> None:
        """`up` with the host's name and block, an empty one being left out; `password` is given by a file.

        Without a password nothing is encrypted.
        """
        secret = self.directory / "password"
        secret.unlink(missing_ok=True)
        if password is not None:
            secret.touch(mode=0o600)
            secret.write_text(password + "\n")
            arguments = ("--password-file", str(secret), *arguments)
        block = ("--block", self.block) if self.block else ()
        self._arguments = ("up", "--name", self.name, *block, *arguments)
        self._spawn(wait=wait)

    def restart(self, *, wait: bool = True) -> None:
        """The same command line again, after `kill` or `stop`."""
        self._spawn(wait=wait)

    def _spawn(self, *, wait: bool) -> None:
        with self.log.open("ab") as log:
            self._process = self.namespace.spawn(
                *CLI, *self._arguments, stdout=log, env=self.environment | self.extra_environment
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        socket = self.directory / "run" / "tunrouter.sock"

        def ready() -> bool:
            if not self.running:
                raise HostError(f"the agent of {self.name} ended with {self.process.returncode}: {self.last_words()}")
            # It exits with 1, and tells all the same, while no pod can be added yet.
            return socket.exists() and self.command("status", "-o", "json", check=False).stdout != ""

        wait_until(f"the agent of {self.name} answers", ready, START_SECONDS, pause=0.05)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def ask_to_stop(self) -> None:
        """For good, as Ctrl-C does."""
        if self.running:
            self.process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        if self._process:
            stop(self._process, by=signal.SIGINT)

    def leave(self) -> None:
        """As a service manager ends it, which perhaps starts another one: its workers go on for a while."""
        stop(self.process)

    def crash(self) -> None:
        """SIGKILL for the agent alone, as the kernel's OOM killer has it; returns when the process is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill(self) -> None:
        """SIGKILL for all that it consists of, as when the power fails."""
        others = {*family(self.process.pid), *self.workers()} - {self.process.pid}
        self.process.send_signal(signal.SIGKILL)
        kill_all(sorted(others))
        self.process.wait()

    def workers(self) -> list[int]:
        """Its processes that move packets; they may be nobody's children, or have no agent any more."""
        meeting = f"{self.directory / 'run'}/worker-".encode()
        return [pid for pid in self.namespace.pids() if meeting in command_line(pid)]

    def command(self, *arguments: str, check: bool = True, seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
        """`tunrouter …` beside this agent; HostError with its own words when `check` and it fails."""
        argv = self.namespace.enter([*CLI, *arguments])
        return run(argv, check=check, seconds=seconds, env=self.environment)

    def snapshot(self) -> Snapshot:
        return msgspec.json.decode(self.command("status", "-o", "json", check=False).stdout, type=Snapshot)

    def connections(self) -> tuple[Connection, ...]:
        return self.snapshot().connections

    def wait_established(self, count: int, seconds: float = 10.0) -> None:
        def established() -> bool:
            nodes = {connection.peer for connection in self.connections() if connection.state == "established"}
            return len(nodes) >= count

        wait_until(f"{count} established connections on {self.name}", established, seconds, pause=0.05)

    def resident_mib(self) -> float:
        """Resident memory of the agent and its children, in MiB."""
        return sum(resident_kib(pid) for pid in family(self.process.pid)) / 1024

    def cpu_seconds(self) -> float:
        """Processor time of the agent and its children so far."""
        return sum(cpu_seconds(pid) for pid in family(self.process.pid))


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    members = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text().split():
            members += family(int(child))
    return members


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
