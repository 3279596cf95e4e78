"""What a run shows while it lasts, and how it guesses what is left."""

from __future__ import annotations

import io

from rich.console import Console

from tests.bench.fakes import FakeContender, FakeScenario
from tunrouter.bench import rounds
from tunrouter.bench.progress import Estimate, Progress, outcome
from tunrouter.bench.rounds import Match, Sample


def test_what_is_left_is_known_better_the_longer_it_runs() -> None:
    a, b, other = ("udp", "a"), ("udp", "b"), ("rtt", "a")
    estimate = Estimate([a, b, other, a, b, other], guess=1.0)
    assert estimate.seconds == 6
    estimate.done(a, 10)
    assert estimate.seconds == 10 + 2 * 10 + 2 * 1, "b is taken to be like a"
    estimate.done(b, 4)
    estimate.done(other, 2)
    assert estimate.seconds == 10 + 4 + 2
    for turn in (a, b, other):
        estimate.done(turn, 1)
    assert estimate.seconds == 0


def matches() -> list[Match]:
    contenders = (FakeContender("tunrouter"), FakeContender("b"))
    return [Match(FakeScenario("s", {"tunrouter": [1234.5, 2], "b": [None, 3]}), contenders)]


def shown(console: Console) -> str:
    progress = Progress(console)
    with progress.over(rounds.turns(matches(), 2), 1):
        rounds.run(matches(), 2, 1, progress.done, begin=progress.begin)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_every_turn_is_a_line() -> None:
    lines = shown(Console(file=io.StringIO())).splitlines()
    assert len(lines) == 4
    assert "round 1  s  tunrouter  1,234" in lines[0]
    assert "round 1  s  b  failed: it broke" in lines[1]
    assert lines[0].endswith(" left)")
    assert lines[3].endswith("tunrouter  2")


def test_on_a_terminal_there_is_a_bar() -> None:
    text = shown(Console(file=io.StringIO(), force_terminal=True, width=120))
    assert "4/4" in text
    assert "round 2, a fake, tunrouter" in text


def test_a_scenario_that_does_not_apply_is_said_to() -> None:
    assert outcome(Sample(1, "memory", "veth", {}, 0.0)) == "n/a"
