"""From one epoch of electors to the next: what the old ones hold is settled, copied and begun with.

    the next epoch is chosen ──> SCAN: each old elector freezes and tells all ──> what a majority does not have alike is
    settled by final rounds ──> COPY to the new ones ──> ACTIVATE ──> a majority of them serves

Law: the frozen registers of a majority are scanned, so nothing that was chosen is missed and nothing more can be. What
final rounds settle is settled for ever; so everybody who carries this out, once or many times, copies the same values.
A new elector begins only with all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from tunrouter.core import asking, electorate
from tunrouter.core.consensus import Outcome, Proposer, chosen_of, same
from tunrouter.core.elector import Activation
from tunrouter.core.electorate import Configuration
from tunrouter.core.questions import Questions
from tunrouter.core.registers import BLOCK, PAGE, Item, Name, Verdict, digest

_BEFORE: Final = Name(0, 0)
WINDOW: Final = 8
"""Pages under way to one new elector."""

Values = tuple[Item, ...]


class Survey:
    """What the electors of `old` hold, once they are frozen by `chosen`; `done` gets all of it, settled, or None."""

    def __init__(
        self,
        old: Configuration,
        chosen: Item,
        questions: Questions,
        proposer: Proposer,
        done: Callable[[Values | None, float], None],
    ) -> None:
        self._old = old
        self._chosen = chosen
        self._questions = questions
        self._proposer = proposer
        self._done = done
        self._found: dict[int, dict[Name, Item]] = {node: {} for node in old.nodes}
        self._whole: set[int] = set()
        self._failed: set[int] = set()
        self._settled: dict[Name, Item] = {}
        self._open: list[Name] = []
        self._over = False

    def begin(self, now: float) -> None:
        for node in sorted(self._old.nodes):
            self._scan(node, _BEFORE, now)

    def _scan(self, node: int, after: Name, now: float) -> None:
        def heard(tell: asking.RegisterTell | None, now: float) -> None:
            self._heard(node, tell, now)

        items = (self._chosen, Item(after))
        epoch = self._old.epoch
        self._questions.ask(node, self._old.cluster, asking.SCAN, heard, now, epoch=epoch, items=items)

    def _heard(self, node: int, tell: asking.RegisterTell | None, now: float) -> None:
        if self._over or len(self._whole) >= self._old.quorum:
            return
        if tell is None or tell.verdict != Verdict.DONE:
            self._failed.add(node)
            if len(self._failed) > len(self._old.nodes) - self._old.quorum:
                self._end(None, now)
            return
        self._found[node] |= {item.name: item for item in tell.items}
        if len(tell.items) == PAGE:
            self._scan(node, tell.items[-1].name, now)
            return
        self._whole.add(node)
        if len(self._whole) == self._old.quorum:
            self._compare(now)

    def _compare(self, now: float) -> None:
        tables = [self._found[node] for node in self._whole]
        names = sorted({name for table in tables for name in table if name.kind == BLOCK})
        for name in names:
            item = chosen_of([table.get(name, Item(name)) for table in tables], self._old.quorum)
            if item is None:
                self._open.append(name)
            else:
                self._settled[name] = item
        self._settle(now)

    def _settle(self, now: float) -> None:
        if not self._open:
            self._end(tuple(item for _, item in sorted(self._settled.items())), now)
            return
        page, self._open = self._open[:PAGE], self._open[PAGE:]
        self._proposer.change(page, same, self._on_settled, now, final=True)

    def _on_settled(self, outcome: Outcome, now: float) -> None:
        if outcome.items is None:
            self._end(None, now)
        else:
            self._settled |= outcome.items
            self._settle(now)

    def _end(self, values: Values | None, now: float) -> None:
        if not self._over:
            self._over = True
            self._done(values, now)


class Push:
    """Brings one new elector to where its epoch begins; `done` is told whether it serves now."""

    def __init__(
        self,
        node: int,
        new: Configuration,
        values: Values,
        questions: Questions,
        done: Callable[[bool, float], None],
    ) -> None:
        self._node = node
        self._new = new
        self._data = electorate.encode(new)
        self._pages = [values[at : at + PAGE] for at in range(0, len(values), PAGE)]
        self._activation = msgspec.msgpack.encode(Activation(new, len(values), digest(values)))
        self._questions = questions
        self._done = done
        self._under_way = 0
        self._over = False

    def begin(self, now: float) -> None:
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        while self._pages and self._under_way < WINDOW:
            self._under_way += 1
            page = self._pages.pop()
            self._questions.ask(
                self._node, self._new.cluster, asking.COPY, self._copied, now, items=page, data=self._data
            )
        if not self._pages and not self._under_way:
            data = self._activation
            self._questions.ask(self._node, self._new.cluster, asking.ACTIVATE, self._activated, now, data=data)

    def _copied(self, tell: asking.RegisterTell | None, now: float) -> None:
        if self._over:
            return
        self._under_way -= 1
        if tell is None or tell.verdict != Verdict.DONE:
            self._end(False, now)
        else:
            self._go_on(now)

    def _activated(self, tell: asking.RegisterTell | None, now: float) -> None:
        self._end(tell is not None and tell.verdict == Verdict.DONE, now)

    def _end(self, serves: bool, now: float) -> None:
        if not self._over:
            self._over = True
            self._done(serves, now)
