"""`tunrouter ping` against a stub agent: its lines, its sums, and the exit codes of ping(8)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.test_render import HOSTILE
from tests.edge.serving import Stub
from tunrouter.edge.api import NodeName, PingCall, Pinged
from tunrouter.errors import AgentError

ROOT = Path(__file__).parent.parent.parent
DIRECT = Pinged(
    peer="42:8e:e8:c4:52:1b",
    nickname="host-2",
    id="428ee8c4521b0102",
    address="192.0.2.2:6783",
    path="direct",
    mtu=1376,
    encrypted=True,
    rtt=0.002,
    reason="",
)
RELAYED = msgspec.structs.replace(
    DIRECT, path="relay", via=(NodeName("m3", "host-3"), NodeName("m4", "host-4")), mtu=1298, rtt=0.004
)
LOST = msgspec.structs.replace(DIRECT, rtt=None, reason="no answer in time")


def answers(agent: Stub, *given: Pinged) -> None:
    one: Iterator[Pinged] = iter(given)
    agent.answer = lambda _: next(one)


def test_lines_sums_and_the_path(tunrouter: Run, agent: Stub) -> None:
    answers(agent, DIRECT, LOST, RELAYED)
    done = tunrouter("ping", "host-2", "-c", "3", "-i", "0.02", "-W", "0.5")
    assert done.code == 0
    sums = re.sub(r"time \d+ms", "time Nms", done.out)
    assert sums == (
        "PING host-2: node 42:8e:e8:c4:52:1b(host-2) at 192.0.2.2:6783, encrypted\n"
        "answer from host-2: seq=1 time=2.000 ms mtu=1376 direct\n"
        "no answer from host-2: seq=2 (no answer in time)\n"
        "answer from host-2: seq=3 time=4.000 ms mtu=1298 3 hops, relayed by host-3, host-4\n"
        "\n"
        "--- host-2 ping statistics ---\n"
        "3 packets transmitted, 2 received, 33.3333% packet loss, time Nms\n"
        "rtt min/avg/max/mdev = 2.000/3.000/4.000/1.000 ms\n"
    )
    assert agent.calls == [PingCall("host-2", 0.5)] * 3


def test_without_any_answer_it_exits_1(tunrouter: Run, agent: Stub) -> None:
    agent.answer = msgspec.structs.replace(LOST, path="", mtu=0, reason="not connected: no answer")
    done = tunrouter("ping", "host-2", "-c", "2", "-i", "0.02")
    assert done.code == 1
    assert done.out.count("no answer from host-2: seq=") == 2
    assert "2 packets transmitted, 0 received, 100% packet loss" in done.out
    assert "rtt" not in done.out


def test_what_else_is_wrong_exits_2_with_one_line(tunrouter: Run, agent: Stub) -> None:
    agent.answer = AgentError("no peer is called 'x'", "name one of: host-2")
    assert tunrouter("ping", "x") == (2, "", "tunrouter: no peer is called 'x'; name one of: host-2\n")


def test_json_is_one_object(tunrouter: Run, agent: Stub) -> None:
    answers(agent, DIRECT, RELAYED)
    found = json.loads(tunrouter("ping", "10.32.2.7", "-c", "2", "-i", "0.02", "-o", "json").out)
    assert found.pop("seconds") > 0.02
    assert found.pop("rtt") == {"min": 0.002, "avg": 0.003, "max": 0.004, "mdev": pytest.approx(0.001)}
    assert found == {
        "schema": 1,
        "target": "10.32.2.7",
        "peer": "42:8e:e8:c4:52:1b",
        "nickname": "host-2",
        "id": "428ee8c4521b0102",
        "address": "192.0.2.2:6783",
        "path": "relay",
        "via": [{"node": "m3", "nickname": "host-3"}, {"node": "m4", "nickname": "host-4"}],
        "mtu": 1298,
        "encrypted": True,
        "reason": "",
        "hops": 3,
        "sent": 2,
        "answered": 2,
        "loss": 0.0,
    }
    agent.answer = LOST
    lost = tunrouter("ping", "a", "-c", "1", "-o", "json")
    assert lost.code == 1
    assert json.loads(lost.out)["rtt"] is None


def test_no_text_of_a_peer_reaches_the_terminal_raw(tunrouter: Run, agent: Stub) -> None:
    text = HOSTILE.removesuffix("\udc80")  # what JSON cannot carry
    hostile = msgspec.structs.replace(RELAYED, peer=text, nickname=text, address=text, via=(NodeName(text, text),))
    answers(agent, hostile, msgspec.structs.replace(hostile, rtt=None, reason=text))
    out = tunrouter("ping", text, "-c", "2", "-i", "0.02").out
    assert out.replace("\n", "").isprintable()
    assert out.count("\n") == 7


def test_ctrl_c_sums_up(agent: Stub, tmp_path: Path) -> None:
    agent.answer = DIRECT
    environment = {**os.environ, "TUNROUTER_RUN_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tunrouter.cli", "ping", "host-2"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ping:
        assert ping.stdout is not None
        assert ping.stdout.readline().startswith(b"PING")
        assert ping.stdout.readline().startswith(b"answer")
        ping.send_signal(signal.SIGINT)
        out, err = ping.communicate(timeout=10)
    assert (ping.returncode, err) == (0, b"")
    assert b"--- host-2 ping statistics ---\n1 packets transmitted, 1 received, 0% packet loss" in out
