"""How far a run of rounds is, on stderr: a bar on a terminal, a line for every turn elsewhere; both with the time left.

Law: what is left is the sum of what each turn took the last time, or, where it had none yet, of what its kind took.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from tunrouter.bench.rounds import Sample

OVERHEAD_SECONDS: Final = 0.5
"""Of a turn, besides the seconds it measures."""


class Scenario(Protocol):
    """What is shown of one; `contender.Scenario` is more."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...


class Contender(Protocol):
    @property
    def name(self) -> str: ...


class Estimate:
    """Seconds left of a sequence of turns, better the longer it runs."""

    def __init__(self, turns: Iterable[tuple[str, str]], guess: float) -> None:
        self._left = list(turns)
        self._guess = guess
        self._seen: dict[tuple[str, str], float] = {}
        self._kinds: dict[str, float] = {}

    def done(self, turn: tuple[str, str], seconds: float) -> None:
        self._left.remove(turn)
        self._seen[turn] = self._kinds[turn[0]] = seconds

    @property
    def seconds(self) -> float:
        return sum(self._seen.get(turn, self._kinds.get(turn[0], self._guess)) for turn in self._left)


class Progress:
    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._started = time.monotonic()
        self._estimate = Estimate((), 0)
        self._bar: Bar | None = None

    def say(self, what: str) -> None:
        self.console.file.write(f"{time.monotonic() - self._started:6.1f} s  {what}\n")
        self.console.file.flush()

    @contextmanager
    def over(self, turns: Iterable[tuple[int, Scenario, Contender]], seconds: float) -> Iterator[None]:
        """While it lasts, `begin` and `done` are told of each of these turns, of about `seconds` each."""
        expected = [(scenario.name, contender.name) for _, scenario, contender in turns]
        self._estimate = Estimate(expected, seconds + OVERHEAD_SECONDS)
        if not self.console.is_terminal:
            yield
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}  {task.description}"))
        with Bar(*columns, console=self.console, transient=True) as self._bar:
            self._bar.add_task("", total=len(expected), left="")
            yield
        self._bar = None

    def begin(self, number: int, scenario: Scenario, contender: Contender) -> None:
        if self._bar:
            what = f"round {number}, {scenario.title}, {contender.name}"
            self._bar.update(self._bar.task_ids[0], description=what, left=self._time_left())

    def done(self, sample: Sample) -> None:
        self._estimate.done((sample.scenario, sample.contender), sample.seconds)
        if self._bar:
            self._bar.advance(self._bar.task_ids[0])
        else:
            self.say(f"round {sample.round}  {sample.scenario}  {sample.contender}  {outcome(sample)}{self._suffix()}")

    def _time_left(self) -> str:
        minutes, seconds = divmod(round(self._estimate.seconds), 60)
        return f"{minutes}:{seconds:02} left"

    def _suffix(self) -> str:
        return f"  ({self._time_left()})" if self._estimate.seconds else ""


def outcome(sample: Sample) -> str:
    """The first value of a sample, or why there is none."""
    if sample.error:
        return f"failed: {sample.error}"
    return next((f"{value:,.0f}" for value in sample.values.values()), "n/a")
