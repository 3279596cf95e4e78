"""What crosses the wire: every body comes back as it went, and anything else is refused with the codec's own error."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import bounds, versions, wire
from tunrouter.errors import ProtocolError

NAMES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=16)
ENDPOINTS = st.tuples(st.ip_addresses().map(str), st.integers(1, 65_535))
INTRODUCTIONS = st.builds(
    wire.Introduction,
    NAMES,
    st.binary(max_size=bounds.MAX_BLOCKS_BYTES),
    st.booleans(),
    st.one_of(st.none(), ENDPOINTS),
)
BODIES = st.one_of(
    st.builds(wire.Confirm, st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64), INTRODUCTIONS),
    st.builds(wire.Ping, st.integers(0, 1 << 60), st.booleans()),
    st.builds(wire.Pong, st.integers(0, 1 << 60)),
    st.builds(wire.Close, NAMES),
    st.builds(wire.Carried, st.binary(max_size=wire.FIRST_BYTES[True])),
    st.builds(
        wire.Records,
        st.lists(st.integers(1, 1 << 32), max_size=8).map(tuple),
        st.integers(0, 1 << 32),
        st.lists(st.binary(max_size=200), max_size=4).map(tuple),
    ),
    st.builds(wire.Sums, st.integers(0, 64), st.binary(min_size=512, max_size=512)),
    st.builds(
        wire.Have, st.integers(0, 1 << 30), st.integers(1 << 30, (1 << 64) - 1), st.binary(max_size=900), st.booleans()
    ),
    st.just(wire.Spare()),
    st.builds(wire.Outlived, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)),
    st.builds(wire.BenchAsk, st.integers(0, 1 << 60)),
    st.builds(wire.BenchAnswer, st.integers(0, 1 << 60), st.integers(1, 9)),
    st.builds(
        wire.BenchAnswer,
        st.integers(0, 1 << 60),
        st.just(0),
        st.ip_addresses(v=4).map(str),
        st.integers(1, 65_535),
        st.integers(1, 65_535),
        st.binary(min_size=wire.BENCH_TOKEN_BYTES, max_size=wire.BENCH_TOKEN_BYTES),
        NAMES,
        st.integers(1, bounds.MAX_WORKERS),
    ),
)


@given(BODIES, st.integers(0, 50))
def test_a_control_body_comes_back_with_any_padding(body: wire.ControlBody, padding: int) -> None:
    encoded = wire.encode_control(body)
    assert len(encoded) <= bounds.MAX_CONTROL_BYTES
    assert wire.decode_control(encoded + bytes(padding)) == body


@given(st.binary(max_size=200))
def test_garbage_raises_only_the_codecs_own_error(data: bytes) -> None:
    for decode in (wire.decode_control, wire.decode_first, wire.decode_answer, wire.decode_introduction):
        try:
            decode(data)
        except ProtocolError:
            continue


@given(BODIES, st.data())
def test_damaged_bodies_never_raise_anything_else(body: wire.ControlBody, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode_control(body))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(ProtocolError):
        wire.decode_control(bytes(encoded))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "x" * 65, "ü" * 33])
def test_names_that_could_spoil_a_log_are_refused(name: str) -> None:
    body = wire.Confirm(bytes(32), bytes(64), wire.Introduction(name, b"", keep=False, seen=None))
    with pytest.raises(ProtocolError):
        wire.decode_control(wire.encode_control(body))


@pytest.mark.parametrize(
    "change",
    [
        {"address": "10.32.1"},
        {"address": "::1"},
        {"tcp": 0},
        {"udp": 65_536},
        {"token": bytes(15)},
        {"workers": 0},
        {"workers": bounds.MAX_WORKERS + 1},
        {"kernel": "\x1b[31m"},
        {"kernel": "x" * 65},
    ],
)
def test_a_responder_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    good = wire.BenchAnswer(7, 0, "10.32.1.1", 1024, 1025, bytes(16), "c", 1)
    assert wire.decode_control(wire.encode_control(good)) == good
    with pytest.raises(ProtocolError):
        wire.decode_control(wire.encode_control(msgspec.structs.replace(good, **change)))


def test_no_answer_is_longer_than_the_first_message_that_causes_it() -> None:
    seen = ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65_535)
    introduction = wire.Introduction("x" * bounds.MAX_NAME_BYTES, bytes(bounds.MAX_BLOCKS_BYTES), keep=True, seen=seen)
    answer = wire.Answer(bytes(16), 1, 1 << 63, 1 << 63, 1 << 63, 1 << 31, 64, bytes(32), bytes(64), introduction)
    assert wire.HEADER_BYTES + 32 + len(wire.encode_answer(answer)) + wire.TAG_BYTES <= wire.FIRST_BYTES[False]
    assert len(wire.encode_first(wire.First(bytes(16), 1, 1, 1, 1, 1, 64))) == bounds.FIRST_PAYLOAD_BYTES


def test_the_mtu_sums() -> None:
    assert wire.pod_mtu(1500) == 1376
    assert wire.pod_mtu(9000) == 8876
    assert wire.inner_mtu(1500, 4) == 1439
    assert wire.inner_mtu(1500, 6) == 1419
    assert wire.inner_mtu(1500, 4) >= wire.pod_mtu(1500)


def test_a_body_of_a_later_version_is_passed_over_and_appended_elements_are_not_looked_at() -> None:
    def packed(*elements: object) -> bytes:
        body = msgspec.msgpack.encode(elements)
        return len(body).to_bytes(2, "big") + body

    assert wire.decode_control(packed(99, "whatever", {"it": 1})) is None
    assert wire.decode_control(packed(4, "bye", "appended", [1])) == wire.Close("bye")
    for broken in (packed(4, 7), packed(), packed("4", "bye")):
        with pytest.raises(ProtocolError):
            wire.decode_control(broken)


@pytest.mark.parametrize(
    ("ours", "theirs", "spoken"), [(1, 1, 1), (1, 2, 1), (1, 3, None), (3, 1, None), (3, 2, 2), (3, 4, 3)]
)
def test_builds_that_are_one_version_apart_speak_the_older(
    monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int, spoken: int | None
) -> None:
    for newest, other in ((ours, theirs), (theirs, ours)):
        monkeypatch.setattr(versions, "NEWEST", newest)
        monkeypatch.setattr(versions, "OLDEST", max(1, newest - 1))
        assert versions.common(other) == spoken
