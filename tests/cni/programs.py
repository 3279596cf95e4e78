"""The plugin's two programs, which are to be the same, and variants of both: a text of their source replaced.

Law: a variant is built from the sources as they stand; one whose text is not there any more fails.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tunrouter.edge.runtimes import PLUGIN, source

ROOT: Final = Path(__file__).parents[2]
C: Final = ROOT / "cni-plugin" / "c"
SCRIPT: Final = ROOT / "cni-plugin" / PLUGIN
KINDS: Final = ("compiled", "python")
FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
SANITIZERS: Final = ("-O1", "-g", "-fsanitize=address,undefined,bounds-strict", "-fno-sanitize-recover=all")

Change = tuple[str, str]
"""Right and wrong."""
HASTY: Final[dict[str, tuple[Change, ...]]] = {
    "python": (
        ("AWAY_SECONDS = 10.0", "AWAY_SECONDS = 0.1"),
        ('{"ADD": 35.0, "DEL": 10.0, "CHECK": 10.0, "GC": 60.0, "STATUS": 5.0}',
         'dict.fromkeys(("ADD", "DEL", "CHECK", "GC", "STATUS"), 0.5)'),
    ),
    "compiled": (
        ("AWAY_MS = 10000", "AWAY_MS = 100"),
        ('"ADD", 35000', '"ADD", 500'), ('"DEL", 10000', '"DEL", 500'), ('"CHECK", 10000', '"CHECK", 500'),
        ('"GC", 60000', '"GC", 500'), ('"STATUS", 5000', '"STATUS", 500'),
    ),
}  # fmt: skip
"""Hardly any patience."""


def program(kind: str) -> Path:
    """As `tunrouter cni install` takes it where it can be compiled, and where not."""
    if kind == "python":
        return SCRIPT
    compiled = source()
    assert compiled.read_bytes().startswith(b"\x7fELF"), "the compiled plugin was not built: make install"
    return compiled


def variant(kind: str, to: Path, changes: Iterable[Change], flags: Iterable[str] = ()) -> Path:
    """A program in the directory `to`, which is made."""
    copy(kind, to, changes)
    made = to / PLUGIN
    if kind == "compiled":
        compile_c(made, sorted(to.glob("*.c")), flags)
    made.chmod(0o755)
    return made


def copy(kind: str, to: Path, changes: Iterable[Change]) -> None:
    """The sources of one."""
    to.mkdir()
    originals = [SCRIPT] if kind == "python" else sorted(C.iterdir())
    texts = {path.name: path.read_text() for path in originals}
    for right, wrong in changes:
        (name,) = (name for name, text in texts.items() if right in text)
        assert texts[name].count(right) == 1, f"{name} has {right!r} more than once"
        texts[name] = texts[name].replace(right, wrong)
    for name, text in texts.items():
        (to / name).write_text(text)


def compile_c(to: Path, sources: Iterable[Path], flags: Iterable[str] = ()) -> None:
    command: list[str | Path] = ["gcc", *FLAGS, *flags, *sources, "-o", to]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
