"""`tunrouter bench` as a user runs it: JSON alone on stdout, one line for every mistake, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tunrouter.bench.namespaces import NETNS_DIR
from tunrouter.bench.report import SCHEMA, Report

ROOT = Path(__file__).parent.parent.parent
BENCH = [sys.executable, "-m", "tunrouter.cli", "bench"]


def bench(*arguments: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": path}
    return subprocess.run(
        [*BENCH, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment, check=False
    )


@pytest.mark.root
def test_one_scenario_as_json_and_as_a_plot(tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    done = bench("--quick", "--scenario", "tcp-1", "-o", "json", "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(done.stdout, type=Report)
    assert (report.kind, report.schema) == ("tunrouter bench", SCHEMA)
    assert report.tunrouter.kernel
    assert report.variants[0].version == f"{report.tunrouter.version} (kernel {report.tunrouter.kernel})"
    assert report.machine.cpus >= 1
    assert (report.settings.mtu, report.settings.offloads, report.settings.large_payload) == (1500, "off", 1348)
    (variant,) = report.variants
    assert variant.encryption
    assert 1400 < variant.largest_frame <= 1500
    rate, cpu = report.figures
    assert (rate.figure, rate.unit, len(rate.values)) == ("tcp-1", "Mbit/s", 1)
    assert 20 < rate.summary.median < 100_000
    assert (cpu.figure, cpu.unit) == ("tcp-1-cpu", "s/GB")
    # Both hosts' processes cannot have worked longer than the machine has processors.
    gigabytes = rate.summary.median * 1e6 / 8 / 1e9
    assert 0 < cpu.summary.median * gigabytes < 2 * report.machine.cpus
    assert report.failures == []
    assert "round 1  tcp-1  tunrouter" in done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.root
def test_ctrl_c_ends_it_with_nothing_left() -> None:
    with subprocess.Popen(
        [*BENCH, "--quick", "--scenario", "tcp-1,rtt", "-o", "json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stderr
        for line in running.stderr:
            if "tcp-1" in line:
                running.send_signal(signal.SIGINT)
                break
        said, rest = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, "")
    assert "Traceback" not in rest
    assert list(NETNS_DIR.glob(f"tunlab-{running.pid}.*")) == []
    assert list(Path("/tmp").glob(f"tunlab-{running.pid}.*")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds '0' is no number from 1 to 1000"),
        (["--seconds", "1.5"], "--seconds '1.5' is no number from 1 to 1000"),
        (["--mtu", "1400"], "mtu '1400' is not known; did you mean 1500?"),
        (["--offloads", "no"], "offloads 'no' is not known"),
        (["--output", "wide"], "output 'wide' is not known"),
        (["--scenario", "tcp-1,tcp-5"], "scenario 'tcp-5' is not known; choose from tcp-1, tcp-4"),
        (["--plot", "result.svg"], "'result.svg' is no name of a PNG file"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_made(arguments: list[str], said: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"tunrouter: {said}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.root
def test_a_missing_tool_is_named_with_its_package(tmp_path: Path) -> None:
    for tool in ("ip", "nft", "ethtool", "tcpdump", "ping"):
        (tmp_path / tool).symlink_to("/bin/true")
    done = bench(path=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "tunrouter: bench needs iperf3, which is not installed; apt-get install iperf3\n"
