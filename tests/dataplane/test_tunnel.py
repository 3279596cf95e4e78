"""Two real workers with real TUN devices and sockets move TCP between two namespaces; and what opening a TUN refuses.

ns h1: tunrouter0 10.32.1.1/32 ── worker ── 192.0.2.1 ══ veth ══ 192.0.2.2 ── worker ── tunrouter0 10.32.2.1/32 :ns h2
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.root

AGENT = textwrap.dedent("""
    import asyncio, sys, time
    import uvloop
    from tests.dataplane.kernels import open_kernel
    from tunrouter.core import seam
    from tunrouter.dataplane.pipe import open_pipe
    from tunrouter.dataplane.tun import open_tun
    from tunrouter.dataplane.udp import open_udp
    from tunrouter.dataplane.worker import Worker

    me = int(sys.argv[1]); peer = 3 - me

    async def main():
        tun, udp = open_tun("tunrouter0"), open_udp(4, 6783)
        control, end = open_pipe()
        kernel = open_kernel(sys.argv[2], tun, [udp], end.send)
        worker = Worker(asyncio.get_running_loop(), kernel, tun, [udp], end)
        lane = seam.Lane(0, bytes([me]) * 32, bytes([me]) * 8, bytes([peer]) * 32, bytes([peer]) * 8)
        where, expires = (f"192.0.2.{peer}", 6783), time.monotonic() + 1000
        control.send(seam.Install(me * 16, peer, peer * 16, (lane,), where, expires, True))
        for node, owner in ((me, seam.SELF), (peer, peer)):
            control.send(seam.Route(bytes((10, 32, node, 0)), 24, owner))
            control.send(seam.Route(bytes((253, 0, 0, node)) + bytes(12), 64, owner))
        control.send(seam.Deliver(me * 16))
        control.send(seam.Use(peer, me * 16))
        asyncio.get_running_loop().add_reader(control.fileno(), control.receive)
        print("ready", *tun.features, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        worker.close()
        print({name: value for name, value in kernel.counters.items() if value}, flush=True)

    uvloop.run(main())
""")

SERVER = textwrap.dedent("""
    import hashlib, socket, sys
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    with socket.create_server((sys.argv[1], 5000), family=family) as s:
        print("ready", flush=True)
        got = hashlib.sha256()
        with s.accept()[0] as c:
            while data := c.recv(1 << 20):
                got.update(data)
            c.sendall(got.digest() + bytes(range(256)) * 40000)
""")
CLIENT = textwrap.dedent("""
    import hashlib, random, socket, sys
    data = random.Random(1).randbytes(1 << 20)
    with socket.create_connection((sys.argv[1], 5000), timeout=30) as c:
        for i in range(40):
            c.sendall(data)
        c.shutdown(socket.SHUT_WR)
        got = b""
        while more := c.recv(1 << 20):
            got += more
    print(got[:32].hex(), hashlib.sha256(got[32:]).hexdigest())
""")


class Hosts:
    """Two namespaces joined by a veth pair."""

    def __init__(self) -> None:
        self.names = [f"trdp{os.getpid()}h{i}" for i in (1, 2)]
        self.running: list[subprocess.Popen[str]] = []

    def run(self, host: int, *command: str) -> str:
        full = ["ip", "netns", "exec", self.names[host - 1], *command]
        done = subprocess.run(full, check=True, capture_output=True, text=True, timeout=60, cwd=ROOT)
        return done.stdout

    def start(self, host: int, *command: str) -> subprocess.Popen[str]:
        full = ["ip", "netns", "exec", self.names[host - 1], sys.executable, "-c", *command]
        pipe = subprocess.PIPE
        process = subprocess.Popen(full, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        return process

    def up(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        wires = ["veth", "peer", "name", "u2", "netns", self.names[1]]
        subprocess.run(["ip", "link", "add", "u1", "netns", self.names[0], "type", *wires], check=True)
        for i in (1, 2):
            self.run(i, "ip", "address", "add", f"192.0.2.{i}/24", "dev", f"u{i}")
            self.run(i, "ip", "link", "set", f"u{i}", "up")

    def tunnel(self, *kernels: str) -> list[subprocess.Popen[str]]:
        agents = [self.start(i, AGENT, str(i), kernel) for i, kernel in zip((1, 2), kernels, strict=True)]
        for i in (1, 2):
            self.run(i, "ip", "link", "set", "tunrouter0", "up", "mtu", "1376")
            for address in (f"10.32.{i}.1/32", f"fd00:{i}::1/128"):
                self.run(i, "ip", "address", "add", address, "dev", "tunrouter0", *(["nodad"] * (":" in address)))
            self.run(i, "ip", "route", "add", "10.32.0.0/12", "dev", "tunrouter0")
            self.run(i, "ip", "route", "add", "fd00::/16", "dev", "tunrouter0")
        return agents

    def down(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.up()
        yield made
    finally:
        made.down()


def end(agent: subprocess.Popen[str]) -> str:
    out, _ = agent.communicate(timeout=20)
    assert agent.returncode == 0
    return out


@pytest.mark.parametrize("address", ["10.32.2.1", "fd00:2::1"])
def test_tcp_crosses_both_ways_unchanged(hosts: Hosts, kernel: str, address: str) -> None:
    agents = hosts.tunnel(kernel, kernel)
    hosts.start(2, SERVER, address)
    answer = hosts.run(1, sys.executable, "-c", CLIENT, address)
    import random

    there = hashlib.sha256(random.Random(1).randbytes(1 << 20) * 40).hexdigest()
    back = hashlib.sha256(bytes(range(256)) * 40000).hexdigest()
    assert answer.split() == [there, back]
    for agent in agents:
        counted = end(agent)
        assert "drop_tag" not in counted
        assert "drop_replay" not in counted
        assert "worker_errors" not in counted


def test_a_persistent_tun_is_opened_again_and_a_used_one_is_refused(hosts: Hosts) -> None:
    code = (
        "from tunrouter.dataplane.tun import open_tun, prepare_tun; prepare_tun('tunrouter0');"
        "queues = open_tun('tunrouter0'), open_tun('tunrouter0'); print('ready', flush=True); input()"
    )
    first = hosts.start(1, code)
    refused = subprocess.run(
        ["ip", "netns", "exec", hosts.names[0], sys.executable, "-c", code],
        check=False, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "HostError: the TUN device tunrouter0 is in use" in refused.stderr
    first.communicate("\n", timeout=10)
    assert "tunrouter0" in hosts.run(1, "ip", "link", "show", "tunrouter0")
    second = hosts.start(1, code)
    second.communicate("\n", timeout=10)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("os.setgid(65534); os.setuid(65534)", "run as root"),
        ("subprocess.check_call(['mount', '-t', 'tmpfs', 'x', '/dev'])", "mknod /dev/net/tun"),
        ("subprocess.check_call(['ip', 'link', 'add', 'tunrouter0', 'type', 'bridge'])", "remove it"),
    ],
)
def test_what_opening_refuses_names_the_next_step(hosts: Hosts, prepare: str, message: str) -> None:
    code = f"import os, subprocess; from tunrouter.dataplane.tun import open_tun; {prepare}; open_tun('tunrouter0')"
    done = subprocess.run(
        ["ip", "netns", "exec", hosts.names[0], sys.executable, "-c", code],
        check=False, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
