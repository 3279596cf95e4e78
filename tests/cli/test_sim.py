"""`tunrouter sim`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunrouter.cli.sim import SCENARIOS
from tunrouter.sim import scenario

ROOT = Path(__file__).parents[2]


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunrouter.cli", "sim", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_it_reports_what_a_cluster_costs() -> None:
    done = sim("--nodes", "12", "--seconds", "5", "--changes", "600", "--delay", "1-5")
    assert done.returncode == 0, done.stderr
    assert "reached all in: 0.0" in done.stdout
    assert "views agreed: 0.00 s" in done.stdout
    assert "12 nodes shake hands" in done.stderr


def test_the_printed_seed_repeats_the_run() -> None:
    arguments = ("--nodes", "10", "--seconds", "5", "--loss", "0.05", "--seed", "77", "-o", "json")
    one, two = (json.loads(sim(*arguments).stdout) for _ in range(2))
    del one["state_kib"], two["state_kib"]  # of the process, not of the run
    assert one == two
    assert one["seed"] == 77
    assert json.loads(sim(*arguments[:-4], "--seed", "78", "-o", "json").stdout)["trace"] != one["trace"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenarios_that_the_package_brings_can_be_read(name: str) -> None:
    found = scenario.read(Path(scenario.__file__).parent / "scenarios" / f"{name}.toml")
    scenario.check(found)


def test_a_shipped_scenario_runs_by_its_name_smaller() -> None:
    done = sim("partition", "--nodes", "10", "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["nodes"] == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--nodes", "many"), "--nodes 'many' is no number"),
        (("--nodes", "1"), "nodes are 1"),
        (("--delay", "50-1"), "delay"),
        (("nowhere.toml",), "No such file"),
        (("-o", "yaml"), "output 'yaml' is not known"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = sim(*arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
