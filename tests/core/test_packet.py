"""Inner headers, the internet checksum against a slow one, and ICMP too big."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataplane.frames import TCP, UDP, V4, V6, network, pseudo, slow_sum, transport
from tunrouter.core import packet


@given(st.binary(max_size=200), st.integers(0, 1 << 20))
def test_sum_is_that_of_the_slow_one(data: bytes, initial: int) -> None:
    words = struct.pack(">I", initial) + data
    assert packet.ones_sum(data, initial) == slow_sum(words)


@given(st.binary(max_size=100))
def test_pseudo_sum(payload: bytes) -> None:
    for ends in (V4, V6):
        assert packet.pseudo_sum(*ends, TCP, len(payload)) == slow_sum(pseudo(*ends, TCP, len(payload)))


@given(st.binary(max_size=100))
def test_completing_a_partial_checksum(payload: bytes) -> None:
    for ends in (V4, V6):
        for protocol, field in ((TCP, 16), (UDP, 6)):
            whole = bytearray(network(ends, protocol, transport(ends, protocol, payload)))
            header = packet.read(whole)
            assert header is not None
            at = header.transport
            packet.complete(whole, at, len(whole), at + field)
            assert whole == network(ends, protocol, transport(ends, protocol, payload, partial=False))
            assert packet.is_complete(whole, 0, header)
            whole[-1] ^= 1
            assert not packet.is_complete(whole, 0, header)


def test_a_missing_udp_checksum_is_not_complete() -> None:
    whole = bytearray(network(V4, UDP, transport(V4, UDP, b"payload")))
    whole[26:28] = b"\0\0"
    header = packet.read(whole)
    assert header is not None
    assert not packet.is_complete(whole, 0, header)


@pytest.mark.parametrize("ends", [V4, V6])
def test_reading(ends: tuple[bytes, bytes]) -> None:
    whole = network(ends, UDP, bytes(30))
    header = packet.read(b"..." + whole + b"padding", 3)
    assert header is not None
    assert (header.source, header.destination) == ends
    assert (header.length, header.protocol, header.fragment) == (len(whole), UDP, False)
    for size in range(len(whole)):
        assert packet.read(whole[:size]) is None
    assert packet.read(bytes((0x55,)) + whole[1:]) is None


@given(st.binary(max_size=80))
def test_reading_rubbish_never_raises(data: bytes) -> None:
    header = packet.read(data)
    assert header is None or header.transport <= header.length <= len(data)


def test_ipv4_header_length_out_of_range() -> None:
    whole = network(V4, UDP, bytes(30))
    assert packet.read(bytes((0x44,)) + whole[1:]) is None
    assert packet.read(bytes((0x4F,)) + whole[1:40]) is None


def test_too_big_over_ipv4() -> None:
    refused = network(V4, UDP, bytes(1400))
    message = packet.too_big(refused, 1300)
    assert message is not None
    header = packet.read(message)
    assert header is not None
    assert (header.source, header.destination, header.protocol) == (V4[1], V4[0], packet.ICMP)
    assert slow_sum(message[:20]) == 0xFFFF
    assert slow_sum(message[20:]) == 0xFFFF
    assert message[20:22] == bytes((3, 4))
    assert struct.unpack_from(">H", message, 26) == (1300,)
    assert refused.startswith(message[28:])
    assert len(message) <= 576


def test_too_big_over_ipv6() -> None:
    refused = network(V6, UDP, bytes(1400))
    message = packet.too_big(refused, 1300)
    assert message is not None
    header = packet.read(message)
    assert header is not None
    assert (header.source, header.destination, header.protocol) == (V6[1], V6[0], packet.ICMP6)
    body = message[40:]
    assert slow_sum(pseudo(V6[1], V6[0], packet.ICMP6, len(body)) + body) == 0xFFFF
    assert body[:2] == bytes((2, 0))
    assert struct.unpack_from(">I", body, 4) == (1300,)
    assert refused.startswith(body[8:])
    assert len(message) == packet.IPV6_MIN_MTU


@pytest.mark.parametrize(
    "refused",
    [
        network(V4, packet.ICMP, b"\x03\x04" + bytes(40)),
        network(V4, packet.ICMP, b"\x0b\x00" + bytes(40)),
        network(V4, packet.ICMP, b""),
        network(V4, UDP, bytes(40), fragment=5),
        network((bytes(4), V4[1]), UDP, bytes(40)),
        network((V4[0], bytes((224, 0, 0, 5))), UDP, bytes(40)),
        network(V6, packet.ICMP6, b"\x02\x00" + bytes(40)),
        network((bytes(16), V6[1]), UDP, bytes(40)),
        b"rubbish",
    ],
)
def test_no_message_about_what_must_not_be_answered(refused: bytes) -> None:
    assert packet.too_big(refused, 1300) is None


def test_an_echo_request_is_answered() -> None:
    assert packet.too_big(network(V4, packet.ICMP, b"\x08\x00" + bytes(40)), 60) is not None
    assert packet.too_big(network(V6, packet.ICMP6, b"\x80\x00" + bytes(40)), 60) is not None
