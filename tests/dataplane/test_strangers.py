"""Handshake datagrams on their way to control: their shapes, and whose floods leave room for whom."""

from __future__ import annotations

import pytest

from tests.dataplane.pair import NOW, Side, endpoint, joined
from tunrouter.core import bounds, seam, wire


def shaped(kind: int, flags: int, reserved: int = 0, size: int = wire.HEADER_BYTES) -> bytes:
    """A datagram with a handshake's header."""
    return wire.HEADER.pack(kind, flags, reserved, 7, 7).ljust(size, b"x")[:size]


FIRST = shaped(wire.FIRST, wire.SEALED_MODE, 0, wire.FIRST_BYTES[True])
ANSWER = shaped(wire.ANSWER, wire.SEALED_MODE, 0, 300)
REJECT = shaped(wire.REJECT, wire.OTHER_VERSION)


def test_handshakes_reach_control_bounded(kernel: str) -> None:
    _, two = joined(kernel)
    two.receive(FIRST, ANSWER, REJECT)
    assert len(two.told(seam.Raw)) == 3
    two.receive(*[FIRST] * 100)
    assert two.count("handshake_source_rate") > 70
    two.receive(*[ANSWER] * 3000)
    assert two.count("answer_over_budget") == 3002 - bounds.ANSWERS_BURST


@pytest.mark.parametrize("flags", [0, 1])
def test_rubbish_that_resembles_a_handshake_spends_no_tokens(kernel: str, flags: int) -> None:
    _, two = joined(kernel)
    size = wire.FIRST_BYTES[bool(flags)]
    shapes = [
        (wire.FIRST, flags, 0, size - 1),
        (wire.FIRST, flags, 0, size + 1),
        (wire.FIRST, 1 - flags, 0, size),
        (wire.FIRST, flags | 2, 0, size),
        (wire.FIRST, flags, 1, size),
        (wire.ANSWER, flags, 0, 64),
        (wire.ANSWER, flags, 0, bounds.MAX_HANDSHAKE_BYTES + 1),
        (wire.ANSWER, flags | 128, 0, 300),
        (wire.ANSWER, flags, 256, 300),
        (wire.REJECT, 1, 0, 15),
        (wire.REJECT, 1, 0, 17),
        (wire.REJECT, 0, 0, 16),
        (wire.REJECT, 5, 0, 16),
        (wire.REJECT, 1, 1, 16),
        (0, 0, 0, 16),
        (5, flags, 0, size),
    ]
    rubbish = [shaped(*shape) for shape in shapes]
    two.receive(*rubbish * 200)
    assert two.events == []
    assert two.count("drop_malformed") == len(shapes) * 200
    good = [shaped(wire.FIRST, flags, 0, size), shaped(wire.ANSWER, flags, 0, 65)]
    good += [shaped(wire.REJECT, why) for why in (1, 2, 3, 4)]
    two.receive(*good)
    assert [event.datagram for event in two.told(seam.Raw) if isinstance(event, seam.Raw)] == good


def test_answers_of_peers_pass_while_strangers_forge_theirs(kernel: str) -> None:
    _, two = joined(kernel)
    two.apply(seam.Known(("203.0.113.5", "203.0.113.6")))
    for i in range(200):
        two.udp.readable.append((FIRST, (f"198.51.100.{i}", 1)))
    for _ in range(5000):
        two.udp.readable.append((ANSWER, ("198.51.100.1", 1)))
        two.udp.readable.append((ANSWER, ("203.0.113.5", 1)))
    two.udp.readable.append((ANSWER, ("203.0.113.6", 1)))
    two.receive()
    heard = [event.source[0] for event in two.told(seam.Raw) if isinstance(event, seam.Raw)]
    assert heard.count("198.51.100.1") <= bounds.ANSWERS_BURST + 1
    assert heard.count("203.0.113.5") == bounds.FIRST_PER_SOURCE_BURST * bounds.FIRST_KNOWN_FACTOR
    assert heard[-1] == "203.0.113.6"


def test_strangers_fill_a_wake_up_and_peers_still_pass(kernel: str) -> None:
    two = Side(2, 1, kernel=kernel, batch=450)
    two.apply(seam.Known(("203.0.113.5",)))
    firsts = [(FIRST, (f"198.51.100.{i}", 1)) for i in range(20) for _ in range(10)]
    strangers = firsts + [(ANSWER, ("198.51.100.99", 1))] * 199
    peer = (ANSWER, ("203.0.113.5", 1))
    two.udp.readable.extend([*[peer] * 50, *strangers, peer])
    two.kernel.drain_udp(two.udp, NOW)
    heard = [event.source[0] for event in two.told(seam.Raw) if isinstance(event, seam.Raw)]
    assert len(heard) == bounds.RAW_BACKLOG + 51
    assert heard[-1] == "203.0.113.5"
    assert two.count("handshake_queue_full") > 0


def test_known_peers_are_not_limited_by_strangers(kernel: str) -> None:
    _, two = joined(kernel)
    two.apply(seam.Known(("203.0.113.5",)))
    for i in range(3000):
        two.udp.readable.append((FIRST, (f"198.51.{i // 200}.{i % 200}", 1)))
    two.receive(source=endpoint(1))
    assert two.count("handshake_over_budget") > 0
    two.events.clear()
    two.receive(FIRST, source=("203.0.113.5", 1))
    assert len(two.told(seam.Raw)) == 1


@pytest.mark.parametrize("form", ["same", "clear", "answer"])
def test_a_stranger_is_heard_again_when_the_flood_is_over_and_others_all_the_time(kernel: str, form: str) -> None:
    _, two = joined(kernel)
    clear = shaped(wire.FIRST, 0, 0, wire.FIRST_BYTES[False])
    other = {"same": FIRST, "clear": clear, "answer": ANSWER}[form]
    for i in range(3000):
        two.udp.readable.append((FIRST, (f"198.51.{i // 200}.{i % 200}", 1)))
    two.receive()
    two.events.clear()
    over_budget = two.count("handshake_over_budget")
    two.receive(other, source=("203.0.113.7", 1))
    assert len(two.told(seam.Raw)) == (form == "answer")
    assert two.count("handshake_over_budget") == over_budget + (form != "answer")
    two.receive(other, source=("203.0.113.7", 1), now=NOW + 2 / bounds.FIRST_PER_SECOND)
    assert len(two.told(seam.Raw)) == 1 + (form == "answer")


def test_an_address_that_is_known_no_more_is_a_stranger_s(kernel: str) -> None:
    _, two = joined(kernel)
    two.apply(seam.Known(("203.0.113.5", "2001:db8::5")))
    for i in range(3000):
        two.udp.readable.append((FIRST, (f"198.51.{i // 200}.{i % 200}", 1)))
    two.receive()
    two.events.clear()
    two.receive(FIRST, source=("2001:db8::5", 1))
    assert len(two.told(seam.Raw)) == 1
    two.apply(seam.Known(("203.0.113.5",)))
    two.receive(FIRST, source=("2001:db8::5", 1))
    assert len(two.told(seam.Raw)) == 1
