"""What a figure depends on besides the program: this machine, and the revision that was measured."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Final

import msgspec

from tunrouter.bench.namespaces import run

CONGESTION: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")


class Machine(msgspec.Struct, frozen=True):
    system: str
    """As `Linux 6.18.1 x86_64`."""
    cpu: str
    cpus: int
    """That this process may use."""
    memory_mib: int
    congestion_control: str
    """Of TCP."""
    python: str
    iperf3: str
    """Empty where nothing was measured with it."""

    @classmethod
    def here(cls, *, iperf3: bool = True) -> Machine:
        """`iperf3`: it was used, and is asked for its version."""
        names = platform.uname()
        return cls(
            system=f"{names.system} {names.release} {names.machine}",
            cpu=_field("/proc/cpuinfo", "model name") or names.machine,
            cpus=len(os.sched_getaffinity(0)),
            memory_mib=int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) >> 10,
            congestion_control=CONGESTION.read_text().strip(),
            python=platform.python_version(),
            iperf3=run(["iperf3", "--version"]).stdout.split()[1] if iperf3 else "",
        )


def _field(file: str, name: str) -> str:
    """The first line `name: value` of a file under /proc; empty if there is none."""
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def revision(checkout: Path) -> str:
    """git's short name of what is checked out there, with `-dirty` where files differ; empty if it is no checkout."""
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return ""
    return run(
        ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"], check=False
    ).stdout.strip()
