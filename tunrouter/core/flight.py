"""What is on its way to one neighbour: what waits, what has left without acknowledgement, and what it may cost us.

Law: only the newest version of a record waits, so a queue is never longer than the replica. What is not acknowledged in
time is sent again under a new number; an acknowledgement that comes too late still tells how long the way is, so on a
path of any length the time that is given to it becomes long enough.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds
from tunrouter.core.admission import Budget
from tunrouter.core.record import Record
from tunrouter.core.timetable import NEVER

MAX_LATE: Final = int(bounds.GOSSIP_WINDOW * bounds.GOSSIP_RETRY_LONGEST_SECONDS / bounds.GOSSIP_RETRY_SECONDS)
"""As many messages as are given up while the slowest acknowledgement is on its way."""


class Neighbour:
    """One of them."""

    def __init__(self, now: float, number: int) -> None:
        """`number` by chance: what is acknowledged late may be a message of an earlier life or session."""
        self.queue: dict[int, Record] = {}
        self.flight: dict[int, tuple[float, list[Record]]] = {}
        """By message number: when it left and what it holds."""
        self.acks: list[int] = []
        self.next_at = now
        self.number = number
        self.budget = Budget(bounds.GOSSIP_RECORDS_PER_SECOND, bounds.GOSSIP_RECORDS_BURST)
        self.questions = Budget(bounds.GOSSIP_QUESTIONS_PER_SECOND, bounds.GOSSIP_QUESTIONS_PER_SECOND)
        self.replies = Budget(bounds.GOSSIP_REPLIES_PER_SECOND, bounds.GOSSIP_REPLIES_PER_SECOND)
        self.rounds = 0
        """Rounds of digests that may still be begun until its replica agrees with ours."""
        self.round_at = NEVER
        self._late: dict[int, float] = {}
        """Messages that were given up: when they had left."""
        self._patience = bounds.GOSSIP_RETRY_SECONDS

    @property
    def room(self) -> int:
        return bounds.GOSSIP_WINDOW - len(self.flight)

    @property
    def deadline(self) -> float:
        ready = self.next_at if self.acks or (self.queue and self.room > 0) else NEVER
        for sent, _ in self.flight.values():  # the first is the oldest
            return min(ready, self.round_at, sent + self._patience)
        return min(ready, self.round_at)

    # --- its replica -------------------------------------------------------------------------------------------------
    def differs(self, round_at: float) -> None:
        """Its replica may not be ours: rounds begin then."""
        self.rounds, self.round_at = bounds.GOSSIP_ROUNDS, round_at

    def agrees(self) -> None:
        self.rounds, self.round_at = 0, NEVER

    def began_round(self, next_at: float) -> None:
        self.rounds -= 1
        self.round_at = next_at if self.rounds else NEVER

    # --- its records -------------------------------------------------------------------------------------------------

    def leave(self, records: list[Record], now: float) -> int:
        """They are under way; the number of their message."""
        self.number = self.number % 0xFFFF_FFFF + 1
        self.flight[self.number] = (now, records)
        return self.number

    def acknowledged(self, number: int, now: float) -> None:
        sent, _ = self.flight.pop(number, (self._late.pop(number, None), None))
        if sent is not None:
            longest = bounds.GOSSIP_RETRY_LONGEST_SECONDS
            self._patience = min(max(bounds.GOSSIP_RETRY_SECONDS, 2 * (now - sent)), longest)

    def overdue(self, now: float) -> list[list[Record]]:
        """What each message held that was not acknowledged in time; it is not under way any more."""
        late = [number for number, (sent, _) in self.flight.items() if now >= sent + self._patience]
        lost = []
        for number in late:
            self._late[number], records = self.flight.pop(number)
            lost.append(records)
        while len(self._late) > MAX_LATE:
            del self._late[next(iter(self._late))]
        return lost

    def arrived(self, given: Record) -> None:
        """The neighbour has `given`: it need not be sent there, nor anything older."""
        waiting = self.queue.get(given.key)
        if waiting is not None and waiting.version <= given.version:
            del self.queue[given.key]

    def crossed(self, given: Record) -> bool:
        """Whether our own copy is on its way there: then that is the acknowledgement, and theirs is ours."""
        for number, (sent, records) in list(self.flight.items()):
            if any(r.key == given.key and r.version == given.version for r in records):
                rest = [r for r in records if r.key != given.key]
                if rest:
                    self.flight[number] = (sent, rest)
                else:
                    del self.flight[number]
                return True
        return False
