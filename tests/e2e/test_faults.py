"""What happens to real traffic when the underlay loses, shrinks, moves or a node dies."""

from __future__ import annotations

import time

import pytest

from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.bench.traffic import Stream

pytestmark = [pytest.mark.root, pytest.mark.alone]

MIB = 1 << 20
RATE = 8 * MIB
"""Bytes a second of a stream that has to last while something happens to it."""


def stream_through(lab: Lab, size: int, *, rate: int = 0) -> Stream:
    """From the first host's pod to the second's."""
    sender, receiver = (host.pods[0] for host in lab.hosts)
    return Stream(sender.namespace, receiver.namespace, receiver.address, size, rate=rate)


class Once:
    """Calls `act` when a stream has passed `after` bytes, once."""

    def __init__(self, after: int, act: object) -> None:
        self.after = after
        self.act = act
        self.done = False

    def __call__(self, through: int) -> None:
        if not self.done and through >= self.after:
            self.done = True
            assert callable(self.act)
            self.act()


def test_a_stream_survives_one_percent_loss(pair: Lab) -> None:
    pair.fabric.lose(1.0)
    with stream_through(pair, 64 * MIB) as stream:
        stream.finish()
    assert pair.fabric.dropped() > 200


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_gibibyte_survives_one_percent_loss(pair: Lab) -> None:
    pair.fabric.lose(1.0)
    with stream_through(pair, 1 << 30) as stream:
        stream.finish()
    assert pair.fabric.dropped() > 4000


@pytest.mark.soak
@pytest.mark.parametrize("victim", [0, 1], ids=["sender", "receiver"])
def test_a_killed_agent_comes_back_under_an_established_connection(pair: Lab, victim: int) -> None:
    agent = pair.hosts[victim].agent

    def kill_and_restart() -> None:
        agent.kill()
        agent.restart(wait=False)

    with stream_through(pair, 5 * RATE, rate=RATE) as stream:
        fault = Once(RATE, kill_and_restart)
        result = stream.finish(fault)
    assert fault.done
    # TCP's own backoff comes on top of the two seconds in which the tunnel is back.
    assert result.longest_pause < 3.5
    assert agent.running


@pytest.mark.parametrize(("victim", "underlay"), [(0, 4), (1, 6)])
def test_traffic_is_back_two_seconds_after_a_kill(pair: Lab, victim: int) -> None:
    one, two = (host.pods[0] for host in pair.hosts)
    assert one.ping(two.address)
    pair.hosts[victim].agent.kill()
    killed = time.monotonic()
    pair.hosts[victim].agent.restart(wait=False)
    wait_until("a ping after the restart", lambda: one.ping(two.address, seconds=0.2), 5, pause=0.01)
    assert time.monotonic() - killed < 2.0


@pytest.mark.parametrize(("mover", "elsewhere", "underlay"), [(0, "192.0.2.99", 4), (1, "2001:db8::99", 6)])
def test_a_peer_changes_its_address_under_a_stream(pair: Lab, mover: int, elsewhere: str) -> None:
    host = pair.hosts[mover]
    with stream_through(pair, 4 * RATE, rate=RATE) as stream:
        fault = Once(RATE, lambda: host.readdress(elsewhere))
        result = stream.finish(fault)
    assert fault.done
    assert result.longest_pause < 3.0
    connections = pair.hosts[1 - mover].agent.connections()
    seen = [connection.address for connection in connections if connection.state == "established"]
    assert seen == [host.endpoint]
    assert elsewhere in seen[0]


@pytest.mark.parametrize("underlay", [4, pytest.param(6, marks=pytest.mark.soak)])
def test_a_path_that_shrinks_silently_does_not_stall_a_stream(pair: Lab) -> None:
    with stream_through(pair, 6 * RATE, rate=RATE) as stream:
        fault = Once(RATE, lambda: pair.fabric.shrink(1300))
        result = stream.finish(fault)
    assert fault.done
    assert pair.fabric.dropped() > 0
    assert result.longest_pause < 5.0
    one, two = (host.pods[0] for host in pair.hosts)
    assert one.ping(two.address, size=1190 - 28)
    assert not one.ping(two.address, size=1376 - 28, seconds=1)


def test_a_cut_and_healed_underlay_carries_on(pair: Lab) -> None:
    one, two = (host.pods[0] for host in pair.hosts)
    for sender, receiver in (("host1", "host2"), ("host2", "host1")):
        pair.fabric.cut(sender, receiver)
    assert not one.ping(two.address, seconds=1)
    pair.hosts[0].agent.snapshot()
    wait_until(
        "the loss of the peer is seen",
        lambda: all(c.state != "established" for c in pair.hosts[0].agent.connections()),
        10,
        pause=0.1,
    )
    pair.fabric.heal()
    wait_until("a ping after healing", lambda: one.ping(two.address, seconds=0.5), 10)
