"""The barrier around a step of the control plane: what fails is counted, logged once per kind, and given up alone.

Law: no effect and no message stops the loop. Cancellation and exit pass: they are meant for who waits.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Final

from tunrouter.core import bounds

COUNTER: Final = "control_errors"


class Barrier:
    """`with barrier:` around each step; it may be entered again inside itself."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._seen: set[str] = set()
        self.errors = 0

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.errors += 1
        what = f"{type(error).__name__} at {_place(trace)}"
        if what not in self._seen and len(self._seen) < bounds.MAX_ERROR_KINDS:
            self._seen.add(what)
            self._log.error("a step of control failed and was given up (said once per kind): %s: %s", what, error)
        return True


def _place(trace: TracebackType | None) -> str:
    """Where it was raised, as file and line."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else "?"
