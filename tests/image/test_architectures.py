"""What is compiled, compiled for another architecture: nothing in the image is made for one alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.image.conftest import ROOT
from tunrouter.dataplane.build import FLAGS, C, limits

CROSS = "aarch64-linux-gnu"
AARCH64 = b"\x7fELF\x02\x01"
MACHINE = slice(18, 20)
EM_AARCH64 = 183


@pytest.mark.soak
def test_the_plugin_is_built_for_arm64(tmp_path: Path) -> None:
    program = tmp_path / "tunrouter-cni"
    sources = [str(path) for path in sorted((ROOT / "cni-plugin" / "c").glob("*.c"))]
    flags = ("-std=gnu11", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror")
    subprocess.run([f"{CROSS}-gcc", *flags, *sources, "-o", str(program)], check=True)
    assert _machine(program) == EM_AARCH64


@pytest.mark.soak
def test_the_kernel_is_compiled_for_arm64(tmp_path: Path) -> None:
    macros = [f"-D{name}={value}" for name, value in limits()]
    for source in C.glob("*.c"):
        target = tmp_path / f"{source.stem}.o"
        subprocess.run([f"{CROSS}-gcc", *FLAGS, "-Werror", *macros, "-c", source, "-o", target], check=True)
        assert _machine(target) == EM_AARCH64


def _machine(path: Path) -> int:
    header = path.read_bytes()[:20]
    assert header.startswith(AARCH64)
    return int.from_bytes(header[MACHINE], "little")
