"""What a run of the comparison takes in hand for its options, before anything is set up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import baseline, check, compare
from benchmarks.gates import judge
from tests.benchmarks.reports import Values, column, report, stage
from tunrouter.errors import ConfigError, HostError


def planned(*argv: str) -> dict[str, tuple[str, ...]]:
    return {underlay.name: names for underlay, names in compare.plan(compare.parse(argv))}


def test_a_whole_run_measures_everything_on_the_default_underlay_and_one_stream_on_the_others() -> None:
    one = ("tcp-1",)
    assert planned() == {"default": (), "gro": one, "offloads": one, "mtu-9000": one}
    assert compare.whole(compare.parse([]))


def test_scenarios_are_measured_where_they_belong() -> None:
    assert planned("--scenario", "rtt") == {"default": ("rtt",)}
    assert planned("--scenario", "rtt,tcp-1")["gro"] == ("tcp-1",)


def test_an_underlay_that_is_asked_for_gets_what_is_asked_of_it() -> None:
    assert planned("--offloads", "gro") == {"gro": ()}
    assert planned("--mtu", "9000", "--scenario", "rtt") == {"mtu-9000": ("rtt",)}
    assert planned("--mtu", "1400", "--offloads", "on") == {"on-1400": ()}
    assert not compare.whole(compare.parse(["--mtu", "9000"]))


def test_tunrouter_is_always_among_the_contenders() -> None:
    assert list(compare.entrants(("veth", "nebula"))) == ["tunrouter", "nebula", "veth"]
    assert len(compare.entrants(None)) == 7
    with pytest.raises(ConfigError, match="'openvpn' is no contender; choose from tunrouter"):
        compare.entrants(("openvpn",))


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--seconds", "x"], ["--offloads", "some"]])
def test_options_that_make_no_sense_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.main(argv)
    assert ended.value.code == 2
    assert argv[1] in capsys.readouterr().err


def test_a_baseline_holds_its_commit_and_the_ratios_that_were_measured(tmp_path: Path) -> None:
    values: Values = {"tunrouter": {"tcp-1": [300.0]}, "wireguard-go": {"tcp-1": [100.0]}}
    run = report(stage(values, column("tcp-1")))
    made = baseline.Baseline.of(run, judge(run.stages), "a" * 40)
    baseline.write(made, tmp_path / "baseline.json")
    assert baseline.load(tmp_path / "baseline.json") == made
    assert made.ratios == {"default/tcp-1/tunrouter/wireguard-go": 3.0}


def test_without_a_baseline_the_check_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    missing = tmp_path / "baseline.json"
    monkeypatch.setattr(baseline.load, "__defaults__", (missing,))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(HostError, match="--set-baseline, or --base REV"):
        baseline.load()
    assert check.main([]) == 1
    assert "there is no baseline" in capsys.readouterr().err


def test_too_few_rounds_are_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert check.main(["--rounds", "4"]) == 2
    assert "--rounds 5" in capsys.readouterr().err
