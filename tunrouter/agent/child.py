"""A worker's process as the agent sees it: started with its descriptors, told over a pipe, killed and reaped.

Law: its life is its pipe. A pipe that closes, refuses state or is not answered on means a dead worker, whatever its
process still does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from tunrouter.dataplane.pipe import open_pipe
from tunrouter.errors import HostError

MODULE: Final = "tunrouter.agent.worker"


class Order(NamedTuple):
    """What every worker of this agent is started with."""

    tun: str
    log_level: str
    log_format: str


class Child:
    """One process, from its start to its end."""

    def __init__(self, number: int, order: Order, sockets: Sequence[int], now: float) -> None:
        """Raises HostError. What is sent from now on waits in the pipe until the process has started."""
        self.number = number
        self.started = now
        self.kernel = ""
        """What moves its packets; empty until it says so for the first time."""
        self.checked_at = now
        self.alive_at = now
        self.writing = False
        self.pipe, end = open_pipe()
        udps = ",".join(map(str, sockets))
        argv = (str(number), order.tun, str(end.fileno()), udps, order.log_level, order.log_format)
        try:
            # -P: nothing is imported from the directory the agent happens to be started in.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, *argv],
                stdin=subprocess.DEVNULL,
                pass_fds=(end.fileno(), *sockets),
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

    def unanswered(self, now: float) -> float:
        """Since how many seconds it owes an answer."""
        return now - self.checked_at if self.checked_at > self.alive_at else 0.0

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
