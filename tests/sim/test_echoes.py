"""Heartbeats that somebody waits for: answered on whatever path, and without a say in what is thought of it."""

from __future__ import annotations

import pytest

from tests.sim.internet import Host, Internet
from tests.sim.test_relays import Lab, loss
from tests.sim.test_two_nodes import pair
from tunrouter.core import bounds, wire


@pytest.fixture
def internet() -> Internet:
    return Internet()


def ping(a: Host, b: Host, ticket: int) -> None:
    a.carry_out(a.node.ping(b.identity.node_id, ticket, a.internet.now))


def test_an_answer_has_the_time_there_and_back(internet: Internet) -> None:
    a, b = pair(internet)
    ping(a, b, 7)
    internet.run(0.1)
    (echo,) = a.echoes
    assert (echo.ticket, echo.relayed) == (7, False)
    assert echo.seconds == pytest.approx(2 * internet.delay)
    assert b.echoes == []


def test_what_is_lost_is_neither_answered_nor_counted_as_loss(internet: Internet) -> None:
    a, b = pair(internet)
    session = a.session(b)
    assert session is not None
    internet.run(20)
    rtt = session.live.rtt
    internet.fate = lambda *_: []
    for ticket in range(50):
        ping(a, b, ticket)
    internet.fate = lambda *_: [(0.0, _[3])]
    internet.run(20)
    assert a.echoes == []
    assert session.live.loss.share == 0.0
    assert session.live.rtt == pytest.approx(rtt)
    assert a.established(b)


def test_only_so_many_are_awaited_and_the_newest_are_answered(internet: Internet) -> None:
    a, b = pair(internet)
    for ticket in range(bounds.MAX_ECHOES + 10):
        ping(a, b, ticket)
    assert len(a.node._echoes._awaited) == bounds.MAX_ECHOES
    internet.run(0.1)
    assert {echo.ticket for echo in a.echoes} <= set(range(10, bounds.MAX_ECHOES + 10))
    assert len(a.echoes) > bounds.ECHOES_BURST, "a peer reads more at once than an agent asks for"


def test_a_closed_session_is_opened_first_and_nothing_is_measured_by_that(internet: Internet) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS + 60)
    assert not a.established(b)
    ping(a, b, 1)
    internet.until(lambda: a.established(b), 2)
    assert a.echoes == []
    ping(a, b, 2)
    internet.run(0.1)
    assert [echo.ticket for echo in a.echoes] == [2]
    a.carry_out(a.node.ping(99, 3, internet.now))
    assert a.counters["wanted_unknown"] == 1


def test_an_answer_to_nothing_is_no_echo(internet: Internet) -> None:
    a, b = pair(internet)
    session = b.session(a)
    assert session is not None
    session.say(wire.Pong(4711))
    b.carry_out(b.node.on_timer(internet.now))
    ping(a, b, 1)
    internet.run(0.1)
    assert [echo.ticket for echo in a.echoes] == [1]


def test_by_relay_it_takes_the_way_that_packets_take(internet: Internet) -> None:
    lab = Lab(internet, 4)
    one, two, three, four = lab.hosts
    for ends in ((one, four), (one, three), (two, four)):
        lab.sever(*ends)
    internet.until(lambda: all(session.relayed for session in [one.session(four)] if session), 20)
    internet.run(20)
    one.echoes.clear()
    ping(one, four, 1)
    internet.run(0.2)
    (echo,) = one.echoes
    assert echo.relayed
    assert echo.seconds == pytest.approx(6 * internet.delay)
    assert one.node.mesh.topology.relays(four.identity.node_id) == (two.identity.node_id, three.identity.node_id)
    assert loss(one, four) in (None, 0.0)
