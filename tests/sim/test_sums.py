"""What a node counts of its life with others, as metrics show it: sessions, keys, gossip and payload."""

from __future__ import annotations

import pytest

from tests.sim.internet import Host, Internet
from tests.sim.test_two_nodes import pair
from tunrouter.core import bounds, report


@pytest.fixture
def internet() -> Internet:
    return Internet()


def of_sessions(host: Host) -> tuple[int, int, int]:
    """Opened, ended, and renewed keys."""
    counters = host.node.counters
    return tuple(counters.get(name, 0) for name in ("sessions_opened", "sessions_ended", "rekeys"))  # type: ignore[return-value]


def exchange(internet: Internet, one: Host, other: Host, packets: int) -> None:
    """So many packets each way, and the reports of them."""
    for _ in range(packets):
        one.send(str(other.block.network_address + 2), b"x" * 100)
        other.send(str(one.block.network_address + 2), b"x" * 100)
        internet.run(0.05)
    internet.run(1.5)
    for host in (one, other):
        host.plane.report()
        host.settle()


def test_sessions_are_counted_when_they_open_and_when_they_end(internet: Internet) -> None:
    a, b = pair(internet)
    assert of_sessions(a) == of_sessions(b) == (1, 0, 0)
    b.kill()
    internet.run(10)
    assert of_sessions(a) == (1, 1, 0)
    b.boot(a)
    internet.until(lambda: a.established(b), 10)
    assert of_sessions(a) == (2, 1, 0)


def test_new_keys_of_a_session_are_no_new_session(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(3 * bounds.REKEY_SECONDS)
    assert of_sessions(a) == of_sessions(b)
    opened, ended, rekeys = of_sessions(a)
    assert (opened, ended) == (1, 0)
    assert rekeys in (2, 3)


def test_gossip_that_is_sent_is_what_comes(internet: Internet) -> None:
    a, b = pair(internet)
    internet.run(100)
    sent, received = a.node.tally.gossip, b.node.tally.gossip
    assert sent[0] > 3
    assert sent[:2] == received[2:]
    assert received[:2] == sent[2:]
    told = report.gossip(a.node)
    assert (told.sent_messages, told.sent_bytes, told.received_messages, told.received_bytes) == sent


def test_payload_of_a_neighbour_is_told_apart_and_that_of_others_is_not(internet: Internet) -> None:
    a, b, c = (internet.host(name, number) for number, name in enumerate("abc", 1))
    a.connect(b)
    b.connect(c)
    internet.until(lambda: a.established(b) and b.established(c), 10)
    internet.run(5)
    exchange(internet, a, b, 10)
    assert a.node.tally.others == (0, 0, 0, 0)
    exchange(internet, a, c, 5)
    assert {row.nickname: row.apart for row in a.connections()} == {"b": True, "c": False}
    sent = {row.nickname: (row.sent_packets, row.sent_bytes) for row in a.connections()}
    assert (sent["b"], sent["c"]) == ((10, 1200), (5, 600))
    assert a.node.tally.payload == (15, 1800, 15, 1800)
    assert a.node.tally.others == (5, 600, 5, 600)


def test_sums_outlive_sessions(internet: Internet) -> None:
    a, b = pair(internet)
    exchange(internet, a, b, 10)
    b.kill()
    internet.run(10)
    before = a.node.tally.payload
    assert before[0] == 10
    a.node.peers.forget(a.node.sessions[b.identity.node_id])
    assert a.node.tally.payload == before
    b.boot(a)
    internet.until(lambda: a.established(b), 10)
    exchange(internet, a, b, 10)
    assert a.node.tally.payload[0] == 20


def test_who_is_no_neighbour_any_more_has_no_series(internet: Internet) -> None:
    a, b = pair(internet)
    assert a.node.tally.apart == {b.identity.node_id}
    b.kill()
    internet.run(10)
    assert a.node.tally.apart == set()
