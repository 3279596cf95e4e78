"""The gates are judged by ratios within a run, and what was not measured is never passed."""

from __future__ import annotations

from math import nan

import pytest

from benchmarks.compare import UNDERLAYS
from benchmarks.contest import CONTENDERS, columns
from benchmarks.gates import GATES, Gate, judge
from tests.benchmarks.reports import Values, column, stage
from tunrouter.bench.scenarios import LARGE, standard

FASTER = Gate("rate", "tcp-1", "wireguard-go", 2.0, 3.0)
QUICKER = Gate("time", "rtt-p50", "wireguard-go", 0.8, 0.5, better="lower")


@pytest.mark.parametrize(
    ("ours", "word"),
    [((150, 199, 160), "FAIL"), ((100, 200, 900), "pass"), ((300, 301, 100), "pass, aim reached")],
)
def test_a_gate_is_judged_by_the_ratio_of_medians(ours: tuple[float, ...], word: str) -> None:
    values: Values = {"tunrouter": {"tcp-1": ours}, "wireguard-go": {"tcp-1": (100, 100, 100)}}
    verdict = judge([stage(values, column("tcp-1"))], [FASTER])[0]
    assert verdict.word == word
    assert verdict.met == (word != "FAIL")


@pytest.mark.parametrize(("ours", "word"), [(90, "FAIL"), (80, "pass"), (50, "pass, aim reached")])
def test_where_less_is_better_the_bound_is_from_above(ours: float, word: str) -> None:
    values: Values = {"tunrouter": {"rtt-p50": (ours,)}, "wireguard-go": {"rtt-p50": (100,)}}
    assert judge([stage(values, column("rtt-p50", lower=True))], [QUICKER])[0].word == word


@pytest.mark.parametrize(
    ("plain", "veth", "word"),
    [
        (135, 200, "pass"),
        (108, 200, "FAIL"),
        (108, 120, "out of reach: veth itself is 1.20 × tunrouter"),
        (135, 120, "pass"),
    ],
)
def test_a_gate_that_not_even_its_ceiling_meets_is_out_of_reach(plain: float, veth: float, word: str) -> None:
    (gate,) = (each for each in GATES if each.ceiling)
    values: Values = {name: {"tcp-1": (rate,)} for name, rate in
                      {"tunrouter": 100, "tunrouter-plain": plain, "veth": veth}.items()}  # fmt: skip
    verdict = judge([stage(values, column("tcp-1"))], [gate])[0]
    assert (verdict.word, verdict.failed) == (word, word == "FAIL")


def test_what_was_not_measured_is_not_met_and_says_why() -> None:
    ours = {"tunrouter": {"tcp-1": (1.0,)}}
    figure = column("tcp-1")
    cases = {
        "the underlay 'default' was not in this run": [],
        "wireguard-go was not in this run": [stage(ours, figure)],
        "wireguard-go is left out: no package": [stage(ours, figure, absent={"wireguard-go": "no package"})],
        "wireguard-go: it broke": [stage({**ours, "wireguard-go": {"tcp-1": (nan,)}}, figure)],
        "tcp-1 of wireguard-go was not measured": [stage({**ours, "wireguard-go": {}}, figure)],
        "no round has both values": [
            stage({"tunrouter": {"tcp-1": (1.0, nan)}, "wireguard-go": {"tcp-1": (nan, 1.0)}}, figure)
        ],
    }
    for reason, stages in cases.items():
        verdict = judge(stages, [FASTER])[0]
        assert (verdict.reason, verdict.word, verdict.met) == (reason, "not measured", False)


def test_every_gate_names_a_figure_an_underlay_and_contenders_that_there_are() -> None:
    figures = {each.name: each for each in columns(standard(LARGE))}
    assert len({gate.key for gate in GATES}) == len(GATES)
    for gate in GATES:
        assert gate.better == figures[gate.figure].better
        assert gate.underlay in {underlay.name for underlay in UNDERLAYS}
        assert {gate.contender, gate.against} <= CONTENDERS.keys()
        assert gate.ceiling in {"", *CONTENDERS}
        if gate.aim is not None:
            assert gate.met(gate.aim)
