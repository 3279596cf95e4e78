"""Proposers and questions of two lives of one node; the test carries what they say."""

from __future__ import annotations

import random

from tests.core.villages import local
from tunrouter.core import asking
from tunrouter.core.consensus import Electorate, Outcome, Proposer
from tunrouter.core.questions import Questions
from tunrouter.core.registers import BLOCK, Item, Name, Value, Verdict

ELECTOR, CLUSTER = 7, 9
BLOCK_3 = Name(BLOCK, 3)


class Life:
    """One proposer that takes the block, and what it has said last."""

    def __init__(self, number: int) -> None:
        own = local(1)
        own.random = random.Random(number).randbytes
        self.id = own.id
        self.asked: list[asking.RegisterAsk] = []
        self.outcomes: list[Outcome] = []
        electorate = Electorate(CLUSTER, 1, frozenset({ELECTOR}), 1)
        self.proposer = Proposer(own, lambda node, ask, now: self.asked.append(ask), lambda: electorate)
        self.questions = Questions(own, lambda node, ask, now: self.asked.append(ask))

    def take(self) -> None:
        self.proposer.change(
            [BLOCK_3], lambda _, value: Value(value.version + 1, self.id), lambda outcome, now: self.done(outcome), 0.0
        )

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def answer(self, ask: asking.RegisterAsk) -> None:
        """The elector's answer to `ask`, whichever life has asked it."""
        tell = asking.RegisterTell(ask.id, Verdict.DONE, 0, tuple(Item(item.name) for item in ask.items))
        self.proposer.hear(ELECTOR, tell, 0.0)


def test_what_an_earlier_life_asked_is_not_answered_to_this_one() -> None:
    earlier, later = Life(1), Life(2)
    for life in (earlier, later):
        life.take()
        life.answer(life.asked[-1])
    assert [ask.verb for ask in later.asked] == [asking.PREPARE, asking.ACCEPT]
    later.answer(earlier.asked[-1])
    assert not later.outcomes, "the elector has not accepted what this life asked for"
    later.answer(later.asked[-1])
    assert later.outcomes[0].value(BLOCK_3) == Value(1, later.id)


def test_a_question_of_an_earlier_life_is_not_answered_to_this_one() -> None:
    earlier, later = Life(1), Life(2)
    heard: list[asking.RegisterTell | None] = []
    for life in (earlier, later):
        life.questions.ask(ELECTOR, CLUSTER, asking.SCAN, lambda tell, now: heard.append(tell), 0.0)
    for life in (earlier, later):
        (ask,) = life.asked
        assert ask.id >= asking.FIRST_QUESTION
        later.questions.hear(ELECTOR, asking.RegisterTell(ask.id, Verdict.DONE, 0, ()), 0.0)
        assert len(heard) == (life is later)
