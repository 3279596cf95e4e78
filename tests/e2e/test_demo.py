"""The demo on hosts with hostile settings, stopped half-way, and when something is broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunrouter.bench.namespaces import NETNS_DIR

pytestmark = [pytest.mark.root, pytest.mark.slow]

DEMO = [sys.executable, "-m", "tunrouter.bench.demo", "--size", "16M"]


def demo(*arguments: str, path: str = os.environ["PATH"], underlay: str = "4") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": path, "DEMO_UNDERLAY": underlay}
    argv = [*DEMO, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, env=environment, check=False)


@pytest.mark.parametrize(("nf_call", "underlay"), [pytest.param("0", "4", marks=pytest.mark.soak), ("1", "6")])
def test_the_demo_passes_where_forwarding_is_dropped_by_default(nf_call: str, underlay: str) -> None:
    done = demo("--forward-drop", "--nf-call", nf_call, underlay=underlay)
    assert done.stdout.splitlines()[-1:] == ["demo: ok"], done.stdout + done.stderr
    assert done.returncode == 0
    assert f"bridge-nf-call-iptables {nf_call}" in done.stdout
    assert "all 30 pairs" in done.stdout
    assert ("IPv6 alone" in done.stdout, "[2001:db8::2]:6783" in done.stdout) == (underlay == "6",) * 2
    assert ("192.0.2." in done.stdout) == (underlay == "4")


def test_ctrl_c_stops_the_demo_and_leaves_nothing() -> None:
    lines = []
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            lines.append(line)
            if "all connected" in line:
                running.send_signal(signal.SIGINT)
    assert running.returncode == 130
    assert lines[-1] == "demo: stopped\n"
    assert list(NETNS_DIR.glob(f"tunlab-{running.pid}.*")) == []
    assert list(Path("/tmp").glob(f"tunlab-{running.pid}.*")) == []


def test_a_broken_demo_says_what_failed_and_where_the_logs_are(tmp_path: Path) -> None:
    """tcpdump that dies at once stands for whatever may break."""
    broken = tmp_path / "tcpdump"
    broken.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = demo(path=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    *_, last = done.stdout.splitlines()
    assert last.startswith("demo: failed: tcpdump did not start: no such luck")
    logs = [Path(line.removeprefix("log: ")) for line in done.stdout.splitlines() if line.startswith("log: ")]
    assert len(logs) == 3
    assert all(log.exists() for log in logs)
    for log in logs:
        log.unlink()


@pytest.mark.parametrize("size", ["", "0M", "12", "1.5G", "1T"])
def test_a_size_that_is_none_is_refused_before_anything_is_made(size: str) -> None:
    done = subprocess.run([*DEMO[:-1], size], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "write 64M or 1G" in done.stderr


def test_an_ip_version_that_is_none_is_refused() -> None:
    done = demo(underlay="5")
    assert done.returncode == 2
    assert "write 4 or 6" in done.stderr
