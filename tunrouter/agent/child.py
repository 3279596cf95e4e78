"""A worker's process as the agent sees it: started with its descriptors or taken over, told over a pipe, killed.

Law: its life is its pipe. A pipe that closes, refuses state or is not answered on means a dead worker, whatever its
process still does.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tunrouter.core import seam
from tunrouter.dataplane.pipe import PipeEnd, open_pipe
from tunrouter.dataplane.succession import Heirloom
from tunrouter.errors import HostError

MODULE: Final = "tunrouter.agent.worker"


class Order(NamedTuple):
    """What every worker of this agent is started with."""

    tun: str
    log_level: str
    log_format: str
    build: str = ""
    """What code they run."""
    directory: Path | None = None
    """Where workers without an agent are met; if nowhere, they end with it."""

    def meeting(self, number: int) -> str:
        return f"{self.directory}/worker-{number}.sock" if self.directory is not None else ""


class _Process:
    """One process, from its start to its end."""

    def __init__(self, number: int, pipe: PipeEnd[seam.ToControl], now: float) -> None:
        self.number = number
        self.pipe = pipe
        self.started = now
        self.kernel = ""
        """What moves its packets; empty until it says so for the first time."""
        self.checked_at = now
        self.alive_at = now
        self.writing = False

    def unanswered(self, now: float) -> float:
        """Since how many seconds it owes an answer."""
        return now - self.checked_at if self.checked_at > self.alive_at else 0.0


class Child(_Process):
    """One that this agent started."""

    def __init__(
        self, number: int, order: Order, sockets: Sequence[int], now: float, predecessor: int | None = None
    ) -> None:
        """Raises HostError. What is sent from now on waits in the pipe until the process has started.

        `predecessor` is the pidfd of one whose sockets these are, and which this one ends.
        """
        pipe, end = open_pipe()
        super().__init__(number, pipe, now)
        udps = ",".join(map(str, sockets))
        inherited = () if predecessor is None else (predecessor,)
        settings = (order.log_level, order.log_format, order.build, order.meeting(number))
        argv = (str(number), order.tun, str(end.fileno()), udps, *settings, "".join(map(str, inherited)))
        try:
            # -P: nothing is imported from the directory the agent happens to be started in.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, *argv],
                stdin=subprocess.DEVNULL,
                pass_fds=(end.fileno(), *sockets, *inherited),
            )
        except OSError as error:
            self.pipe.close()
            raise HostError(
                f"cannot start a worker: {error.strerror}", "see whether memory or processes ran out"
            ) from None
        finally:
            end.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the kernel is done with it; asking reaps it."""
        return self._process.poll() is not None

    @property
    def fate(self) -> str:
        """How it ended, as far as the kernel has said by now."""
        code = self._process.poll()
        if code is None:
            return "it ended"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()


class Adopted(_Process):
    """One that an earlier agent started; somebody else reaps it."""

    def __init__(self, number: int, heirloom: Heirloom, now: float) -> None:
        super().__init__(number, heirloom.pipe, now)
        self.pid = heirloom.pid
        self._process = heirloom.process
        weakref.finalize(self, os.close, heirloom.process)

    @property
    def ended(self) -> bool:
        return bool(select.select([self._process], [], [], 0)[0])

    @property
    def fate(self) -> str:
        return "it ended"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)


Member = Child | Adopted
