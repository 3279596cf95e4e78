"""The log of a real agent as machines read it: the same fields in every line, few lines however many strangers come."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_mesh import snapshot
from tunrouter.bench.agent import PORT
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core import bounds, wire
from tunrouter.daemon.logs import DETAILS, LINES

pytestmark = pytest.mark.root

ALWAYS = {"time": float, "level": str, "subject": str, "event": str, "message": str}
STRANGERS = [f"192.0.2.{last}" for last in range(100, 160)]
FLOOD = f"""
import socket, sys, time
address, seconds, *sources = sys.argv[1:]
datagram = bytes.fromhex({(wire.HEADER.pack(wire.FIRST, 0, 0, 7, 7)).hex()!r}).ljust({wire.FIRST_BYTES[False]}, b"x")
sockets = []
for source in sources:
    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sockets[-1].bind((source, 0))
until = time.monotonic() + float(seconds)
while time.monotonic() < until:
    for one in sockets:
        one.sendto(datagram, (address, {PORT}))
    time.sleep(0.1)
"""


def lines(host: Host) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.agent.log.read_text().splitlines()]


def events(host: Host, name: str) -> list[dict[str, Any]]:
    return [line for line in lines(host) if line["event"] == name]


def serves_metrics(host: Host, port: int) -> bool:
    program = f"import socket; raise SystemExit(socket.socket().connect_ex(('127.0.0.1', {port})) != 0)"
    return host.namespace.run(sys.executable, "-c", program, check=False).returncode == 0


@pytest.mark.soak
def test_every_line_has_the_fixed_fields_and_a_flood_of_strangers_is_a_few_of_them(secret: str, tmp_path: Path) -> None:
    configuration = tmp_path / "config.toml"
    configuration.write_text('log_format = "json"\n')
    with Lab(hosts=2) as lab:
        one, two = lab.hosts
        one.agent.start("--config", str(configuration), password=secret)
        two.agent.start(one.address, "192.0.2.77", "no-such-host.invalid", "--log-format", "json", password=secret)
        two.agent.wait_established(1)
        near, far = (host.add_pod("a") for host in lab.hosts)
        assert near.ping(far.address)

        two.namespace.ip(*(f"address add {address}/24 dev eth0" for address in STRANGERS))
        # More rejects than are sent in a second are not said either: it takes longer than that until all were heard.
        seconds = 1 + len(STRANGERS) / bounds.REJECTS_PER_SECOND
        two.namespace.run(sys.executable, "-c", FLOOD, one.address, str(seconds), *STRANGERS)
        found = snapshot(one)
        assert found is not None
        assert found.counters["handshake_mismatch"] > 10 * LINES
        *refused, more = events(one, "refused")
        assert len(refused) < LINES, "of sixty, each of which would have had a line"
        assert "more sources are refused" in more["message"]
        assert {line["reason"] for line in refused} == {"peer has no password"}
        assert {line["address"].partition(":")[0] for line in refused} <= set(STRANGERS)

        configuration.write_text('log_format = "json"\nlog_level = "debug"\nmetrics_addr = "127.0.0.1:7000"\n')
        one.agent.process.send_signal(signal.SIGHUP)
        wait_until(
            "it is read again",
            lambda: any("changed: metrics_addr, log_level" in line["message"] for line in lines(one)),
            10,
        )
        assert [serves_metrics(one, port) for port in (6782, 7000)] == [False, True]
        one.agent.command("expose")
        wait_until("debug lines come", lambda: any(line["level"] == "debug" for line in lines(one)), 10)

        two.agent.stop()
        wait_until("the end is said", lambda: any("reason" in line for line in events(one, "session")), 5)
        for host in lab.hosts:
            for line in lines(host):
                assert {name: type(value) for name, value in line.items() if name in ALWAYS} == ALWAYS
                assert line.keys() - ALWAYS.keys() <= set(DETAILS)
        (up,) = (line for line in events(one, "session") if line["message"].endswith("established"))
        assert up["peer"] == found.connections[0].peer
        assert up["address"] == two.endpoint
