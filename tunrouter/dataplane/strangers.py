"""Datagrams of handshakes, which are admitted to control or not by their form and source alone.

Both kernels decide here: what no lane opens has left the fast way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from tunrouter.core import admission, bounds, seam, wire
from tunrouter.core.admission import Admission
from tunrouter.dataplane.kernel import Emit

_LEAST_ANSWER: Final = wire.HEADER_BYTES + 32 + wire.TAG_BYTES + 1
_ANSWER: Final = range(_LEAST_ANSWER, bounds.MAX_HANDSHAKE_BYTES + 1)
_REJECT: Final = range(wire.HEADER_BYTES, wire.HEADER_BYTES + 1)
_HANDSHAKES: Final = {
    **{wire.FIRST << 24 | sealed << 16: range(size, size + 1) for sealed, size in wire.FIRST_BYTES.items()},
    **{wire.ANSWER << 24 | sealed << 16: _ANSWER for sealed in wire.FIRST_BYTES},
    **{wire.REJECT << 24 | why << 16: _REJECT for why in range(wire.NEED_PASSWORD, wire.OTHER_VERSION + 1)},
}
"""Type, flags and reserved bytes of handshake datagrams, and their sizes: rubbish must not spend anybody's tokens."""


class Shut(NamedTuple):
    """Until when a stranger's datagrams of the same kind would be refused like this one."""

    until: float
    alone: bool = False
    """Only first messages of the same source."""


NOT_SHUT: Final = Shut(0.0)


class Strangers:
    def __init__(self, counters: dict[str, int], emit: Emit) -> None:
        self._counters = counters
        self._emit = emit
        self._admission = Admission()
        self._wakeup = -1
        self._raw = 0

    def know(self, addresses: Iterable[str]) -> None:
        self._admission.know(addresses)

    def on_datagram(self, datagram: bytes, sender: seam.Endpoint, now: float, wakeup: int) -> Shut:
        """`wakeup` differs from one drain to the next: strangers get a share of each."""
        if wakeup != self._wakeup:
            self._wakeup, self._raw = wakeup, 0
        reason = self._refusal(datagram, sender[0], now)
        if reason:
            self._counters[reason] += 1
        else:
            self._emit(seam.Raw(sender, datagram))
        return NOT_SHUT if not reason or self._admission.knows(sender[0]) else self._shut(reason, sender[0])

    def _shut(self, reason: str, address: str) -> Shut:
        match reason:
            case admission.OVER_BUDGET:
                return Shut(self._admission.shut_until)
            case admission.ANSWER_OVER_BUDGET:
                return Shut(self._admission.answers_shut_until)
            case admission.SOURCE_RATE if admission.source_of(address) == address:
                return Shut(self._admission.dry_until(address), alone=True)
        return NOT_SHUT

    def _refusal(self, datagram: bytes, address: str, now: float) -> str:
        """The counter under which to drop it, or the empty string."""
        if len(datagram) not in _HANDSHAKES.get(int.from_bytes(datagram[:4], "big"), ()):
            return "drop_malformed"
        first, known = datagram[0] == wire.FIRST, self._admission.knows(address)
        if not known:
            early = self._admission.refuses(address, now, first=first)
            if early:
                return early
        if self._raw >= bounds.RAW_BACKLOG and not known:
            return "handshake_queue_full"
        reason = self._admission.admit(address, now) if first else self._admission.admit_answer(address, now)
        if not reason and not known:
            self._raw += 1
        return reason
