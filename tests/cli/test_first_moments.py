"""A lasting command as the first process of a container, which is asked to end before it can hear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunrouter.bench.namespaces import wait_until

pytestmark = pytest.mark.root

ROOT = Path(__file__).parent.parent.parent
PLACED = ("unshare", "--net", "--mount-proc", "--pid", "--fork", "--kill-child")
END_SECONDS = 10.0


def begins(outer: int) -> int:
    """The pid of its child that has become the agent, and is an interpreter that starts; 0: not yet."""
    for pid in Path(f"/proc/{outer}/task/{outer}/children").read_text().split():
        if b"--config-fd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    return 0


@pytest.mark.parametrize("command", ["up", "npc"])
def test_sigterm_is_not_lost(tmp_path: Path, command: str) -> None:
    environ = {
        "TUNROUTER_NAME": "node-a", "TUNROUTER_APISERVER": "http://127.0.0.1:1", "TUNROUTER_NPC_ADDR": "off",
        "TUNROUTER_RUN_DIR": str(tmp_path / "run"), "TUNROUTER_STATE_DIR": str(tmp_path / "state"),
    }  # fmt: skip
    arguments = [*PLACED, sys.executable, "-m", "tunrouter.cli", command]
    with subprocess.Popen(arguments, cwd=ROOT, env={"PATH": os.environ["PATH"], **environ}) as outer:
        try:
            wait_until(f"{command} has become what it is", lambda: begins(outer.pid), 20, pause=0.001)
            os.kill(begins(outer.pid), signal.SIGTERM)
            assert outer.wait(END_SECONDS) == 0
        finally:
            outer.kill()
