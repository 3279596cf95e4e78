"""Questions to one elector each, said again until they are answered or their time is over.

Law: what is asked may be asked twice. An answer counts once, from whom was asked, and under a number by chance: an
earlier life of this node may have asked, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tunrouter.core import asking, bounds
from tunrouter.core.consensus import Say
from tunrouter.core.local import Local
from tunrouter.core.registers import NOTHING, Ballot, Item

NEVER: Final = float("inf")

Done = Callable[[asking.RegisterTell | None, float], None]


class _Question(NamedTuple):
    node: int
    ask: asking.RegisterAsk
    done: Done
    until: float
    next_at: float
    said: int = 0
    """How often."""


class Questions:
    def __init__(self, local: Local, say: Say) -> None:
        self._local = local
        self._say = say
        self._asked: dict[int, _Question] = {}
        self._due = NEVER
        """Nothing is before this; what is answered may leave it too early."""

    def ask(
        self,
        node: int,
        cluster: int,
        verb: int,
        done: Done,
        now: float,
        *,
        epoch: int = 0,
        items: tuple[Item, ...] = (),
        data: bytes = b"",
    ) -> None:
        """`done` gets the answer, or None when the time is over."""
        number = asking.FIRST_QUESTION + self._local.random_id() % asking.FIRST_QUESTION
        ballot = Ballot(epoch, 0, 0) if epoch else NOTHING
        ask = asking.RegisterAsk(number, cluster, verb, ballot, items, data=data)
        self._asked[number] = _Question(node, ask, done, now + bounds.CHANGE_SECONDS, now)
        self._say_again(number, now)

    def hear(self, node: int, tell: asking.RegisterTell, now: float) -> None:
        question = self._asked.get(tell.id)
        if question is not None and question.node == node:
            del self._asked[tell.id]
            question.done(tell, now)

    def _say_again(self, number: int, now: float) -> None:
        question = self._asked[number]
        next_at = now + self._local.pause(bounds.ROUND_RETRY_SECONDS, question.said)
        self._asked[number] = question._replace(next_at=next_at, said=question.said + 1)
        self._due = min(self._due, next_at)
        self._say(question.node, question.ask, now)

    @property
    def deadline(self) -> float:
        return self._due

    def tick(self, now: float) -> None:
        if now < self._due:
            return
        for number, question in list(self._asked.items()):
            if now >= question.until:
                del self._asked[number]
                question.done(None, now)
            elif now >= question.next_at:
                self._say_again(number, now)
        self._due = min((min(question.next_at, question.until) for question in self._asked.values()), default=NEVER)
