"""The log: one line an event, `level message` for people or one JSON object for machines; secrets never reach it.

Law: whatever a peer can cause is said once while it repeats, then counted: a key is silent for a minute after its last
line, and then says how often it was silent. Control characters are escaped, so that one event is one line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import OrderedDict
from typing import Final

import msgspec

JOURNAL: Final = "JOURNAL_STREAM"
PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
"""Of syslog, for lines of at least this level."""
SILENT_SECONDS: Final = 60.0
MAX_KEYS: Final = 1024


class _People(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():<7} {printable(record.getMessage())}"


class _Machines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": record.created, "level": record.levelname.lower(), "message": record.getMessage()}
        return msgspec.json.encode(line).decode()


class _Journal(logging.Formatter):
    """The line's priority before it, as sd-daemon(3) has it; the journal knows the time itself."""

    def __init__(self, machines: _Machines | None) -> None:
        super().__init__()
        self._machines = machines

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in PRIORITIES if record.levelno >= level)
        line = self._machines.format(record) if self._machines else printable(record.getMessage())
        return f"<{priority}>{line}"


def configure(level: str, *, json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    machines = _Machines() if json else None
    handler.setFormatter(_Journal(machines) if _is_journal() else machines or _People())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("pyroute2").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def _is_journal() -> bool:
    """Whether our standard error is what the service manager made for us, not redirected since."""
    try:
        found = os.fstat(2)
    except OSError:
        return False  # there is none
    return os.environ.get(JOURNAL) == f"{found.st_dev}:{found.st_ino}"


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class OncePerKey:
    """Passes a line to the log unless its key was there a short while ago."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._last: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def say(self, level: str, key: str, text: str, now: float) -> None:
        at, silent = self._last.pop(key, (-SILENT_SECONDS, 0))
        if now - at < SILENT_SECONDS:
            self._last[key] = (at, silent + 1)
            return
        self._last[key] = (now, 0)
        if len(self._last) > MAX_KEYS:
            self._last.popitem(last=False)
        more = f" (and {silent} times more)" if silent else ""
        self._log.log(logging.getLevelNamesMapping()[level.upper()], "%s%s", text, more)
