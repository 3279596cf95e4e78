"""All registers that one node holds, asked of the electors page by page.

Law: what is chosen is known to at least one of any majority, so what no member of one tells of is not held. What they
tell may not be chosen: who acts on it reads it first, or changes it under the condition that it is so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tunrouter.core import asking
from tunrouter.core.electorate import Configuration
from tunrouter.core.questions import Questions
from tunrouter.core.registers import BLOCK, PAGE, Item, Name, Value, Verdict

_BEFORE: Final = Name(0, 0)

Found = Callable[[tuple[Name, ...] | None, float], None]


class Inventory:
    def __init__(self, electors: Configuration, holder: int, questions: Questions, done: Found) -> None:
        self._electors = electors
        self._holder = holder
        self._questions = questions
        self._done = done
        self._names: set[Name] = set()
        self._whole = 0
        self._failed = 0
        self._over = False

    def begin(self, now: float) -> None:
        for node in sorted(self._electors.nodes):
            self._ask(node, _BEFORE, now)

    def _ask(self, node: int, after: Name, now: float) -> None:
        def heard(tell: asking.RegisterTell | None, now: float) -> None:
            self._heard(node, tell, now)

        cluster, epoch = self._electors.cluster, self._electors.epoch
        items = (Item(after, value=Value(0, self._holder)),)
        self._questions.ask(node, cluster, asking.FIND, heard, now, epoch=epoch, items=items)

    def _heard(self, node: int, tell: asking.RegisterTell | None, now: float) -> None:
        if self._over:
            return
        if tell is None or tell.verdict != Verdict.DONE:
            self._failed += 1
            if self._failed > len(self._electors.nodes) - self._electors.quorum:
                self._end(None, now)
            return
        self._names |= {item.name for item in tell.items if item.name.kind == BLOCK}
        if len(tell.items) == PAGE:
            self._ask(node, tell.items[-1].name, now)
            return
        self._whole += 1
        if self._whole == self._electors.quorum:
            self._end(tuple(sorted(self._names)), now)

    def _end(self, names: tuple[Name, ...] | None, now: float) -> None:
        self._over = True
        self._done(names, now)
