"""`tunrouter top`: frames that fit any terminal, whoever the peers are, and a terminal that is left as it was found."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.test_rates import at, looks, peer
from tests.cli.test_render import HOSTILE
from tests.edge.serving import Stub, serving
from tunrouter.cli.rates import Interval
from tunrouter.cli.text import cells, decimal, fit
from tunrouter.cli.top import Options, chosen, frame, table
from tunrouter.core.status import Connection
from tunrouter.edge.api import StatusCall
from tunrouter.errors import AgentError

ROOT = Path(__file__).parent.parent.parent
OPTIONS = Options(1.0, None, "rate", None)


def crowd(count: int, nickname: str = "") -> Interval:
    """The peer of number n sends n packets of 100 bytes in a second."""

    def peers(seconds: int) -> Iterator[Connection]:
        for number in range(count):
            one = peer(number * seconds, 0, name=f"peer-{number:03}")
            yield msgspec.structs.replace(one, nickname=nickname, rtt=0.001 * (count - number), loss=None)

    (found,) = looks(at(100, *peers(1)), at(101, *peers(2)))
    return found


def shown(lines: list[str]) -> list[str]:
    """The peers in the frame."""
    return [line.split()[0] for line in lines if line.startswith("peer-")]


def test_five_hundred_peers_the_busiest_first() -> None:
    lines = table(chosen(crowd(500), OPTIONS), 120, 40)
    assert len(lines) == 40
    assert shown(lines) == [f"peer-{number}" for number in range(499, 462, -1)]
    assert lines[-1] == "and 463 more"
    heads = "PEER TX bit/s RX bit/s TX p/s RX p/s RTT LOSS MTU PATH"
    assert lines[1].split() == heads.split()
    assert lines[2].split() == ["peer-499", "399k", "0", "499", "0", "1.0ms", "-", "1439", "direct"]
    assert lines[0].startswith("7a:16:dd:5b:83:de(host-1): 500 connected, TX 99.8Mbit/s 125kp/s, RX 0bit/s 0p/s, drops")


@pytest.mark.parametrize(
    ("sort", "first"), [("rate", "peer-009"), ("rtt", "peer-000"), ("name", "peer-000"), ("loss", "peer-000")]
)
def test_sorted_and_only_the_first(sort: str, first: str) -> None:
    found = chosen(crowd(10), Options(1.0, None, sort, 3))
    assert found.peers[0].peer == first
    assert len(found.peers) == 3
    assert found.total.sent_packets == 45, "of all of them"


@pytest.mark.parametrize("nickname", ["", "host-1", "世界" * 16, HOSTILE, "e\u0301" * 30])
def test_no_frame_is_larger_than_its_terminal(nickname: str) -> None:
    found = chosen(crowd(30, nickname), OPTIONS)
    for columns in (1, 2, 5, 8, 20, 27, 28, 40, 60, 79, 80, 100, 200):
        for lines in (1, 2, 3, 4, 24, 33):
            made = frame(found, "no agent answers", os.terminal_size((columns, lines)))
            assert len(made) <= lines
            assert all(cells(line) <= columns and line.isprintable() for line in made)
    everything = table(found, 200, 40)
    assert len(everything) == 32
    assert not any("more" in line for line in everything)


def test_a_narrow_terminal_loses_the_least_important_first() -> None:
    found = crowd(1)
    assert [" ".join(table(found, width, 10)[1].split()) for width in (80, 70, 60, 50, 40, 30, 10)] == [
        "PEER TX bit/s RX bit/s TX p/s RX p/s RTT LOSS MTU PATH",
        "PEER TX bit/s RX bit/s RTT LOSS PATH",
        "PEER TX bit/s RX bit/s RTT LOSS PATH",
        "PEER TX bit/s RX bit/s RTT PATH",
        "PEER TX bit/s RX bit/s RTT",
        "PEER TX bit/s RX bit/s",
        "PEER",
    ]


def test_what_is_not_known_is_a_dash_and_who_is_away_says_why() -> None:
    away = msgspec.structs.replace(peer(0, 0, name="peer-1"), state="retrying", rtt=None, loss=None, mtu=0)
    (found,) = looks(at(100), at(101, away))
    assert table(found, 120, 10)[2].split() == ["peer-1(host-2)", "-", "-", "-", "-", "-", "-", "-", "retrying"]


def test_a_new_life_and_reasons_of_drops_are_said() -> None:
    (found,) = looks(at(100), at(2, incarnation=9, drop_tag=1, drop_replay=9))
    assert table(found, 200, 5)[0].endswith("drops 5.0/s (drop_replay drop_tag), the agent was started anew")


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (0.04, "0"), (0.5, "0.5"), (9.99, "10.0"), (42, "42.0"), (431.2, "431"), (999.4, "999"),
     (999.6, "1.00k"), (12_345, "12.3k"), (1_250_000, "1.25M"), (9.9949e9, "9.99G"), (1e18, "1000P")],
)  # fmt: skip
def test_decimal(amount: float, text: str) -> None:
    assert decimal(amount) == text


def test_fit_counts_columns() -> None:
    assert fit("世界", 3) == "世 "
    assert fit("abc", 2) == "ab"
    assert fit("e\u0301", 3) == "e\u0301  "


# --- without a terminal ----------------------------------------------------------------------------------------------
def test_once_is_a_table_and_json_an_object_an_interval(tunrouter: Run, agent: Stub) -> None:
    began = time.monotonic()
    agent.answer = lambda _: at(100 + time.monotonic() - began, peer(int(1000 * (time.monotonic() - began)), 0))
    done = tunrouter("top", "--once", "-i", "0.1")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["PEER", "42:8e:e8:c4:52:1b(host-2)"]
    lines = tunrouter("top", "-c", "3", "-i", "0.1", "-o", "json").out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["schema"] for one in found] == [1, 1, 1]
    assert all(0.09 < one["seconds"] < 5 for one in found)
    assert all(800 < one["peers"][0]["sent_packets"] < 1200 for one in found)
    assert set(agent.calls) == {StatusCall(cluster=False)}, "which costs the agent no more in a large cluster"


def test_an_agent_that_goes_is_waited_for(tunrouter: Run, agent: Stub) -> None:
    given = iter([at(100), AgentError("the agent is stopping"), AgentError("no"), at(1, incarnation=5)])
    agent.answer = lambda _: next(given)
    done = tunrouter("top", "-i", "0.1", "-c", "1", "-o", "json")
    assert json.loads(done.out)["restarted"]
    assert done.err == "tunrouter: the agent is stopping; waiting for it\n"


# --- in a terminal ---------------------------------------------------------------------------------------------------
class Screen:
    """What `top` writes to a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor
        self.text = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, wanted: bytes, seconds: float = 10.0) -> bytes:
        """All that is written up to this, which is forgotten then."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.descriptor, 1 << 16)
                except OSError:  # the other end is closed
                    assert wanted in self.text, self.text
        found, _, self.text = self.text.partition(wanted)
        return found


@contextmanager
def watching(run_dir: Path, *arguments: str) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TUNROUTER_RUN_DIR": str(run_dir)}
    command = [sys.executable, "-m", "tunrouter.cli", "top", *arguments]
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 100, 0, 0))
    # `setsid -c`: the terminal is the process's own, so that it hears of Ctrl-C and of new sizes.
    with subprocess.Popen(["setsid", "-c", *command], cwd=ROOT, env=environment, stdin=theirs, stdout=theirs,
                          stderr=subprocess.PIPE) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield Screen(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_resized_waits_for_its_agent_and_leaves_the_terminal_whole(tmp_path: Path) -> None:
    stub = Stub(at(100, *(peer(1, 1, name=f"peer-{number:02}") for number in range(20))))
    with serving(tmp_path / "tunrouter.sock", stub), watching(tmp_path, "-i", "60") as screen:
        screen.until(b"the first figures come in a moment")
        screen.resize(8, 3)
        screen.until(b"the firs\x1b[K\x1b[J", 5)  # at once, not after a minute
    with serving(tmp_path / "tunrouter.sock", stub), watching(tmp_path, "-i", "0.2") as screen:
        screen.until(b"and 13 more")
        screen.resize(100, 5)
        screen.until(b"and 18 more")
        stub.answer = AgentError("the agent is stopping")
        screen.until(b"the agent is stopping")
        os.write(screen.descriptor, b"\x03")
        screen.until(b"\x1b[?7h\x1b[?25h")
        assert screen.process.wait(10) == 0
        assert screen.process.stderr is not None
        assert screen.process.stderr.read() == b""


def test_killed_politely_it_leaves_the_terminal_whole(tmp_path: Path) -> None:
    with serving(tmp_path / "tunrouter.sock", Stub(at(100))), watching(tmp_path, "-i", "60") as screen:
        screen.until(b"\x1b[?25l\x1b[?7l")
        screen.process.send_signal(signal.SIGTERM)
        screen.until(b"\x1b[?7h\x1b[?25h")
        assert screen.process.wait(10) == 128 + signal.SIGTERM
