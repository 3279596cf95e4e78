"""The dashboard and the alerting rules: they ask for nothing that is not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.agent.snapshots import SNAPSHOT
from tunrouter.agent.metrics import TABLE, families

ROOT = Path(__file__).parent.parent
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring/dashboard.json").read_text())
RULES = (ROOT / "monitoring/alerts.yml").read_text()
LABELS = {metric.name: {*metric.labels, "instance", "job"} for metric in TABLE}
KINDS = {metric.name: metric.kind for metric in TABLE}
LABELS |= {f"{name}_bucket": labels | {"le"} for name, labels in LABELS.items() if KINDS[name] == "histogram"}
PANELS = [
    (f"{panel['title']} {target['refId']}", target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
ALERTS = re.findall(r"- alert: (\w+)\n +expr: (.+)\n", RULES)
EXPRESSIONS = [*PANELS, *ALERTS]
NAME = re.compile(r"\b(?:weave|tunrouter|process)_\w+")
SELECTOR = re.compile(r"(\w+)\{([^{}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')


def values() -> dict[tuple[str, str], set[str]]:
    """Which values each label of each metric has, in a life in which everything happens."""
    lives = [SNAPSHOT, msgspec.structs.replace(SNAPSHOT, kernel="reference")]
    found: dict[tuple[str, str], set[str]] = {}
    for life in lives:
        for family in families(life):
            for labels, _ in family.samples:
                for label, value in zip(family.labels, labels, strict=True):
                    found.setdefault((family.name, label), set()).add(value)
    return found


VALUES = values()


def test_there_is_something_to_look_at() -> None:
    assert len(PANELS) > 20
    assert len(ALERTS) == RULES.count("- alert:") > 10


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_only_metrics_labels_and_values_that_there_are_are_asked_for(where: str, expression: str) -> None:
    names = NAME.findall(expression)
    assert names or "up{" in expression
    assert set(names) <= LABELS.keys()
    for name, matchers in SELECTOR.findall(expression):
        if name == "up":
            continue
        for label, operator, value in MATCHER.findall(matchers):
            assert label in LABELS[name], label
            if "$" not in value and label in {label for metric, label in VALUES if metric == name}:
                wanted = value.split("|") if "~" in operator else [value]
                assert set(wanted) <= VALUES[name, label], f"{name} is never {value}"
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        known = set().union(*(LABELS[name] for name in names))
        assert {label.strip() for label in group.split(",")} <= known


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_counters_are_asked_for_their_rates_and_gauges_are_not(where: str, expression: str) -> None:
    rated = set(re.findall(r"\b(?:rate|increase)\((\w+)", expression))
    for name in set(NAME.findall(expression)):
        counts = name.endswith("_bucket") or KINDS[name] == "counter"
        assert (name in rated) == counts, name


@pytest.mark.parametrize("alert", [name for name, _ in ALERTS])
def test_an_alert_says_how_bad_it_is_and_what_it_is(alert: str) -> None:
    text = RULES.partition(f"- alert: {alert}\n")[2].partition("- alert:")[0]
    assert re.search(r"severity: (critical|warning|info)\}", text)
    assert "summary: " in text


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert cells.isdisjoint(mine), panel["title"]
        assert max(x for x, _ in mine) < 24
        cells |= mine


def test_the_dashboard_lists_the_nodes_by_a_metric_that_there_is() -> None:
    (instances,) = (one for one in DASHBOARD["templating"]["list"] if one["name"] == "instance")
    (metric,) = re.findall(r"label_values\((\w+), instance\)", instances["query"]["query"])
    assert metric in LABELS
