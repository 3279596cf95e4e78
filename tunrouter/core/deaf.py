"""Who does not get our answers, as far as handshakes tell that come to nothing.

Law: one first message proves nothing. It may be a replay, without a password anybody's word, or its maker may have gone
away meanwhile. A peer on a dead way begins again, with a message that no one has seen before. So only the second of two
different ones counts, which came when the first had been given up, and not much later. Forged ones can push true ones
out; then nobody is accused.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from tunrouter.core import bounds, wire
from tunrouter.core.ways import REMEMBERED_SECONDS


class _GivenUp(NamedTuple):
    message: tuple[int, int]
    """Its incarnation and sequence."""
    at: float


class Deaf:
    """The first messages that were given up of late, one a sender and at most as many as wait for an answer."""

    def __init__(self) -> None:
        self._by_sender: OrderedDict[int, _GivenUp] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_sender)

    def gave_up(self, first: wire.First, made: float) -> bool:
        """We answered it at `made` and heard no more of it. Whether that is the second time."""
        new = _GivenUp((first.incarnation, first.sequence), made + bounds.HALF_OPEN_SECONDS)
        before = self._by_sender.get(first.sender)
        again = before is not None and new.at < before.at + REMEMBERED_SECONDS
        if before is not None and again and (new.message == before.message or made < before.at):
            return False
        self._by_sender[first.sender] = new
        self._by_sender.move_to_end(first.sender)
        if len(self._by_sender) > bounds.MAX_HALF_OPEN:
            self._by_sender.popitem(last=False)
        return again

    def confirmed(self, sender: int) -> None:
        """It got an answer."""
        self._by_sender.pop(sender, None)
