"""What the kernel says of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tunrouter.bench.namespaces import wait_until
from tunrouter.edge import processes
from tunrouter.edge.processes import Used


def test_processor_time_is_the_kernels_own_sum() -> None:
    began = time.process_time()
    wait_until("some work is done", lambda: time.process_time() - began > 0.1, 30, pause=0.0)
    assert abs(processes.used(os.getpid()).cpu_seconds - time.process_time()) < 0.05


def test_memory_is_what_the_kernel_says() -> None:
    before = processes.used(os.getpid())
    held = bytearray(64 << 20)
    held[:: os.sysconf("SC_PAGE_SIZE")] = bytes(len(range(0, len(held), os.sysconf("SC_PAGE_SIZE"))))
    after = processes.used(os.getpid())
    assert 60 << 20 < after.resident_bytes - before.resident_bytes < 80 << 20
    assert after.virtual_bytes - before.virtual_bytes >= 64 << 20


def test_a_name_with_spaces_and_brackets_moves_no_field(tmp_path: Path) -> None:
    program = tmp_path / "a) 1 2 (b"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE) as process:
        wait_until("it has started", lambda: processes.used(process.pid).resident_bytes > 4 << 20, 10)
        assert processes.used(process.pid).virtual_bytes >= processes.used(process.pid).resident_bytes
        process.communicate(b"\n")


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.used(process.pid) == Used(0.0, 0, 0)


def test_open_files_are_counted() -> None:
    before = processes.files()
    with Path("/dev/null").open("rb"), Path("/dev/null").open("rb"):
        assert processes.files().open == before.open + 2
    assert before.most >= before.open
