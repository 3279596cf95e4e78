"""Real agents that a service manager watches and that operators reload."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.manager import Manager
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.bench.traffic import Stream
from tunrouter.core.keys import generate_secret
from tunrouter.core.status import Connection

pytestmark = pytest.mark.root

SIZE = 10
RATE = 1 << 20
"""Bytes a second of each stream that has to outlive a rotation."""
SECONDS = 30
AGAIN = "the configuration was read again"
REFUSED = "the new configuration is refused and the old one stays"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(hosts=2) as lab:
        yield lab


def keep_secrets(host: Host, *secrets: str) -> None:
    """As an operator does it: the file is there whole, or as it was."""
    fresh = host.agent.directory / "password.new"
    fresh.touch(mode=0o600)
    fresh.write_text("".join(f"{secret}\n" for secret in secrets))
    fresh.rename(host.agent.directory / "password")


def reload(host: Host, said: str = AGAIN) -> str:
    """The line in which the agent says what became of it."""
    before = len(lines(host, said))
    host.agent.process.send_signal(signal.SIGHUP)
    return wait_until(f"{host} reloads", lambda: lines(host, said)[before:], 10)[0]


def lines(host: Host, said: str) -> list[str]:
    return [line for line in host.agent.log.read_text().splitlines() if said in line]


def established(host: Host) -> set[str]:
    return {found.peer for found in host.agent.connections() if found.state == "established"}


def configure(host: Host, **table: object) -> None:
    (host.agent.directory / "config.toml").write_text("".join(f"{name} = {value!r}\n" for name, value in table.items()))


def start_configured(host: Host, *arguments: str, password: str) -> None:
    host.agent.start("--config", str(host.agent.directory / "config.toml"), *arguments, password=password)


def test_the_manager_hears_of_a_real_agent(lab: Lab, secret: str, tmp_path: Path) -> None:
    host = lab.hosts[0]
    with Manager(tmp_path) as manager:  # an abstract name would be another network namespace's
        host.agent.extra_environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
        host.agent.start(password=secret, wait=False)
        assert manager.hear(30) == ["STATUS=setting this host up"]
        assert manager.hear(30) == ["READY=1"]
        assert host.agent.command("status").returncode == 0, "who is ready answers"
        assert "oifname" in host.namespace.run("nft", "list", "table", "inet", "tunrouter").stdout
        manager.until("STATUS=pods of 10.32.1.0/24; 0 peers connected")
        manager.until("WATCHDOG=1")
        host.agent.process.send_signal(signal.SIGHUP)
        assert manager.until("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        manager.until("READY=1")
        for pid in children(host):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in environ, "workers do not speak for the agent"
            assert b"WATCHDOG" not in environ
        os.kill(host.agent.process.pid, signal.SIGSTOP)
        manager.waiting()
        with pytest.raises(TimeoutError):
            manager.hear(1.5)
        os.kill(host.agent.process.pid, signal.SIGCONT)
        manager.until("WATCHDOG=1")
        host.agent.process.terminate()
        manager.until("STOPPING=1")
        assert host.agent.process.wait(10) == 0


def children(host: Host) -> list[int]:
    pid = host.agent.process.pid
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def test_peers_come_and_go_with_the_configuration(lab: Lab, secret: str) -> None:
    one, two = lab.hosts
    for host in lab.hosts:
        configure(host, log_level="info")
        start_configured(host, password=secret)
    configure(one, peers=[two.address])
    assert reload(one).endswith("changed: peers")
    one.agent.wait_established(1)
    assert one.agent.snapshot().targets == (two.address,)
    configure(one, peers=["192.0.2.77"])
    reload(one)
    assert one.agent.snapshot().targets == ("192.0.2.77",)
    assert len(established(one)) == 1, "what stands goes on"


def test_a_broken_file_changes_nothing_and_the_level_of_the_log_does(lab: Lab, secret: str) -> None:
    host = lab.hosts[0]
    configure(host, peers=["192.0.2.2"])
    start_configured(host, password=secret)
    (host.agent.directory / "config.toml").write_text("peers = [")
    assert "not valid TOML" in reload(host, REFUSED)
    assert host.agent.snapshot().targets == ("192.0.2.2",)
    configure(host, peers=["192.0.2.2"], log_level="warning", mtu=1200, bridge="other")
    assert reload(host, "only a restart changes").endswith("only a restart changes: mtu, bridge")
    assert len(lines(host, AGAIN)) == 0, "it is information, and those are not wanted any more"
    configure(host, peers=["192.0.2.2"], log_level="debug")
    assert reload(host).endswith("changed: log_level")


def test_no_process_shows_a_secret_after_a_reload(lab: Lab, secret: str) -> None:
    host = lab.hosts[0]
    host.agent.extra_environment["TUNROUTER_PASSWORD"] = secret
    host.agent.start(password=None)
    assert reload(host).endswith("changed: nothing")
    assert host.agent.snapshot().encryption
    for pid in (host.agent.process.pid, *children(host)):
        for what in ("environ", "cmdline"):
            assert secret.encode() not in Path(f"/proc/{pid}/{what}").read_bytes()
    assert secret not in host.agent.log.read_text()


def test_reloads_that_come_before_the_agent_is_ready_are_not_its_end(lab: Lab, secret: str) -> None:
    host = lab.hosts[0]
    host.agent.start(password=secret, wait=False)
    socket = host.agent.directory / "run" / "tunrouter.sock"
    wait_until("the agent has a socket, long before it is ready", socket.exists, 15, pause=0.001)
    for _ in range(20):
        host.agent.process.send_signal(signal.SIGHUP)
    host.agent.wait_ready()
    wait_until("it has reloaded", lambda: lines(host, AGAIN), 10)


def failed(host: Host) -> Connection | None:
    return next((found for found in host.agent.connections() if found.state == "failed" and found.reason), None)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_ten_nodes_change_their_secret_by_reloads_and_lose_no_connection() -> None:
    old, new = (generate_secret(os.urandom) for _ in range(2))
    with Lab(hosts=SIZE + 1, offloads="off") as lab, contextlib.ExitStack() as stack:
        *ten, late = lab.hosts
        lab.start_agents(password=old, hosts=ten)
        pods = [host.add_pod("a") for host in ten]
        following = [*pods[1:], pods[0]]
        streams = [
            stack.enter_context(Stream(one.namespace, two.namespace, two.address, RATE * SECONDS, rate=RATE))
            for one, two in zip(pods, following, strict=True)
        ]
        before = [established(host) for host in ten]
        for secrets in ((old, new), (new, old), (new,)):
            for host in ten:
                keep_secrets(host, *secrets)
                assert reload(host).endswith("changed: password")
        assert [established(host) for host in ten] == before
        assert all(process.poll() is None for stream in streams for process in stream._processes), "under way"
        late.agent.start(ten[0].address, password=old)
        assert wait_until("the old secret is refused", lambda: failed(late), 10).reason == "wrong password"
        keep_secrets(late, new)
        reload(late)
        late.agent.wait_established(1)
        ten[4].agent.kill()
        ten[4].agent.restart()
        ten[4].agent.wait_established(1)
        for stream in streams:
            stream.finish()
        accused = [line for host in ten for line in host.agent.log.read_text().splitlines() if "password" in line]
        accused = [line for line in accused if AGAIN not in line and f"{late.address}:" not in line]
        assert accused == []
