"""Builds and runs the fuzzer: the kernel's C files as they stand, with the product's limits, under gcc's sanitizers.

Which files and which limits there are, dataplane/build.py says: a new C file of the kernel is in the fuzzer by itself.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunrouter.dataplane import build

HERE: Final = Path(__file__).resolve().parent
SANITIZERS: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS: Final = ("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", *SANITIZERS)
WRAPPED: Final = ("calloc", "mmap", "munmap")
"""What fuzz_memory.c does in the C library's place."""


class BrokenError(AssertionError):
    """An input broke the kernel: what the sanitizers or the fuzzer say, and which input it was."""

    def __init__(self, seed: int, report: str) -> None:
        super().__init__(report)
        found = re.search(r"^failed: seed \d+, input (\d+)$", report, re.MULTILINE)
        self.seed = seed
        self.input = int(found[1]) if found else None


@dataclass(frozen=True)
class Fuzzer:
    program: Path
    objects: Mapping[str, Path]

    def run(self, seed: int, inputs: int, first: int = 0, seconds: float = 100) -> dict[str, int]:
        """What was counted and reached while nothing broke."""
        command: list[str | Path] = [self.program, str(seed), str(inputs), str(first)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise BrokenError(seed, done.stderr)
        words = (line.split() for line in done.stdout.splitlines())
        return {name: int(value, 16 if name == "digest" else 10) for name, value in words}

    def planted(self, to: Path, file: str, right: str, wrong: str) -> Fuzzer:
        """The same with a fault in one of the kernel's files."""
        text = (build.C / file).read_text()
        assert text.count(right) == 1, f"{file} has {text.count(right)} times {right!r}: plant the fault elsewhere"
        (to / file).write_text(text.replace(right, wrong))
        return _link(to, {**self.objects, **_compile(to, [to / file])})


def make(to: Path) -> Fuzzer:
    return _link(to, _compile(to, [*(build.ROOT / source for source in build.sources()), *sorted(HERE.glob("*.c"))]))


def _compile(to: Path, sources: Iterable[Path]) -> dict[str, Path]:
    # A session of the fuzzer hears little: it would never come to the limit.
    limits = [f"-D{name}={value}" for name, value in (dict(build.limits()) | {"CONTROL_BURST": 50}).items()]

    def one(source: Path) -> tuple[str, Path]:
        made = to / f"{source.stem}.o"
        _gcc(*FLAGS, *limits, f"-I{build.C}", f"-I{HERE}", "-c", source, "-o", made)
        return source.name, made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(one, sources))


def _link(to: Path, objects: Mapping[str, Path]) -> Fuzzer:
    program = to / "fuzz_kernel"
    wraps = (f"-Wl,--wrap={name}" for name in WRAPPED)
    _gcc(*FLAGS, *wraps, *objects.values(), "-lm", "-o", program)
    return Fuzzer(program, objects)


def _gcc(*arguments: str | Path) -> None:
    done = subprocess.run(["gcc", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
