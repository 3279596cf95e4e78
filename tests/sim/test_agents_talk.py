"""What one agent says to another inside a session: it arrives under the peer's proven identity, or not at all."""

from __future__ import annotations

import pytest

from tests.sim.internet import Internet
from tests.sim.test_two_nodes import pair
from tunrouter.core import bounds, seam, wire
from tunrouter.core.outbox import Said

OFFER = wire.BenchAnswer(7, 0, "10.32.2.1", 40_001, 40_002, bytes(range(16)), "c", 1)
REFUSAL = wire.BenchAnswer(7, wire.BENCH_BUSY)


@pytest.fixture
def internet() -> Internet:
    return Internet()


@pytest.mark.parametrize("answer", [OFFER, REFUSAL])
def test_a_question_and_its_answer(internet: Internet, answer: wire.BenchAnswer) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.tell(b.identity.node_id, wire.BenchAsk(7), internet.now))
    internet.run(0.1)
    assert b.said == [Said(a.identity.node_id, wire.BenchAsk(7))]
    b.carry_out(b.node.tell(a.identity.node_id, answer, internet.now))
    internet.run(0.1)
    assert a.said == [Said(b.identity.node_id, answer)]


def test_to_a_peer_whose_session_is_closed_it_opens_one_and_is_said_again(internet: Internet) -> None:
    a, b = pair(internet)
    a.carry_out(a.node.forget("b", internet.now))
    internet.run(bounds.IDLE_CLOSE_SECONDS + 60)
    assert not a.established(b)
    node = b.identity.node_id
    a.carry_out(a.node.tell(node, wire.BenchAsk(7), internet.now))
    internet.until(lambda: a.established(b), 2)
    assert b.said == []
    a.carry_out(a.node.tell(node, wire.BenchAsk(7), internet.now))
    internet.run(0.1)
    assert b.said == [Said(a.identity.node_id, wire.BenchAsk(7))]


def test_to_nobody_it_is_counted(internet: Internet) -> None:
    a = internet.host("a", 1)
    a.carry_out(a.node.tell(99, wire.BenchAsk(7), internet.now))
    assert a.counters["wanted_unknown"] == 1


def test_what_is_malformed_is_counted_and_goes_no_further(internet: Internet) -> None:
    a, b = pair(internet)
    broken = wire.BenchAnswer(7, 0, "10.32.2.1", 0, 40_002, bytes(16), "c", 1)
    a.carry_out(a.node.tell(b.identity.node_id, broken, internet.now))
    internet.run(0.1)
    assert b.said == []
    assert b.counters["control_malformed"] == 1


def test_a_node_whose_identity_is_not_proved_says_nothing(internet: Internet) -> None:
    a, b = internet.host("a", 1), internet.host("b", 2)
    a.connect(b)
    internet.until(lambda: len(b.node.half_open) == 1, 1)
    (base,) = b.node.half_open._by_base
    body = wire.encode_control(wire.BenchAsk(7))
    b.carry_out(b.node.on_messages([seam.Control(base, a.endpoint, body, len(body))], internet.now))
    assert b.said == []
    assert b.counters["control_before_identity"] == 1
