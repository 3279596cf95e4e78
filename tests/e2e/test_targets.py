"""Peers that were named while the agent ran are its targets in its next life, too, until they are forgotten."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until

pytestmark = pytest.mark.root


def on_disk(host: Host) -> list[str]:
    with closing(sqlite3.connect(host.agent.directory / "state" / "state.db")) as database:
        return [name for (name,) in database.execute("select name from target order by place")]


def live_again(host: Host, remembered: list[str]) -> None:
    """kill -9 once the disk has what is to be remembered, and the same command line, which names nobody."""
    wait_until("it is on disk", lambda: on_disk(host) == remembered, 5)
    host.agent.kill()
    host.agent.restart()


def test_a_target_named_by_connect_outlives_the_agent(secret: str) -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, other = lab.hosts
        one.agent.start(password=secret)
        # Nobody answers there yet: no endpoint of a session is remembered that would be tried, too.
        one.agent.command("connect", "192.0.2.77", other.address)
        one.agent.command("forget", "192.0.2.77")
        live_again(one, [other.address])
        assert one.agent.command("status", "targets").stdout.split() == [other.address]
        other.agent.start(password=secret)
        one.agent.wait_established(1)

        one.agent.command("connect", "--replace", "192.0.2.78")
        live_again(one, ["192.0.2.78"])
        assert one.agent.snapshot().targets == ("192.0.2.78",)
