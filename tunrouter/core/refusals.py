"""Whose handshakes came to nothing of late and why, for `status`, the doctor and the log.

Law: most of these sources are anybody's word, so few are kept and each is forgotten after a minute. Who came most often
stays: a peer with a wrong password tries again and again, and forged sources, each of them once, cannot push it out.
Nor can they fill the log: after some lines of different sources it only says that there are more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from tunrouter.core import bounds, seam
from tunrouter.core.admission import Budget
from tunrouter.core.dial import text
from tunrouter.core.outbox import Outbox

LOG_BURST: Final = bounds.MAX_REJECTED
LOG_PER_SECOND: Final = LOG_BURST / bounds.REJECTED_SECONDS


class Rejected(NamedTuple):
    """A stranger whose handshake could not be used."""

    reason: str
    at: float
    fault: str = ""
    """As of a connection in `status`."""
    times: int = 1


class Refusals(OrderedDict[seam.Endpoint, Rejected]):
    """By source, the newest last."""

    def __init__(self, out: Outbox) -> None:
        super().__init__()
        self._out = out
        self._lines = Budget(LOG_PER_SECOND, LOG_BURST)

    def remember(self, source: seam.Endpoint, reason: str, fault: str, now: float, level: str = "warning") -> None:
        before = self.pop(source, None)
        times = before.times + 1 if before is not None and before.fault == fault else 1
        if len(self) >= bounds.MAX_REJECTED:
            del self[min(self, key=lambda other: self[other].times)]
        self[source] = Rejected(reason, now, fault, times)
        if before is None and self._lines.empty(now):
            more = "handshakes of more sources are refused than are logged; see: tunrouter status connections"
            self._out.log("warning", "refused more", more)
            return
        if before is None:
            self._lines.take(now)
        where = text(source)
        said = f"{where}: {reason}"
        self._out.log(level, f"refused {source[0]} {fault}", said, address=where, reason=reason)

    def tick(self, now: float) -> None:
        while self and next(iter(self.values())).at + bounds.REJECTED_SECONDS <= now:
            self.popitem(last=False)
