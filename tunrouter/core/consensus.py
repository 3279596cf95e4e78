"""Changing registers: one round of CASPaxos for a few of them at once, and reads that cost no write.

    change:  Prepare ──> a majority's promises ──> the newest accepted value of each ──> f(value) ──> Accept ──> done
    read:    Read ──> the same ballot and value from a majority: that is chosen; else a change that changes nothing

Law: `f` may be applied more than once, to values that an earlier try of the same round has already made (its Accept may
have arrived although no answer came back), so it must leave alone what it finds done. A message is said again until its
phase is over; its number is by chance, for an elector may still answer what an earlier life of this node asked. A round
that is outbid begins anew under a higher ballot after a pause by chance; one that has no majority until its time is
over ends with a reason and an unknown effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from tunrouter.core import asking, bounds
from tunrouter.core.local import Local
from tunrouter.core.registers import NOTHING, Ballot, Item, Name, Value, Verdict

NEVER: Final = float("inf")


class Electorate(NamedTuple):
    """Who decides, and how many of them it takes."""

    cluster: int
    epoch: int
    nodes: frozenset[int]
    quorum: int


class Outcome(NamedTuple):
    items: Mapping[Name, Item] | None
    """What is chosen now, with its ballot; None: not known, for the time was over."""
    reason: str = ""

    def value(self, name: Name) -> Value | None:
        return self.items[name].value if self.items is not None else None


Change = Callable[[Name, Value], Value]
Done = Callable[[Outcome, float], None]
Say = Callable[[int, asking.RegisterAsk, float], None]
"""Says it to an elector, this node or another, which may not hear it."""


class Phase(Enum):
    READ = asking.READ
    PREPARE = asking.PREPARE
    ACCEPT = asking.ACCEPT
    PAUSE = 0


def same(name: Name, value: Value) -> Value:
    return value


class Round:
    """Some registers on their way to new values."""

    def __init__(
        self, names: Iterable[Name], change: Change, done: Done, until: float, phase: Phase, *, final: bool
    ) -> None:
        self.names = tuple(names)
        self.change = change
        self.done = done
        self.until = until
        self.phase = phase
        self.final = final
        """Settles what is undecided in an epoch that is frozen; changes nothing."""
        self.electorate: Electorate | None = None
        self.ask: asking.RegisterAsk | None = None
        self.answers: dict[int, asking.RegisterTell] = {}
        self.items: tuple[Item, ...] = ()
        self.ballot = NOTHING
        self.next_at = 0.0
        self.tries = 0

    @property
    def deadline(self) -> float:
        return min(self.next_at, self.until)


class Proposer:
    """`electorate` says who decides now, None if nobody is known to."""

    def __init__(self, local: Local, say: Say, electorate: Callable[[], Electorate | None]) -> None:
        self._local = local
        self._say = say
        self._electorate = electorate
        self._proposer = local.random_id()
        self._rounds: dict[int, Round] = {}
        """By the number of the question that is asked now."""
        self._highest = 0

    def change(self, names: Iterable[Name], change: Change, done: Done, now: float, *, final: bool = False) -> None:
        """Every one of the registers, at most `PAGE` of them, to `change` of what it is."""
        self._begin(Round(names, change, done, now + bounds.CHANGE_SECONDS, Phase.PREPARE, final=final), now)

    def read(self, names: Iterable[Name], done: Done, now: float) -> None:
        self._begin(Round(names, same, done, now + bounds.CHANGE_SECONDS, Phase.READ, final=False), now)

    @property
    def busy(self) -> int:
        return len(self._rounds)

    @property
    def deadline(self) -> float:
        return min((one.deadline for one in self._rounds.values()), default=NEVER)

    def tick(self, now: float) -> None:
        for number, one in list(self._rounds.items()):
            if now >= one.until:
                del self._rounds[number]
                one.done(Outcome(None, self._why(one)), now)
            elif now >= one.next_at:
                self._go_on(number, one, now)

    @property
    def hindrance(self) -> str:
        """Why a round that had to ask again is not over yet; empty if there is none."""
        return next((self._why(one) for one in self._rounds.values() if one.tries), "")

    def _why(self, one: Round) -> str:
        if one.electorate is None:
            return "no electors are known"
        there = sum(answer.verdict != Verdict.ELSEWHERE for answer in one.answers.values())
        return f"no quorum: {there} of {len(one.electorate.nodes)} electors answered"

    # --- a round -----------------------------------------------------------------------------------------------------
    def _begin(self, one: Round, now: float) -> None:
        """A phase, from its first message."""
        one.electorate, one.answers, one.ask = self._electorate(), {}, None
        number = self._local.random_id() % asking.FIRST_QUESTION
        self._rounds[number] = one
        if one.electorate is None:
            one.next_at = now + self._local.pause(bounds.ROUND_RETRY_SECONDS, 0)
            return
        if one.phase is not Phase.ACCEPT:
            self._highest += one.phase is Phase.PREPARE
            one.items = tuple(map(Item, one.names))
            one.ballot = Ballot(one.electorate.epoch, self._highest, self._proposer)
        one.ask = asking.RegisterAsk(number, one.electorate.cluster, one.phase.value, one.ballot, one.items, one.final)
        self._send(one, now)

    def _send(self, one: Round, now: float) -> None:
        assert one.electorate is not None
        assert one.ask is not None
        one.next_at = now + self._local.pause(bounds.ROUND_RETRY_SECONDS, one.tries)
        for node in sorted(one.electorate.nodes - one.answers.keys()):
            self._say(node, one.ask, now)

    def _go_on(self, number: int, one: Round, now: float) -> None:
        """Nothing was decided for a while: the same again, or anew if somebody else decides now."""
        if one.phase is Phase.PAUSE or one.ask is None or self._electorate() != one.electorate:
            self._restart(number, one, now)
            return
        # Those that were of no use may be by now.
        one.answers = {node: answer for node, answer in one.answers.items() if answer.verdict == Verdict.DONE}
        one.tries += 1
        if one.phase is Phase.READ and one.tries > 1:
            self._restart(number, one, now)
        else:
            self._send(one, now)

    def _restart(self, number: int, one: Round, now: float) -> None:
        del self._rounds[number]
        one.phase = Phase.PREPARE
        self._begin(one, now)

    def hear(self, node: int, tell: asking.RegisterTell, now: float) -> None:
        one = self._rounds.get(tell.id)
        if one is None or one.electorate is None or node not in one.electorate.nodes or one.phase is Phase.PAUSE:
            return
        one.answers[node] = tell
        if tell.verdict == Verdict.OUTBID:
            self._highest = max(self._highest, min(tell.round, bounds.MAX_ROUND))
            self._pause(one, now)
            return
        agreed = [answer for answer in one.answers.values() if answer.verdict == Verdict.DONE]
        if len(agreed) >= one.electorate.quorum:
            self._decide(tell.id, one, agreed, now)

    def _pause(self, one: Round, now: float) -> None:
        one.tries += 1
        longest = min(bounds.OUTBID_SECONDS * 2**one.tries, 1.0)
        one.phase, one.next_at = Phase.PAUSE, now + self._local.jitter(longest / 2, 0.9)

    def _decide(self, number: int, one: Round, agreed: list[asking.RegisterTell], now: float) -> None:
        assert one.electorate is not None
        if one.phase is Phase.ACCEPT:
            self._finish(number, one, {item.name: Item(item.name, one.ballot, item.value) for item in one.items}, now)
            return
        found = {name: [_of(answer, name) for answer in agreed] for name in one.names}
        chosen = {name: chosen_of(items, one.electorate.quorum) for name, items in found.items()}
        known = {name: item for name, item in chosen.items() if item is not None}
        if len(known) == len(chosen) and all(
            one.change(name, item.value) == item.value for name, item in known.items()
        ):
            self._finish(number, one, known, now)
        elif one.phase is Phase.PREPARE:
            del self._rounds[number]
            newest = {name: max(items, key=lambda item: item.ballot).value for name, items in found.items()}
            one.items = tuple(Item(name, NOTHING, one.change(name, value)) for name, value in newest.items())
            one.phase = Phase.ACCEPT
            self._begin(one, now)
        elif len(agreed) == len(one.electorate.nodes):
            self._restart(number, one, now)

    def _finish(self, number: int, one: Round, items: Mapping[Name, Item], now: float) -> None:
        del self._rounds[number]
        one.done(Outcome(items), now)


def _of(answer: asking.RegisterTell, name: Name) -> Item:
    """What an elector has; a malformed answer has nothing, and an elector that lies can do no more than that."""
    return next((item for item in answer.items if item.name == name), Item(name))


def chosen_of(items: list[Item], quorum: int) -> Item | None:
    """What a majority has under one ballot; an empty item if a majority has none; None if that is not known."""
    ((ballot, count),) = Counter(item.ballot for item in items).most_common(1)
    return next(item for item in items if item.ballot == ballot) if count >= quorum else None
