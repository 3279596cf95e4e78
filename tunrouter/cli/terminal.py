"""A terminal that shows one frame after the other, in whatever size it has at the moment.

Law: whatever ends the command, the terminal is as before: its cursor is seen, its lines wrap, and the last frame stays
above the prompt.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Final

_BEGIN: Final = "\x1b[?25l\x1b[?7l\x1b[2J"
"""No cursor, no wrapping, nothing on the screen."""
_END: Final = "\x1b[?7h\x1b[?25h\n"
_HOME: Final = "\x1b[H"
_LINE: Final = "\x1b[K\n"
"""The rest of the line is cleared, not the whole screen: that would flicker."""
_REST: Final = "\x1b[K\x1b[J"
_SIZE: Final = os.terminal_size((80, 24))
_RESIZED: Final = {signal.SIGWINCH}
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class Terminal:
    """A context manager around standard output."""

    def __init__(self) -> None:
        self._begun = False

    def __enter__(self) -> Terminal:
        # Blocked, the kernel keeps the signal for `wait`.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _RESIZED)
        self._handlers = {number: signal.signal(number, _end) for number in _ENDING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun:
            _write(_END)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def show(self, lines: Sequence[str]) -> None:
        begin = "" if self._begun else _BEGIN
        self._begun = True  # first: from here on there is something to put right, whenever a signal comes
        _write(begin + _HOME + _LINE.join(lines) + _REST)

    def wait(self, seconds: float) -> bool:
        """Returns after so many seconds, or True as soon as the size has changed."""
        return signal.sigtimedwait(_RESIZED, max(0.0, seconds)) is not None

    @property
    def size(self) -> os.terminal_size:
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return _SIZE
        return found if found.columns and found.lines else _SIZE


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
