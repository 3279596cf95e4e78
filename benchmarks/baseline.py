"""The revision that later ones are compared with, and the ratios it had: `benchmarks/baseline.json`.

Law: a baseline names a commit, so it is taken from a checkout without changes; it is replaced on purpose only
(`--set-baseline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.gates import Verdict
from benchmarks.report import Report
from tunrouter.bench.machine import Machine
from tunrouter.bench.namespaces import run
from tunrouter.errors import HostError

FILE: Final = Path(__file__).parent / "baseline.json"
MEASURED: Final = ("tunrouter", "setup.py", "setup.cfg")
"""What a revision's figures depend on."""


class Baseline(msgspec.Struct, frozen=True):
    revision: str
    started: str
    machine: Machine
    rounds: int
    seconds: int
    ratios: dict[str, float]
    """Medians by the key of their gate."""

    @classmethod
    def of(cls, report: Report, verdicts: Sequence[Verdict], commit: str) -> Baseline:
        ratios = {each.gate.key: round(each.ratio.median, 3) for each in verdicts if each.ratio}
        return cls(commit, report.started, report.machine, report.rounds, report.seconds, ratios)


def clean_commit(checkout: Path) -> str:
    """What is checked out there; HostError if what matters is not exactly that commit's."""
    changed = run(["git", "-C", str(checkout), "status", "--porcelain", "--", *MEASURED]).stdout
    if changed:
        raise HostError("a baseline is a commit, but files differ from it", "commit them, or use a clean checkout")
    return run(["git", "-C", str(checkout), "rev-parse", "HEAD"]).stdout.strip()


def write(baseline: Baseline, file: Path = FILE) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(baseline), indent=2) + b"\n")


def load(file: Path = FILE) -> Baseline:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Baseline)
    except FileNotFoundError:
        raise HostError(
            f"there is no baseline ({file})", "make bench-compare ARGS=--set-baseline, or --base REV"
        ) from None
    except msgspec.DecodeError as error:
        raise HostError(f"{file} is no baseline: {error}") from None
