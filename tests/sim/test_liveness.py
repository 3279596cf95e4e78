"""Who is declared gone, when, and by whom: death in time, and no accusation by a node that was itself held up."""

from __future__ import annotations

import pytest

from tests.sim.internet import Host, Internet
from tests.sim.test_two_nodes import pair, reaches
from tunrouter.core import bounds, seam


def accusations(host: Host) -> list[str]:
    return [line for line in host.log if "suspect" in line or "opening" in line]


def stopped_while_it_waits_for_an_answer(internet: Internet, seconds: float) -> tuple[Host, Host]:
    """a was stopped with a heartbeat out; the answer has arrived since, but a has not read it."""
    internet.delay = 0.05
    a, b = pair(internet)
    session = a.session(b)
    assert session is not None
    internet.until(lambda: session.live.unanswered, 3)
    a.pause()
    internet.run(seconds)
    assert session.live.unanswered
    assert accusations(a) == []
    return a, b


def test_who_was_stopped_takes_nothing_for_lost() -> None:
    internet = Internet()
    a, b = pair(internet)
    internet.run(20)
    stopped_session = a.session(b)
    assert stopped_session is not None
    for _ in range(3):
        internet.until(lambda: stopped_session.live.unanswered, 3)
        a.pause()
        internet.run(10)
        a.resume()
        internet.run(10)
    assert stopped_session.live.loss.share == 0.0


def test_a_peer_that_said_it_goes_has_lost_nothing() -> None:
    internet = Internet()
    internet.delay = 0.1
    a, b = pair(internet)
    session = a.session(b)
    assert session is not None
    for _ in range(5):
        internet.run(10)
        internet.until(lambda: session.live.unanswered, 3)
        b.carry_out(b.node.stop(internet.now))
        b.kill()
        internet.run(bounds.DEAD_SECONDS + 1)
        b.boot()
        internet.until(lambda: a.established(b), 10)
    internet.run(10)
    assert session.live.loss.share == 0.0


@pytest.mark.parametrize("seconds", [2.0, 10.0])
def test_who_was_stopped_accuses_nobody_though_an_answer_is_due(seconds: float) -> None:
    internet = Internet()
    a, b = stopped_while_it_waits_for_an_answer(internet, seconds)
    a.tick()
    assert accusations(a) == []
    assert a.counters["starved"] == 1
    a.resume()
    internet.run(0.2)
    assert accusations(a) == []
    assert reaches(internet, a, b, b"back again", 2) < 2


def test_a_message_before_the_timer_is_no_accusation_either() -> None:
    internet = Internet()
    a, _ = stopped_while_it_waits_for_an_answer(internet, 10)
    a.carry_out(a.node.on_messages([seam.Counters({})], internet.now))
    assert accusations(a) == []


def test_who_was_stopped_still_finds_a_dead_peer_in_time() -> None:
    internet = Internet()
    a, b = stopped_while_it_waits_for_an_answer(internet, 10)
    b.kill()
    a._stopped = []
    a.resume()
    assert internet.until(lambda: not a.established(b), 10) <= bounds.DEAD_SECONDS


def test_a_node_that_is_only_a_little_late_is_not_starved() -> None:
    internet = Internet()
    a, b = pair(internet)
    b.kill()
    for _ in range(100):
        internet.now = max(internet.now, a.node.deadline + 0.3)
        a.tick()
        if not a.established(b):
            break
    assert not a.established(b)
    assert "starved" not in a.counters
