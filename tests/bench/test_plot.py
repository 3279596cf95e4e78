"""Plots: a PNG comes out, and what would prevent one is said before a run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tunrouter.bench import plot
from tunrouter.bench.contender import Better
from tunrouter.bench.report import Row
from tunrouter.bench.statistics import Summary
from tunrouter.errors import ConfigError, HostError


def row(contender: str, unit: str, better: Better, *values: float) -> Row:
    return Row("s", "f", "a figure", contender, unit, better, list(values), Summary.of(values), None)


ROWS = [
    row("tunrouter", "Mbit/s", "higher", 900, 1000, 1100),
    row("wireguard-go", "Mbit/s", "higher", 400),
    row("tunrouter", "µs", "lower", 150, 155),
]


def test_a_png_is_written(tmp_path: Path) -> None:
    file = tmp_path / "result.png"
    plot.check(file)
    plot.draw(ROWS, "tunrouter in a test; " * 10, file)
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert width > 1000
    assert 200 < height < 2000


def test_what_would_prevent_it_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"is no name of a PNG file; let it end in \.png"):
        plot.check(tmp_path / "result.pdf")
    with pytest.raises(ConfigError, match="there is no directory"):
        plot.check(tmp_path / "absent" / "result.png")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(HostError, match=r"pip install 'tunrouter\[bench\]'"):
        plot.check(tmp_path / "result.png")


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "directory.png"
    taken.mkdir()
    with pytest.raises(HostError, match=r"cannot write .*: Is a directory"):
        plot.draw(ROWS, "", taken)
