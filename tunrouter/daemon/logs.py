"""The log: one line an event, `level message` for people or one JSON object for machines; secrets never reach it.

    time  level  subject  event  message        and where there is one: peer  address  reason  suppressed

Law: whatever a peer can cause is said once while it repeats, then counted: a key is silent for a minute after its last
line, and then says how often it was silent. Of one event, however many keys it has, and of any other line's text, at
most `LINES` a minute are written; how many were not is one line more at the minute's end. So nobody fills a disk from
afar. Control characters are escaped, so that one event is one line.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from typing import Final

import msgspec

JOURNAL: Final = "JOURNAL_STREAM"
PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
"""Of syslog, for lines of at least this level."""
SILENT_SECONDS: Final = 60.0
MAX_KEYS: Final = 1024
LINES: Final = 30
MINUTE: Final = 60.0
MAX_TEXT: Final = 2000
"""Characters of a message; names of peers, their reasons and errors are shorter by far."""
OTHER: Final = "other"
"""The event of a line that has no name."""
DETAILS: Final = ("peer", "address", "reason", "suppressed")
"""Fields that a line has where there is something to say."""


def _text(record: logging.LogRecord) -> str:
    """With what was raised, in words: a traceback would be many lines."""
    said = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    return (f"{said}: {error!r}" if error is not None else said)[:MAX_TEXT]


class _People(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():<7} {printable(_text(record))}"


class _Machines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "subject": record.name,
            "event": getattr(record, "event", OTHER),
            "message": _text(record),
        }
        line |= {name: value for name in DETAILS if (value := getattr(record, name, None))}
        return msgspec.json.encode(line).decode()


class _Journal(logging.Formatter):
    """The line's priority before it, as sd-daemon(3) has it; the journal knows the time itself."""

    def __init__(self, machines: _Machines | None) -> None:
        super().__init__()
        self._machines = machines

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in PRIORITIES if record.levelno >= level)
        line = self._machines.format(record) if self._machines else printable(_text(record))
        return f"<{priority}>{line}"


class _Minute:
    """Lines of one event since `began`."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.lines = 0
        self.suppressed = 0


class _Limit(logging.Filter):
    """Lets so many lines of one event through a minute, and says of the rest how many they were."""

    def __init__(self, handler: logging.Handler, lines: int, seconds: float) -> None:
        super().__init__()
        self._handler = handler
        self._lines = lines
        self._seconds = seconds
        self._minutes: dict[str, _Minute] = {}
        """Bounded by our own words: events, and texts before anything is put into them."""
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None) or str(record.msg)
        now = time.monotonic()
        with self._lock:
            minute = self._minutes.get(event)
            if minute is None or now >= minute.began + self._seconds:
                minute = self._minutes[event] = _Minute(now)
            minute.lines += 1
            if minute.lines <= self._lines:
                return True
            minute.suppressed += 1
            if minute.suppressed == 1:
                timer = threading.Timer(minute.began + self._seconds - now, self._sum_up, (minute, record))
                timer.daemon = True
                timer.start()
            return False

    def _sum_up(self, minute: _Minute, example: logging.LogRecord) -> None:
        with self._lock:
            count = minute.suppressed
        text = f"{count} more lines of this kind within a minute, the first: {_text(example)}"
        line = logging.LogRecord(example.name, example.levelno, "", 0, "%s", (text,), None)
        line.__dict__.update(event=getattr(example, "event", OTHER), suppressed=count)
        self._handler.acquire()
        try:
            self._handler.emit(line)  # past this filter
        finally:
            self._handler.release()


def configure(level: str, *, json: bool, lines: int = LINES, seconds: float = MINUTE) -> None:
    """At most so many `lines` of one event in so many `seconds`."""
    handler = logging.StreamHandler(sys.stderr)
    machines = _Machines() if json else None
    handler.setFormatter(_Journal(machines) if _is_journal() else machines or _People())
    handler.addFilter(_Limit(handler, lines, seconds))
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

    def say(self, level: str, key: str, text: str, now: float, **details: str) -> bool:
        """The first word of `key` is the event; `details` are some of `DETAILS`. Whether it was said."""
        at, silent = self._last.pop(key, (-SILENT_SECONDS, 0))
        if now - at < SILENT_SECONDS:
            self._last[key] = (at, silent + 1)
            return False
        self._last[key] = (now, 0)
        if len(self._last) > MAX_KEYS:
            self._last.popitem(last=False)
        more = f" (and {silent} times more)" if silent else ""
        fields = {"event": key.partition(" ")[0], "suppressed": silent, **details}
        self._log.log(logging.getLevelNamesMapping()[level.upper()], "%s%s", text, more, extra=fields)
        return True
