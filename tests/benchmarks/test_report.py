"""What is written of a run: the record, the table, the picture."""

from __future__ import annotations

from math import nan
from pathlib import Path

import pytest

from benchmarks import plot, report, table
from benchmarks.gates import judge
from tests.benchmarks import reports
from tests.benchmarks.reports import Values, column, stage
from tunrouter.errors import HostError


@pytest.fixture
def whole() -> report.Report:
    values: Values = {
        "tunrouter": {"tcp-1": [900.0, 1100.0, 1000.0], "rtt-p50": [50.0, nan, 52.5]},
        "wireguard-go": {"tcp-1": [400.0, 500.0, 450.0], "rtt-p50": [100.0, 90.0, 110.0]},
        "veth": {"tcp-1": [3000.0, 3000.0, 3000.0]},
    }
    figures = (column("tcp-1"), column("rtt-p50", lower=True, unit="µs"))
    return reports.report(stage(values, *figures, absent={"nebula": "no suite has it"}))


def test_a_record_survives_the_disk_and_replaces_the_one_before(whole: report.Report, tmp_path: Path) -> None:
    file = tmp_path / "compare.json"
    file.write_text("what was there before")
    whole.save(file)
    assert report.load(file) == whole
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_record_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "compare.json"
    file.write_text("{")
    with pytest.raises(HostError, match=r"compare\.json"):
        report.load(file)


def test_the_table_has_medians_spreads_ratios_and_who_is_left_out(whole: report.Report) -> None:
    text = table.render(whole, judge(whole.stages))
    assert "| title of tcp-1, Mbit/s | 1,000 (900–1,100) | 450 (400–500) | 3,000 (3,000–3,000) | 2.22 | 0.33 |" in text
    # The second round has no value of ours, so the ratio leaves it out on both sides.
    assert "| title of rtt-p50, µs | 51.2 (50–52.5) | 100 (90–110) | n/a | 0.49 | n/a |" in text
    assert "Left out: nebula: no suite has it." in text
    assert "| TCP, one stream, × wireguard-go | 2.22 (2.20–2.25) | ≥ 2.3 | ≥ 3 | FAIL |" in text
    assert "| TCP, MTU 9000, × wireguard-go | the underlay 'mtu-9000' was not in this run |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") in {6, 7} for line in rows)


def test_the_picture_is_a_png_and_nothing_measured_is_no_picture(whole: report.Report, tmp_path: Path) -> None:
    plot.draw(whole, tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    plot.draw(reports.report(stage({}, column("tcp-1"))), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
