"""Who writes a rule set may be killed meanwhile: `nft` has the whole of it, and never applies the half that it got."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tunrouter.bench.namespaces import wait_until

SIZE = 1 << 20
"""More than a pipe holds."""
WRITER = f"""
from tunrouter.edge.netlink import nft
nft.apply("#" * {SIZE - 1} + chr(10))
"""
NFT = """#!/bin/sh
echo > started
until [ -e go ]; do sleep 0.01; done
wc -c > counted && mv counted got
"""


def test_what_is_killed_while_it_writes_has_written_all(tmp_path: Path) -> None:
    tool = tmp_path / "nft"
    tool.write_text(NFT)
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    writer = subprocess.Popen([sys.executable, "-c", WRITER], cwd=tmp_path, env=environment)
    wait_until("nft runs", (tmp_path / "started").exists, 10)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    (tmp_path / "go").touch()
    wait_until("nft has read", (tmp_path / "got").exists, 10)
    assert int((tmp_path / "got").read_text()) == SIZE
