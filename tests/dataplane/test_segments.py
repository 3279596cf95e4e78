"""Cutting and joining: together the identity on super-frames, and each segment right by an independent reading."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.dataplane.frames import TCP, UDP, V4, V6, network, pseudo, slow_sum, transport, vnet
from tests.dataplane.pair import EXPIRES, NOW, Side, joined
from tunrouter.core import bounds, wire

Ends = tuple[bytes, bytes]
GSO = {(4, TCP): 1, (16, TCP): 4, (4, UDP): 5, (16, UDP): 5}
ACK, PSH, FIN, CWR, ECE = 0x10, 0x08, 0x01, 0x80, 0x40


def check_segment(packet: bytes, ends: Ends, protocol: int) -> None:
    """Lengths and checksums of one segment, read slowly."""
    start = 20 if len(ends[0]) == 4 else 40
    if start == 20:
        assert struct.unpack_from(">H", packet, 2) == (len(packet),)
        assert slow_sum(packet[:20]) == 0xFFFF
        assert (packet[12:16], packet[16:20]) == ends
    else:
        assert struct.unpack_from(">H", packet, 4) == (len(packet) - 40,)
        assert (packet[8:24], packet[24:40]) == ends
    segment = packet[start:]
    field = 16 if protocol == TCP else 6
    partial = slow_sum(pseudo(*ends, protocol, len(segment)))
    assert struct.unpack_from(">H", segment, field) == (partial,)
    if protocol == UDP:
        assert struct.unpack_from(">H", segment, 4) == (len(segment),)


@example(ends=V4, protocol=TCP, payload=bytes(500), size=48, sequence=1, identification=1, flags=0x99, options=b"")
@example(ends=V6, protocol=TCP, payload=bytes(500), size=48, sequence=1, identification=1, flags=0x99, options=b"")
@settings(max_examples=150, deadline=None)
@given(
    ends=st.sampled_from([V4, V6]),
    protocol=st.sampled_from([TCP, UDP]),
    payload=st.binary(min_size=1, max_size=4000).map(lambda seed: (seed * 20)[:20_000]),
    size=st.sampled_from([48, 536, 1200, 1324]),
    sequence=st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFC000, 0xFFFFFFFF)),
    identification=st.one_of(st.integers(0, 0xFFFF), st.integers(0xFFF0, 0xFFFF)),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN, ACK | CWR, ACK | ECE]),
    options=st.sampled_from([b"", bytes(12)]),
)
def test_each_segment_is_right(
    kernel: str, ends: Ends, protocol: int, payload: bytes, size: int, sequence: int, identification: int, flags: int,
    options: bytes,
) -> None:  # fmt: skip
    one, two = joined(kernel)
    inner = transport(ends, protocol, payload, sequence=sequence, flags=flags, options=options)
    whole = network(ends, protocol, inner, identification=identification)
    segments = two.opened(one.send(vnet(whole, gso=GSO[len(ends[0]), protocol], size=size)))
    start = 20 if len(ends[0]) == 4 else 40
    head = start + (20 + len(options) if protocol == TCP else 8)
    assert {kind for kind, _ in segments} == {wire.PACKET_PARTIAL}
    assert b"".join(packet[head:] for _, packet in segments) == payload
    assert all(len(packet) == head + size for _, packet in segments[:-1])
    for i, (_, packet) in enumerate(segments):
        check_segment(packet, ends, protocol)
        if start == 20:
            assert struct.unpack_from(">H", packet, 4)[0] == (identification + i) % 0x10000
        if protocol == TCP:
            assert struct.unpack_from(">I", packet, start + 4)[0] == (sequence + i * size) % (1 << 32)
            allowed = flags & ~(CWR if i else 0) & ~(0 if i == len(segments) - 1 else FIN | PSH)
            assert packet[start + 13] == allowed
            assert packet[start + 20 : head] == options


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_nobody_makes_more_segments_of_a_frame_than_a_host_does(kernel: str, protocol: int) -> None:
    """Any pod with a raw socket says how large they are: of one byte each they would be 60,000 datagrams."""
    one, _ = joined(kernel)
    whole = network(V4, protocol, transport(V4, protocol, bytes(60_000)))
    gso = GSO[4, protocol]
    least = -(-60_000 // bounds.MAX_SEGMENTS)
    assert least <= 48, "TCP's segments may be so small"
    assert len(one.send(vnet(whole, gso=gso, size=least))) == -(-60_000 // least)
    assert one.send(*[vnet(whole, gso=gso, size=size) for size in range(1, least)]) == []
    assert one.count("drop_malformed") == least - 1


def test_a_wakeup_ends_after_so_many_datagrams(kernel: str) -> None:
    """Control and what arrives wait for it, and a pod decides how small its segments are."""
    one, _ = joined(kernel)
    frame = vnet(network(V4, TCP, transport(V4, TCP, bytes(60_000))), gso=1, size=48)
    one.tun.readable.extend([frame] * 10)
    assert one.kernel.drain_tun(NOW)
    assert bounds.WAKEUP_DATAGRAMS <= len(one.udp.sent) < bounds.WAKEUP_DATAGRAMS + bounds.MAX_SEGMENTS
    assert len(one.send()) + bounds.WAKEUP_DATAGRAMS < 10 * 1250
    assert not one.tun.readable
    assert one.count("drop_malformed") == 0


@settings(max_examples=150, deadline=None)
@given(
    ends=st.sampled_from([V4, V6]),
    protocol=st.sampled_from([TCP, UDP]),
    payload=st.binary(min_size=1, max_size=3000).map(lambda seed: (seed * 20)[:20_000]),
    size=st.sampled_from([536, 1200, 1324]),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | ECE]),
    options=st.sampled_from([b"", bytes(12)]),
    tos=st.integers(0, 255),
)
def test_cut_and_join_is_the_identity(
    kernel: str, ends: Ends, protocol: int, payload: bytes, size: int, flags: int, options: bytes, tos: int
) -> None:
    one, two = joined(kernel)
    whole = network(ends, protocol, transport(ends, protocol, payload, flags=flags, options=options), tos=tos)
    frame = vnet(whole, gso=GSO[len(ends[0]), protocol], size=size)
    single = vnet(whole)
    assert two.receive(*one.send(frame)) == [frame if len(payload) > size else single]


@pytest.mark.parametrize(("field", "value"), [("sequence", 0xFFFFFFFF - 3000), ("identification", 0xFFFD)])
def test_a_field_that_wraps_ends_a_run(kernel: str, field: str, value: int) -> None:
    one, two = joined(kernel)
    payload = bytes(range(256)) * 40
    sequence = value if field == "sequence" else 5
    identification = value if field == "identification" else 5
    whole = network(V4, TCP, transport(V4, TCP, payload, sequence=sequence), identification=identification)
    written = two.receive(*one.send(vnet(whole, gso=1, size=1000)))
    assert [len(frame) - 50 for frame in written] == ([4000, 6240] if field == "sequence" else [3000, 7240])
    assert b"".join(frame[50:] for frame in written) == payload
    for frame in written:
        check_segment(frame[10:], V4, TCP)
    assert struct.unpack_from(">I", written[1], 34)[0] == (sequence + len(written[0]) - 50) % (1 << 32)


def tcp(payload: bytes, **fields: int) -> bytes:
    return vnet(network(V4, TCP, transport(V4, TCP, payload, **fields)))  # type: ignore[arg-type]


def parts(written: list[bytes]) -> list[bytes]:
    return [frame[50:] for frame in written]


def numbered(start: int, count: int, step: int = 100, **fields: int) -> list[bytes]:
    """Consecutive segments with consecutive identifications."""
    found = []
    for i in range(count):
        inner = transport(V4, TCP, bytes((i,)) * step, sequence=start + i * step, **fields)  # type: ignore[arg-type]
        found.append(vnet(network(V4, TCP, inner, identification=50 + i)))
    return found


def test_a_gap_a_repeat_or_another_header_ends_a_run(kernel: str) -> None:
    one, two = joined(kernel)
    a, b, c, d = numbered(1, 4)
    assert len(two.receive(*one.send(a, b, c, d))) == 1
    assert len(two.receive(*one.send(a, c, d))) == 2
    assert len(two.receive(*one.send(a, a, b))) == 2
    assert len(two.receive(*one.send(a, b, *numbered(201, 1, acknowledge=10)))) == 2
    assert len(two.receive(*one.send(a, b, *numbered(201, 1, window=9)))) == 2
    assert len(two.receive(*one.send(a, b, *numbered(201, 1, flags=0x30)))) == 2


def test_pure_acknowledgements_and_syn_go_alone_and_in_order(kernel: str) -> None:
    one, two = joined(kernel)
    a, b = numbered(1, 2)
    written = two.receive(*one.send(a, tcp(b"", sequence=101), b))
    assert parts(written) == [bytes(100), b"", b"\1" * 100]
    assert len(two.receive(*one.send(tcp(b"x", flags=2), tcp(b"y", flags=2, sequence=2)))) == 2


def test_a_shorter_segment_ends_a_run_and_a_longer_one_begins_another(kernel: str) -> None:
    one, two = joined(kernel)

    def piece(i: int, at: int, size: int) -> bytes:
        inner = transport(V4, TCP, bytes((i,)) * size, sequence=at)
        return vnet(network(V4, TCP, inner, identification=i))

    frames = [piece(1, 1, 100), piece(2, 101, 50), piece(3, 151, 100), piece(4, 251, 150)]
    assert [len(part) for part in parts(two.receive(*one.send(*frames)))] == [150, 100, 150]


def test_interleaved_flows_are_joined_each_in_order(kernel: str) -> None:
    one, two = joined(kernel)
    flows = [numbered(1, 6, ports=(port, 80)) for port in range(20)]  # type: ignore[arg-type]
    few = [frame for segments in zip(*flows[:4], strict=True) for frame in segments]
    assert len(two.receive(*one.send(*few))) == 4
    many = [frame for segments in zip(*flows, strict=True) for frame in segments]
    written = two.receive(*one.send(*many))
    for port in range(20):
        mine = [frame[50:] for frame in written if struct.unpack_from(">H", frame, 30)[0] == port]
        assert b"".join(mine) == b"".join(bytes((i,)) * 100 for i in range(6))


def test_fixed_identification_is_joined_only_under_dont_fragment(kernel: str) -> None:
    one, two = joined(kernel)

    def datagrams(fragment: int) -> list[bytes]:
        inner = transport(V4, UDP, bytes(64))
        return [vnet(network(V4, UDP, inner, identification=0, fragment=fragment))] * 5

    assert len(two.receive(*one.send(*datagrams(0x4000)))) == 1
    assert len(two.receive(*one.send(*datagrams(0)))) == 5


def test_udp_is_not_joined_where_the_tun_cannot_cut_it(kernel: str) -> None:
    one, _ = joined(kernel)
    two = Side(2, 1, kernel=kernel, features=("csum", "tso4", "tso6"))
    two.open()
    frame = vnet(network(V4, UDP, transport(V4, UDP, bytes(64))))
    assert two.receive(*one.send(frame, frame)) == [frame, frame]


def test_complete_checksums_are_joined_only_if_right(kernel: str) -> None:
    one, two = joined(kernel)
    frames = []
    for i in range(4):
        inner = transport(V4, TCP, bytes((i,)) * 100, sequence=1 + i * 100, partial=False)
        frames.append(vnet(network(V4, TCP, inner, identification=50 + i), partial=False))
    assert len(two.receive(*one.send(*frames))) == 1
    wrong = bytearray(frames[2])
    wrong[-1] ^= 1
    written = two.receive(*one.send(frames[0], frames[1], bytes(wrong), frames[3]))
    assert len(written) == 3
    assert written[1] == bytes(wrong)


def test_a_checksum_at_an_unusual_place_is_completed(kernel: str) -> None:
    one, two = joined(kernel)
    inner = transport(V4, UDP, bytes(8) + transport(V4, TCP, b"inside"))
    whole = network(V4, UDP, inner)
    start = 20 + 8 + 8
    frame = struct.pack("=BBHHHH", 1, 0, 0, 0, start, 16) + whole
    ((kind, got),) = two.opened(one.send(frame))
    assert kind == wire.PACKET
    seed = struct.unpack_from(">H", whole, start + 16)[0]
    zeroed = whole[start : start + 16] + bytes(2) + whole[start + 18 :]
    assert struct.unpack_from(">H", got, start + 16)[0] == slow_sum(struct.pack(">H", seed) + zeroed) ^ 0xFFFF


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([0, 1, 3, 4, 5, 0x81]), st.integers(0, 2000), st.data())
def test_no_frame_raises(kernel: str, rubbish: bytes, gso: int, size: int, data: st.DataObject) -> None:
    one, _ = joined(kernel)
    whole = bytearray(network(V4, TCP, transport(V4, TCP, bytes(300))) + rubbish)
    for _ in range(3):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    head = struct.pack("=BBHHHH", 1, gso, 0, size, data.draw(st.integers(0, 400)), data.draw(st.integers(0, 400)))
    one.send(head + bytes(whole), rubbish, head + bytes(whole[: len(rubbish)]))
    assert NOW < EXPIRES
