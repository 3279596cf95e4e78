"""Network namespaces as values: made, entered by subprocesses, and always removed, also after a run that was killed.

Law: a namespace's name carries its owner (`PID.STARTTIME` of the process that made it), so a later run can tell a
living owner's namespaces from a dead one's, and pid reuse cannot fool it. Nothing is ever done to the namespace of
the caller: every device is born inside the namespace that is to hold it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, TypeVar

from tunrouter.errors import HostError

PREFIX: Final = "tunlab"
NETNS_DIR: Final = Path("/run/netns")
COMMAND_SECONDS: Final = 60.0
T = TypeVar("T")


def wait_until(what: str, probe: Callable[[], T | None], seconds: float, *, pause: float = 0.02) -> T:
    """The first truthy answer of `probe`; HostError naming `what` when the deadline passes first."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise HostError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(pause)


def run(argv: Sequence[str], *, stdin: str | None = None, check: bool = True, seconds: float = COMMAND_SECONDS,
        env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """One command to its end, output captured; HostError with its own words when it fails."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=seconds, check=False, env=env)
    except FileNotFoundError:
        raise HostError(f"{argv[0]} is not installed", "run `make install`") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"`{' '.join(argv)}` did not end within {seconds:g} s") from None
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise HostError(f"`{' '.join(argv)}` failed with {done.returncode}: {said[-1] if said else 'no output'}")
    return done


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot; None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def owner() -> str:
    pid = os.getpid()
    return f"{pid}.{start_time(pid)}"


def owner_lives(name: str) -> bool:
    """Whether the process that made a namespace (or directory) of this name still runs."""
    pid, _, started = name.split("-")[1].partition(".")
    return pid.isdigit() and started.isdigit() and start_time(int(pid)) == int(started)


class Namespace:
    """One network namespace under /run/netns; `run` and `spawn` start processes inside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NETNS_DIR / name

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    def create(self) -> None:
        run(["ip", "netns", "add", self.name])
        self.ip("link set lo up")

    def delete(self) -> None:
        """Kills what still runs inside, then removes it; a missing one is no error."""
        if not self.path.exists():
            return
        kill_all(self.pids())
        run(["ip", "netns", "del", self.name], check=False)

    def pids(self) -> list[int]:
        return [int(pid) for pid in run(["ip", "netns", "pids", self.name], check=False).stdout.split()]

    def enter(self, argv: Sequence[str]) -> list[str]:
        # nsenter replaces itself by the command, so the pid is the command's; `ip netns exec` would mount a new /sys.
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, stdin: str | None = None, check: bool = True, seconds: float = COMMAND_SECONDS,
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
        return run(self.enter(argv), stdin=stdin, check=check, seconds=seconds, env=env)

    def spawn(self, *argv: str, stdout: int | IO[bytes] = subprocess.PIPE, stderr: int | IO[bytes] = subprocess.STDOUT,
              env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:  # fmt: skip
        """A process inside; in a session of its own, so that Ctrl-C reaches the lab alone, which then stops it."""
        return subprocess.Popen(
            self.enter(argv), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, start_new_session=True
        )

    def ip(self, *commands: str, check: bool = True) -> None:
        """`ip` commands as one batch: one fork, however many."""
        run(["ip", "-netns", self.name, "-batch", "-"], stdin="".join(f"{line}\n" for line in commands), check=check)

    def sysctl(self, key: str, value: object) -> None:
        self.run("sysctl", "-qw", f"{key}={value}")

    def read(self, path: str) -> str:
        """A file under /proc as a process inside sees it."""
        return self.run("cat", path).stdout


def stop(process: subprocess.Popen[bytes], *, by: signal.Signals = signal.SIGTERM, seconds: float = 3.0) -> int:
    """Ends a process of ours: asked first, forced after `seconds`; its exit code."""
    if process.poll() is None:
        process.send_signal(by)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()
    return process.returncode


def lines_until(process: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """What a process of ours prints, line by line, until its end or the deadline (monotonic)."""
    assert process.stdout is not None
    rest = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            return
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            return
        *lines, rest = (rest + more).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def kill_all(pids: Sequence[int]) -> None:
    """Kills what a dead or ending lab left in its namespaces."""
    for pid in pids:
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def sweep() -> list[str]:
    """Removes the namespaces of labs whose owner is dead; their names."""
    leftover = [path.name for path in sorted(NETNS_DIR.glob(f"{PREFIX}-*")) if not owner_lives(path.name)]
    for name in leftover:
        Namespace(name).delete()
    return leftover


def listening(process: subprocess.Popen[bytes], port: int, *, protocol: str = "tcp") -> bool:
    """Whether a socket listens (TCP) or is bound (UDP) on `port` in the network namespace of `process`."""
    state = {"tcp": "0A", "udp": "07"}[protocol]
    for version in ("", "6"):
        try:
            rows = Path(f"/proc/{process.pid}/net/{protocol}{version}").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError, OSError):
            return False
        for row in rows:
            fields = row.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == state:
                return True
    return False
