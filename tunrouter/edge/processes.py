"""What the kernel says of a process: its use of processor, memory and descriptors, as proc(5) describes them.

Law: a process that is gone has used nothing; nobody has to look whether it is there first.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _VSIZE, _RSS = 11, 12, 20, 21
"""Fields of /proc/PID/stat, counted from the one behind the name, which may hold anything."""


class Used(NamedTuple):
    cpu_seconds: float = 0.0
    """In user and in system mode."""
    resident_bytes: int = 0
    virtual_bytes: int = 0


class Files(NamedTuple):
    open: int
    most: int
    """How many may be."""


def used(pid: int) -> Used:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return Used()
    cpu = (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS
    return Used(cpu, int(fields[_RSS]) * _PAGE, int(fields[_VSIZE]))


def files() -> Files:
    """Of this very process."""
    return Files(len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def running(module: str, prefix: str) -> list[int]:
    """Python processes of ours, in this network namespace, that run `module` with an argument beginning with `prefix`.

    Whose they are stands in `status`: the files of processes that nobody may look into belong to root.
    """
    here, ours = os.stat("/proc/thread-self/ns/net"), f"\nUid:\t{os.getuid()}\t{os.geteuid()}\t"
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdecimal():
                continue
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if module in arguments[:5] and any(argument.startswith(prefix) for argument in arguments):
                if ours not in (entry / "status").read_text():
                    continue
                namespace = os.stat(entry / "ns/net")
                if (namespace.st_dev, namespace.st_ino) == (here.st_dev, here.st_ino):
                    found.append(int(entry.name))
        except OSError:
            continue  # it is gone
    return found
