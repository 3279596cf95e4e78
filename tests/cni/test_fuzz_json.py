"""No text breaks the compiled plugin's JSON, and the fuzzer that says so finds what is planted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cni import programs

INPUTS = 150_000
FILES = ("text.c", "token.c", "check.c", "json.c")
FAULTS = (
    ("if (!text->at || wanted > text->room) {", "if (!text->at || wanted > text->room + 1) {"),
    ("if (grammar->depth == MAX_DEPTH)", "if (grammar->depth == MAX_DEPTH + 1)"),
    ("(size_t)(scan->end - scan->at) >= size && !memcmp", "!memcmp"),
    ("if (!grammar->depth)", "if (grammar->depth > MAX_DEPTH)"),
    ("if (other >= 0xdc00 && other < 0xe000)", "if (other < 0xe000)"),
    ("if (value < 0)", "if (value < -1)"),
)
"""Bounds that are missing or one off: right, wrong."""


def make(to: Path, *changes: programs.Change) -> Path:
    programs.copy("compiled", to, changes)
    program = to / "fuzz_json"
    sources = (Path(__file__).with_name("fuzz_json.c"), *(to / name for name in FILES))
    programs.compile_c(program, sources, (f"-I{to}", *programs.SANITIZERS))
    return program


def run(program: Path, seed: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, str(seed), str(INPUTS)], capture_output=True, text=True, timeout=100, check=False)


def test_no_text_breaks_the_json_and_many_are_read(tmp_path: Path) -> None:
    done = run(make(tmp_path / "c"), 1)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > INPUTS / 10


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[1])
def test_a_planted_fault_is_found(tmp_path: Path, fault: programs.Change) -> None:
    done = run(make(tmp_path / "c", fault), 1)
    assert done.returncode != 0
