"""`tunrouter bench` as a user runs it: JSON alone on stdout, one line for every mistake, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tunrouter.bench import suite
from tunrouter.bench.machine import Machine
from tunrouter.bench.namespaces import NETNS_DIR
from tunrouter.bench.report import SCHEMA, Failure, Product, Report, Row, Settings, Variant
from tunrouter.bench.statistics import Summary
from tunrouter.cli.bench import Flags, run
from tunrouter.errors import HostError

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


def report(*, failed: bool) -> Report:
    """Two rounds of `tcp-1` over a tunnel and a variant of it; the variant's second one failed, if asked for."""
    speed = Row("tcp-1", "tcp-1", "TCP, one stream", "tunrouter", "Mbit/s", "higher", [1000, 1200],
                Summary.of([1000, 1200]), None)  # fmt: skip
    plain = Row("tcp-1", "tcp-1", "TCP, one stream", "no-encryption", "Mbit/s", "higher", [2200],
                Summary.of([2200]), Summary(2.0, 2.0, 2.0, 0.0))  # fmt: skip
    return Report(
        kind="tunrouter bench", schema=SCHEMA, started="2026-01-01T00:00:00+00:00", elapsed=12.3,
        tunrouter=Product("1.2.3", "abc1234", "compiled", ("tso4",), 0),
        machine=Machine("Linux 6.18 x86_64", "A CPU", 2, 4096, "cubic", "3.11", "3.12"),
        settings=Settings(2, 3, 1500, "off", True, 1348),
        variants=[Variant("tunrouter", "1.2.3 (kernel compiled)", True, 1500, 1376, "off", 1437)],
        figures=[speed, plain],
        failures=[Failure(2, "tcp-1", "no-encryption", "iperf3: nothing arrived")] if failed else [],
    )  # fmt: skip


def show(monkeypatch: pytest.MonkeyPatch, output: str, *, failed: bool) -> None:
    monkeypatch.setattr(suite.Options, "check", lambda _: None)
    monkeypatch.setattr(suite, "run", lambda *_: report(failed=failed))
    run(Flags((), None, None, True, "1500", "off", None, False, output, None))


def test_the_table_says_what_was_measured_and_on_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show(monkeypatch, "text", failed=False)
    said = capsys.readouterr().out
    assert "tunrouter 1.2.3 abc1234, kernel compiled; underlay MTU 1500, offloads off; 2 × A CPU" in said
    assert "largest frame seen 1,437 bytes" in said
    rows = [line.split("  ") for line in said.splitlines() if "TCP, one stream" in line]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["TCP, one stream", "tunrouter", "1,100", "1,000 to 1,200", "Mbit/s"],
        ["TCP, one stream", "no-encryption", "2,200", "2,200 to 2,200", "Mbit/s", "2.00"],
    ]


def test_a_measurement_that_failed_is_in_the_result_and_in_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HostError, match="1 measurement failed, the first: tcp-1 over no-encryption: iperf3: nothing"):
        show(monkeypatch, "json", failed=True)
    assert msgspec.json.decode(capsys.readouterr().out, type=Report) == report(failed=True)


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
