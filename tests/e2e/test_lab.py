"""The lab itself: what it builds, the faults it plants, and that nothing of it outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunrouter.bench.capture import Capture
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import NETNS_DIR, wait_until
from tunrouter.bench.traffic import IperfServer, Stream, send_marker
from tunrouter.errors import HostError

pytestmark = pytest.mark.root

HOLD = """
import sys, time
from tunrouter.bench.lab import Lab
with Lab(hosts=2) as lab:
    lab.hosts[0].make_namespace("a")
    lab.hosts[0].namespace.spawn("sleep", "600", stdout=-3)
    print(lab.name, flush=True)
    time.sleep(600)
"""


def namespaces_of(lab: str) -> list[str]:
    return sorted(path.name for path in NETNS_DIR.glob(f"{lab}*"))


def ping(lab: Lab, sender: int, receiver: str, size: int = 56) -> bool:
    argv = ("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", str(size), receiver)
    return lab.hosts[sender].namespace.run(*argv, check=False).returncode == 0


def held_lab() -> tuple[subprocess.Popen[str], str]:
    """A lab in a process of its own, and its name."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def test_hosts_reach_each_other_over_both_families_and_faults_can_be_planted_and_healed() -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        assert ping(lab, 0, two.address)
        assert ping(lab, 1, one.address6)
        lab.fabric.cut("host1", "host2")
        assert not ping(lab, 0, two.address)
        assert lab.fabric.dropped() > 0
        lab.fabric.heal()
        lab.fabric.shrink(1000)
        assert ping(lab, 0, two.address)
        assert not ping(lab, 0, two.address, size=1200)
        lab.fabric.heal()
        assert ping(lab, 0, two.address, size=1472)
        two.readdress("192.0.2.77")
        assert ping(lab, 0, "192.0.2.77")
        assert not ping(lab, 0, "192.0.2.2")


def test_the_mtu_is_the_underlays() -> None:
    with Lab(hosts=2, mtu=9000) as lab:
        assert ping(lab, 0, lab.hosts[1].address, size=8972)
        assert not ping(lab, 0, lab.hosts[1].address, size=8973)


def test_loss_takes_about_its_share_and_a_hashed_stream_survives_it() -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        lab.fabric.lose(1.0)
        with Stream(one.namespace, two.namespace, two.address, 32 << 20) as stream:
            assert stream.finish().bytes == 32 << 20
        packets = (32 << 20) / 1448
        assert 0.3 * packets / 100 < lab.fabric.dropped() < 3 * packets / 100


def test_a_damaged_stream_is_an_error() -> None:
    with Lab(hosts=2) as lab:
        one, two = lab.hosts
        with Stream(one.namespace, two.namespace, two.address, 1 << 20) as stream:
            stream.size += 1
            with pytest.raises(HostError, match="damaged"):
                stream.finish()


def test_capture_sees_a_marker_on_the_wire() -> None:
    with Lab(hosts=2) as lab:
        one, two = lab.hosts
        with Capture(two.namespace, lab.directory / "wire") as capture:
            send_marker(one.namespace, two.address, b"seven red lanterns", count=5)
            assert len(capture.wait_for(5, "udp and dst port 5700")) == 5
            assert capture.holds(b"seven red lanterns")
            assert not capture.holds(b"eight red lanterns")


def test_iperf_measures_between_hosts() -> None:
    with Lab(hosts=2) as lab:
        one, two = lab.hosts
        with IperfServer(two.namespace) as server:
            assert server.tcp(one.namespace, two.address, seconds=1) > 100


def fail_inside(lab: Lab) -> None:
    with lab:
        (lab.directory / "host1" / "agent.log").write_text("said\n")
        raise RuntimeError("planned")


def test_leaving_by_an_exception_removes_everything_but_the_logs() -> None:
    lab = Lab(hosts=1)
    with pytest.raises(RuntimeError, match="planned"):
        fail_inside(lab)
    assert namespaces_of(lab.name) == []
    assert [log.read_text() for log in lab.logs()] == ["said\n"]
    lab.remove_logs()
    assert not lab.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_everything(number: signal.Signals) -> None:
    process, name = held_lab()
    assert len(namespaces_of(name)) == 4
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert namespaces_of(name) == []
    assert not Path(f"/tmp/{name}").exists()


def test_the_next_lab_removes_what_a_killed_one_left_and_leaves_a_living_one_alone() -> None:
    killed, left = held_lab()
    living, alive = held_lab()
    killed.kill()
    killed.communicate()
    assert len(namespaces_of(left)) == 4
    with Lab(hosts=1):
        assert namespaces_of(left) == []
        assert not Path(f"/tmp/{left}").exists()
        assert len(namespaces_of(alive)) == 4
    living.terminate()
    living.communicate(timeout=20)
    wait_until("the living lab cleaned up", lambda: not namespaces_of(alive), 5)
