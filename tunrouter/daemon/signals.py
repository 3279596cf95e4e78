"""SIGTERM in the first moments of a process: kept by the kernel until somebody hears it.

Law: the first process of a container has no default handlers, so the kernel drops a signal that it does not handle yet;
not so one that is blocked. What is blocked stays so over execve(2). SIGINT is not held: Python hears it from its start,
and Ctrl-C is to end what hangs.
"""

from __future__ import annotations

import signal
from typing import Final

_HELD: Final = (signal.SIGTERM,)


def hold() -> None:
    """From now on it waits."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release() -> None:
    """The handlers are set: what came meanwhile comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
