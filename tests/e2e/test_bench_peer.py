"""`tunrouter bench PEER` between two live agents: figures, and nothing left behind, however it ends."""

from __future__ import annotations

import signal
import subprocess

import msgspec
import pytest

from tunrouter.bench.agent import CLI, command_line, family
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.bench.peer import PeerReport
from tunrouter.cli.run import INTERRUPTED

pytestmark = [pytest.mark.root, pytest.mark.slow]


def responders(host: Host) -> list[int]:
    """Processes of this host's agent that serve a measurement."""
    return [pid for pid in family(host.agent.process.pid) if b"bench.responder" in command_line(pid)]


def begun(client: Host, *arguments: str) -> subprocess.Popen[bytes]:
    """The command, still running."""
    return client.namespace.spawn(*CLI, "bench", *arguments, env=client.agent.environment)


def test_a_live_peer_is_measured_and_its_responder_ends(pair: Lab) -> None:
    one, two = pair.hosts
    scenarios = "tcp-1,tcp-reverse,udp-64,rtt"
    done = one.agent.command("bench", two.name, "--quick", "--scenario", scenarios, "-o", "json", seconds=60)
    report = msgspec.json.decode(done.stdout, type=PeerReport)
    assert report.failures == []
    medians = {row.figure: row.summary.median for row in report.figures}
    assert 20 < medians["tcp-1"] < 100_000
    assert 20 < medians["tcp-reverse"] < 100_000
    assert 0 < medians["tcp-1-cpu"] < 100
    assert 1000 < medians["udp-64"] < 10_000_000
    assert 20 < medians["rtt-p50"] <= medians["rtt-p90"] <= medians["rtt-p99"] < 1e6
    assert report.path.encryption
    assert report.path.endpoint == f"{two.address}:6783"
    assert report.path.mtu == 1376
    assert (report.local.kernel, report.peer.kernel) == ("compiled", "compiled")
    wait_until("the responder is gone", lambda: not responders(two), 5)
    counters = two.agent.snapshot().counters
    assert counters["bench_started"] == 5, "one to look, one for each scenario"
    assert counters["bench_strangers"] == 0


def test_as_a_table_by_its_address(pair: Lab) -> None:
    one, two = pair.hosts
    done = one.agent.command("bench", two.address, "--quick", "--scenario", "rtt", seconds=60)
    assert "round trip, p50" in done.stdout
    assert f"{two.address}:6783, direct, encrypted, path MTU 1376" in done.stdout


def test_ctrl_c_and_the_agents_death_end_the_responder(pair: Lab) -> None:
    one, two = pair.hosts
    with begun(one, two.name, "--seconds", "20", "--scenario", "tcp-1") as command:
        wait_until("the second responder serves", lambda: two.agent.snapshot().counters["bench_started"] == 2, 10)
        command.send_signal(signal.SIGINT)
        assert command.wait(10) == INTERRUPTED
    wait_until("the responder is gone", lambda: not responders(two), 5)
    with begun(one, two.name, "--seconds", "20", "--scenario", "tcp-1") as command:
        wait_until("the fourth responder serves", lambda: two.agent.snapshot().counters["bench_started"] == 4, 10)
        wait_until("a responder runs", lambda: bool(responders(two)), 5)
        (pid,) = responders(two)
        two.agent.kill()
        wait_until("the responder is gone", lambda: not command_line(pid), 5)
        command.kill()


def test_who_cannot_be_measured_is_said_with_the_next_step(pair: Lab) -> None:
    one, two = pair.hosts
    nobody = one.agent.command("bench", "nobody", check=False)
    assert nobody.returncode != 0
    assert "no peer is called 'nobody'" in nobody.stderr
    assert two.name in nobody.stderr
    assert "is this node" in one.agent.command("bench", one.name, check=False).stderr
    two.namespace.run("nft", "add", "table", "inet", "strict")
    two.namespace.run("nft", "add", "chain", "inet", "strict", "in", "{ type filter hook input priority 10; }")
    two.namespace.run("nft", "add", "rule", "inet", "strict", "in", "iifname", "tunrouter0", "drop")
    shut = one.agent.command("bench", two.name, check=False)
    assert "timed out; does the peer's firewall accept traffic from tunrouter0?" in shut.stderr.replace("\n", " ")
    two.namespace.run("nft", "delete", "table", "inet", "strict")


def test_a_node_may_refuse(secret: str) -> None:
    with Lab(hosts=2) as lab:
        lab.start_agents("--no-bench", password=secret)
        one, two = lab.hosts
        done = one.agent.command("bench", two.name, check=False)
        assert done.returncode != 0
        assert "does not let itself be measured" in done.stderr
        assert "Traceback" not in done.stderr
        assert two.agent.snapshot().counters["bench_refused"] == 1
