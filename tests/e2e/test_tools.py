"""`ping`, `top` and `report` beside real agents: on paths that are direct, relayed and dead, and under traffic."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.test_report import untouched
from tunrouter.bench.agent import CLI
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import lines_until, stop, wait_until
from tunrouter.bench.traffic import Stream
from tunrouter.core.status import peer_name

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 1 << 20


def done(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    return host.agent.command(*arguments, check=False)


def pinged(host: Host, target: str, *arguments: str) -> dict[str, Any]:
    found = json.loads(done(host, "ping", target, "-c", "3", "-i", "0.05", "-o", "json", *arguments).stdout)
    assert isinstance(found, dict)
    return found


def cut(lab: Lab, one: Host, other: Host) -> None:
    lab.fabric.cut(one.name, other.name)
    lab.fabric.cut(other.name, one.name)


@pytest.fixture(scope="module")
def lab(secret: str) -> Iterator[Lab]:
    """Four hosts; the tests below go through it in their order, from whole to dead."""
    with Lab(hosts=4, offloads="off") as lab:
        lab.start_agents(password=secret)
        yield lab


def test_a_direct_path_by_every_name(lab: Lab) -> None:
    one, two = lab.hosts[:2]
    pod = two.add_pod("a")
    one.add_pod("a")
    for target in (two.address, pod.address):
        found = pinged(one, target)
        assert (found["nickname"], found["answered"], found["path"], found["hops"]) == (two.name, 3, "direct", 1)
        assert (found["mtu"], found["encrypted"]) == (1376, True)
        assert 0 < found["rtt"]["min"] <= found["rtt"]["avg"] <= found["rtt"]["max"] < 1
    text = done(one, "ping", two.name, "-c", "2", "-i", "0.05")
    assert text.returncode == 0
    assert re.search(r"answer from host2: seq=2 time=[\d.]+ ms mtu=1376 direct\n", text.stdout)
    assert re.search(r"^2 packets transmitted, 2 received, 0% packet loss, time \d+ms$", text.stdout, re.MULTILINE)


def test_nobody_and_oneself_are_one_line_and_code_2(lab: Lab) -> None:
    one = lab.hosts[0]
    for target, line in (
        ("nobody", "no peer is called 'nobody'; name one of: host2, host3, host4"),
        ("10.32.1.1", "10.32.1.1 is an address of this node; no tunnel leads there"),
    ):
        answer = done(one, "ping", target)
        assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
        assert line in answer.stderr


def test_report_of_a_live_agent_has_weaves_keys_and_no_secret(lab: Lab, secret: str) -> None:
    one = lab.hosts[0]
    text = done(one, "report").stdout
    found = json.loads(text)
    assert (found["running"], found["Ready"], found["DNS"]) == (True, True, None)
    assert {peer["NickName"] for peer in found["Router"]["Peers"]} == {host.name for host in lab.hosts}
    states = [connection["State"] for connection in found["Router"]["Connections"]]
    assert states == ["established"] * 3
    assert [entry["Token"] for entry in found["IPAM"]["Entries"]] == [f"10.32.{n}.0" for n in (1, 2, 3, 4)]
    seed = (one.agent.directory / "state" / "identity.key").read_bytes()
    for form in (secret, secret.removeprefix("trk1-")[:40], seed.hex(), str(list(seed))[1:-1]):
        assert form not in text
    assert done(one, "report", "-f", "{{.Router.NickName}}").stdout == "host1\n"


def test_top_under_traffic_and_over_a_restart(lab: Lab) -> None:
    one, two = lab.hosts[:2]
    sender, receiver = one.pods[0], two.pods[0]
    restarts, steady, command = 0, [False, False], ("top", "-o", "json", "-i", "0.5", "--peers", "1")
    with Stream(sender.namespace, receiver.namespace, receiver.address, 60 * MIB, rate=MIB):
        top = one.namespace.spawn(*CLI, *command, env=one.agent.environment, stderr=subprocess.DEVNULL)
        try:
            for line in lines_until(top, time.monotonic() + 20):
                found = json.loads(line)
                restarts += found["restarted"]
                if not found["peers"]:
                    continue  # an agent that has just started knows nobody yet
                (row,) = found["peers"]
                rate = row["sent_bits"] or 0.0
                assert rate >= 0, "counters go back, rates do not go below nothing"
                payload = 8 * MIB
                # What the stream sends, and its headers; in between it makes up for what it missed.
                if row["nickname"] == two.name and payload < rate < 1.3 * payload:
                    if not any(steady):
                        one.agent.crash()
                        one.agent.restart(wait=False)
                    steady[restarts] = True
                if all(steady):
                    break
        finally:
            stop(top)
    assert steady == [True, True]


def test_a_relayed_path_names_each_relay(lab: Lab) -> None:
    one, two, three, four = lab.hosts
    for ends in ((one, three), (one, four), (two, four)):
        cut(lab, *ends)

    def relayed() -> dict[str, Any] | None:
        found = pinged(one, four.name)
        return found if found["answered"] == 3 and len(found["via"]) == 2 else None

    found = wait_until("both relays are known", relayed, 20)
    assert [relay["nickname"] for relay in found["via"]] == [two.name, three.name]
    assert (found["path"], found["hops"], found["address"]) == ("relay", 3, f"{four.address}:6783")
    text = done(one, "ping", "10.32.4.1", "-c", "1").stdout
    assert "3 hops, relayed by host2, host3\n" in text
    top = done(one, "top", "--once", "-i", "0.1", "--sort", "name").stdout
    assert re.search(r"\(host4\) .*  relay through host2$", top, re.MULTILINE)
    ways = {way["Dest"]: way["Via"] for way in json.loads(done(one, "report").stdout)["Router"]["UnicastRoutes"]}
    ids = {peer.nickname: peer.name for peer in one.agent.snapshot().peers}
    assert ways[ids["host4"]] == ids["host2"]


def test_a_dead_peer_is_said_to_be_and_exits_1(lab: Lab) -> None:
    one, two = lab.hosts[:2]
    two.agent.kill()

    def gone() -> str:
        answer = done(one, "ping", two.name, "-c", "1", "-W", "0.3")
        assert (answer.returncode, answer.stderr) == (1, "")
        return answer.stdout if "not connected" in answer.stdout else ""

    text = wait_until("the peer is known to be dead", gone, 15)
    assert "no answer from host2: seq=1 (not connected: no answer)\n" in text
    assert "1 packets transmitted, 0 received, 100% packet loss" in text


def test_report_of_a_killed_agent_is_what_is_on_disk_untouched(lab: Lab, secret: str) -> None:
    two = lab.hosts[1]
    state = two.agent.directory / "state"
    before = untouched(state)
    answer = done(two, "report")
    assert (answer.returncode, answer.stderr) == (0, f"tunrouter: no agent runs: this is what is on disk in {state}\n")
    found = json.loads(answer.stdout)
    assert (found["running"], found["snapshot"]) == (False, None)
    known = {peer.nickname: peer for peer in lab.hosts[0].agent.snapshot().peers}
    assert (found["disk"]["name"], found["disk"]["id"]) == (known["host2"].name, known["host2"].id)
    assert found["disk"]["name"] == peer_name(int(found["disk"]["id"], 16))
    leases = {lease["address"] for lease in found["disk"]["leases"]}
    assert {pod.address for pod in two.pods} == leases
    assert f"{lab.hosts[0].address}:6783" in found["disk"]["endpoints"]
    assert secret not in answer.stdout
    assert untouched(state) == before
    assert done(two, "top", "--once").returncode == 3
    assert done(two, "ping", "host1").returncode == 3
