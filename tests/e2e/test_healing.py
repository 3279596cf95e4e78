"""Three real agents and a pod on each, while their underlay and their processes fail in turns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Literal

import pytest

from tests.e2e.test_mesh import snapshot
from tunrouter.bench.agent import family
from tunrouter.bench.capture import Capture
from tunrouter.bench.lab import Host, Lab, Pod
from tunrouter.bench.namespaces import wait_until
from tunrouter.bench.traffic import send_marker
from tunrouter.doctor.peers import blocks, password, path_mtu, peers

pytestmark = [pytest.mark.root, pytest.mark.alone]

MARKER = b"no relay may read this"
PINGS_PER_SECOND = 20
OF_OTHERS = (peers, password, path_mtu, blocks)
"""What the doctor says of other nodes; of the agent it may say that it was held up, on a busy machine."""
FALSE_ALARM = "nothing came for too long"


class Pings:
    """Pings between two pods; `gap` is the longest time between two answers."""

    def __init__(self, sender: Pod, receiver: Pod) -> None:
        pause = str(1 / PINGS_PER_SECOND)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`; a pipe would be full after a minute)
        ping = ("ping", "-D", "-n", "-i", pause, "-W", "1", receiver.address)
        self._process = sender.namespace.spawn(*ping, stdout=self._file)
        self._out = b""

    def __enter__(self) -> Pings:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=5)
            self._file.seek(0)
            self._out = self._file.read()
            self._file.close()

    @property
    def answers(self) -> list[float]:
        """When each one came, in seconds of the wall clock."""
        self.stop()
        return [float(at) for at in re.findall(rb"^\[([0-9.]+)\] \d+ bytes", self._out, re.MULTILINE)]

    @property
    def duplicates(self) -> int:
        self.stop()
        return self._out.count(b"(DUP!)")

    @property
    def gap(self) -> float:
        times = self.answers
        return max(after - before for before, after in pairwise(times))


@pytest.fixture
def trio(secret: str, underlay: Literal[4, 6]) -> Iterator[Lab]:
    """The first knows nobody, the others know it; all have found each other."""
    with Lab(hosts=3, offloads="off", underlay=underlay) as lab:
        first, *others = lab.hosts
        first.agent.start(password=secret)
        for host in others:
            host.agent.start(first.endpoint, password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        wait_until("all are linked directly", lambda: all(paths(host) == ["direct"] * 2 for host in lab.hosts), 15)
        yield lab


def paths(host: Host) -> list[str]:
    """How the established connections go, in no order that matters."""
    found = snapshot(host)
    rows = found.connections if found is not None else ()
    return sorted(row.path for row in rows if row.state == "established")


def path(host: Host, other: Host) -> str:
    found = snapshot(host)
    rows = found.connections if found is not None else ()
    return next((row.path for row in rows if row.nickname == other.agent.name and row.state == "established"), "")


def cut(lab: Lab, one: Host, other: Host, *, one_way: bool) -> None:
    lab.fabric.cut(one.name, other.name)
    if not one_way:
        lab.fabric.cut(other.name, one.name)


def go_around(lab: Lab, *, one_way: bool) -> float:
    """Cuts the link of the last two, and heals it when both say that they go around; the gap that their pods saw."""
    first, one, other = lab.hosts
    with Pings(one.pods[0], other.pods[0]) as pings:
        cut(lab, one, other, one_way=one_way)
        relay = f"relay through {first.agent.name}"
        wait_until("both go around", lambda: path(one, other) == path(other, one) == relay, 4.5)
        size = RELAYED_BYTES[lab.underlay] - 28
        assert len(one.pods[0].ping(other.pods[0].address, count=3, size=size)) == 3
    lab.fabric.heal()
    wait_until("both go directly", lambda: path(one, other) == path(other, one) == "direct", 65)
    mtus = [int(mtu) for mtu in re.findall(r"inner path MTU is now (\d+)", one.agent.log.read_text())]
    assert min(mtus, default=1376) == RELAYED_BYTES[lab.underlay]
    return pings.gap


RELAYED_BYTES = {4: 1376, 6: 1500 - 131}
"""The largest packet that a relay carries over an underlay of 1,500 bytes."""


@pytest.mark.parametrize(
    ("one_way", "underlay"),
    [pytest.param(False, 6, marks=pytest.mark.soak), (True, 4)],
    ids=["both-ways-ipv6", "one-way"],
)
def test_a_cut_link_is_gone_around_and_taken_again(trio: Lab, one_way: bool) -> None:
    assert go_around(trio, one_way=one_way) <= 2.0


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("one_way", [False, True], ids=["both-ways", "one-way"])
def test_the_worst_of_twenty_gaps_is_two_seconds(trio: Lab, one_way: bool) -> None:
    gaps = [go_around(trio, one_way=one_way) for _ in range(20)]
    assert max(gaps) <= 2.0, sorted(gaps)


def test_a_relay_reads_nothing(trio: Lab) -> None:
    relay, one, other = trio.hosts
    cut(trio, one, other, one_way=False)
    wait_until("it goes around", lambda: path(one, other).startswith("relay"), 5)
    with Capture(relay.namespace, trio.directory / "relay") as capture:
        send_marker(one.pods[0].namespace, other.pods[0].address, MARKER)
        assert one.pods[0].ping(other.pods[0].address, count=5)
        capture.wait_for(20, f"udp port 6783 and host {one.address}")
        assert not capture.holds(MARKER)
    with Capture(relay.namespace, trio.directory / "tun", interface="tunrouter0") as capture:
        assert one.pods[0].ping(other.pods[0].address, count=3)
        assert relay.pods[0].ping(other.pods[0].address, count=1)
        capture.wait_for(1, "icmp")
        assert not capture.packets(f"host {one.pods[0].address}")


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_where_no_majority_sees_the_same_every_pair_still_reaches_each_other(secret: str) -> None:
    """Five in a ring: each lacks one of the others, so each sees another majority."""
    with Lab(hosts=5, offloads="off") as lab:
        seed, *others = lab.hosts
        seed.agent.start(password=secret)
        for host in others:
            host.agent.start(seed.address, password=secret)
        pods = [host.add_pod("a") for host in lab.hosts]
        wait_until("all are linked directly", lambda: all(paths(host) == ["direct"] * 4 for host in lab.hosts), 20)
        for at, host in enumerate(lab.hosts):
            cut(lab, host, lab.hosts[(at + 2) % 5], one_way=True)
        wait_until("both ends of each go around", lambda: all(relays(host) == 2 for host in lab.hosts), 8)
        for one, other in permutations(pods, 2):
            assert one.ping(other.address, count=2), f"{one} does not reach {other}"


def relays(host: Host) -> int:
    return sum(path.startswith("relay through") for path in paths(host))


def established(host: Host) -> int:
    return len(paths(host))


def test_a_stopped_agent_is_missed_in_time_and_accuses_nobody(trio: Lab) -> None:
    one, other, victim = trio.hosts
    members = family(victim.agent.process.pid)
    for pid in members:
        os.kill(pid, signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        wait_until("it is declared dead", lambda: established(one) == established(other) == 1, 4)
        assert one.pods[0].ping(other.pods[0].address, count=2)
        # It sleeps for ten seconds in all, as the fault has it: nothing else says that the time is over.
        wait_until("ten seconds are over", lambda: time.monotonic() - stopped >= 10, 11)
        before = victim.agent.log.read_text()
    finally:
        for pid in members:
            os.kill(pid, signal.SIGCONT)
    woken = time.monotonic()
    wait_until("it answers again", lambda: one.pods[0].ping(victim.pods[0].address, seconds=0.3), 2, pause=0.01)
    assert other.pods[0].ping(victim.pods[0].address, seconds=max(0.3, 2 - (time.monotonic() - woken)))
    wait_until("all are back", lambda: [established(host) for host in trio.hosts] == [2, 2, 2], 2)
    assert FALSE_ALARM not in victim.agent.log.read_text().removeprefix(before)


def hold_out(lab: Lab, seconds: float) -> Pings:
    one, other = lab.hosts[1:]
    with Pings(one.pods[0], other.pods[0]) as pings:
        began = time.monotonic()
        wait_until("it has lasted", lambda: time.monotonic() - began >= seconds, seconds + 5, pause=0.5)
    return pings


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(10, marks=pytest.mark.soak), pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_ten_percent_of_loss_brings_no_link_down(trio: Lab, seconds: int) -> None:
    trio.fabric.lose(10)
    pings = hold_out(trio, seconds)
    assert trio.fabric.dropped() > 2 * seconds
    share = len(pings.answers) / (seconds * PINGS_PER_SECOND)
    assert 0.6 < share < 0.98, "of the pings both ways should survive 0.9 times 0.9"
    for host in trio.hosts:
        assert FALSE_ALARM not in host.agent.log.read_text()
        assert paths(host) == ["direct"] * 2
        found = snapshot(host)
        assert found is not None
        assert [one for report in OF_OTHERS for one in report(found) if one.level != "ok"] == []


def test_what_the_underlay_doubles_reaches_pods_once(pair: Lab) -> None:
    one, other = pair.hosts
    pair.fabric.namespace.run(
        "nft",
        "-f",
        "-",
        stdin="".join(
            f"table netdev double{ports[0]} {{ chain in {{ type filter hook ingress device {ports[0]} priority 0; "
            f"udp dport 6783 counter dup to {ports[1]}\n}}\n}}\n"
            for ports in ((one.name, other.name), (other.name, one.name))
        ),
    )
    with Pings(one.pods[0], other.pods[0]) as pings:
        wait_until("enough were doubled", lambda: doubled(pair) > 200, 15, pause=0.2)
    assert len(pings.answers) > 60
    assert pings.duplicates == 0
    found = snapshot(other)
    assert found is not None
    assert found.counters["drop_replay"] > 50


def doubled(lab: Lab) -> int:
    words = lab.fabric.namespace.run("nft", "list", "ruleset").stdout.split()
    return sum(int(words[at + 1]) for at, word in enumerate(words) if word == "packets")


@pytest.fixture
def wall_clock(tmp_path: Path) -> Path:
    return build_wall_clock(tmp_path)


def build_wall_clock(folder: Path) -> Path:
    """The library that moves the wall clock of who loads it."""
    library = folder / "wallclock.so"
    source = Path(__file__).with_name("wallclock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


TEN_YEARS = 3652 * 86_400


def told_time(environment: dict[str, str]) -> float:
    """What a process like the agent takes for the time."""
    script = [sys.executable, "-c", "import time; print(time.time())"]
    return float(subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.soak
def test_when_the_wall_clock_jumps_by_ten_years_nothing_happens(secret: str, tmp_path: Path, wall_clock: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0\n")
    moved = {"LD_PRELOAD": str(wall_clock), "WALL_CLOCK": str(clock)}
    assert abs(told_time(moved) - time.time()) < 5
    clock.write_text(f"{TEN_YEARS}\n")
    assert told_time(moved) - time.time() > TEN_YEARS - 5, "the library works"
    clock.write_text("0\n")
    with Lab(hosts=2, offloads="off") as lab:
        one, other = lab.hosts
        one.agent.extra_environment = moved
        lab.start_agents(password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        one.agent.wait_established(1)
        made = [handshake(host) for host in lab.hosts]
        with Pings(one.pods[0], other.pods[0]) as pings:
            for jump in (TEN_YEARS, -TEN_YEARS, 0):
                clock.write_text(f"{jump}\n")
                began = time.monotonic()
                wait_until("it has lasted", lambda began=began: time.monotonic() - began > 3, 5)  # type: ignore[misc]
        assert pings.gap < 0.5
        assert [handshake(host) for host in lab.hosts] == pytest.approx(made, abs=1.0)
        assert [len(paths(host)) for host in lab.hosts] == [1, 1]


def handshake(host: Host) -> float:
    """When the keys in use were made, on our clock."""
    found = snapshot(host)
    assert found is not None
    (row,) = found.connections
    assert row.last_handshake is not None
    return time.monotonic() - row.last_handshake
