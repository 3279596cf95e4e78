"""The kernel's laws: what passes, what is dropped and under which name, and what control hears."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest

from tests.dataplane.frames import UDP, V4, V6, back, network, transport, udp, vnet
from tests.dataplane.pair import EXPIRES, NOW, Side, endpoint, joined, widened
from tunrouter.core import bounds, seam, wire


# --- what passes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sealed", [True, False])
def test_a_packet_arrives_as_it_was(kernel: str, sealed: bool) -> None:
    one, two = joined(kernel, sealed=sealed)
    for frame in (udp(), udp(ends=V6), vnet(network(V4, 1, bytes(64)), partial=False)):
        assert two.receive(*one.send(frame)) == [frame]
    assert one.receive(*two.send(back())) == [back()]


def test_plaintext_mode_shows_the_packet_and_checks_the_cookie(kernel: str) -> None:
    one, two = joined(kernel, sealed=False)
    (datagram,) = one.send(udp(b"marker in clear"))
    assert b"marker in clear" in datagram
    for bit in range(128):
        changed = bytearray(datagram)
        changed[16 + bit // 8] ^= 1 << bit % 8
        assert two.receive(bytes(changed)) == []
    assert two.count("drop_tag") == 128
    assert len(two.receive(datagram)) == 1


def test_sealed_mode_shows_nothing(kernel: str) -> None:
    one, _ = joined(kernel)
    (datagram,) = one.send(udp(b"marker in clear"))
    assert b"marker" not in datagram
    assert len(datagram) == wire.OVERHEAD + 28 + 15


def test_counters_of_a_lane_only_grow_and_no_datagram_repeats(kernel: str) -> None:
    one, _ = joined(kernel)
    seen = one.send(*[udp()] * 200, vnet(network(V4, 6, transport(V4, 6, bytes(9000))), gso=1, size=1000), udp())
    assert [struct.unpack_from(">Q", datagram, 8)[0] for datagram in seen] == list(range(len(seen)))
    assert len({datagram[16:] for datagram in seen}) == len(seen)


def test_small_packets_share_a_train(kernel: str) -> None:
    one, _ = joined(kernel)
    assert len(one.send(*[udp()] * 60)) == 60
    assert len(one.udp.trains) == 1
    one.send(*[udp(bytes(64))] * 3, udp(bytes(80)), udp(bytes(64)))
    assert one.udp.trains[1:] == [(3 * 125, 125), (141 + 125, 141)]


# --- what does not ---------------------------------------------------------------------------------------------------
def test_every_flipped_bit_is_dropped(kernel: str) -> None:
    one, two = joined(kernel)
    (datagram,) = one.send(udp())
    for bit in range(len(datagram) * 8):
        changed = bytearray(datagram)
        changed[bit // 8] ^= 1 << bit % 8
        assert two.receive(bytes(changed), source=("198.51.100.9", 1)) == []
    assert two.events == []
    assert len(two.receive(datagram)) == 1


def test_truncated_extended_and_replayed_datagrams_are_dropped(kernel: str) -> None:
    one, two = joined(kernel)
    (datagram,) = one.send(udp())
    for size in range(len(datagram)):
        assert two.receive(datagram[:size]) == []
    assert two.receive(datagram + b"\0") == []
    assert len(two.receive(datagram, datagram)) == 1
    assert two.receive(datagram) == []
    assert two.count("drop_replay") == 2


def test_a_reflected_datagram_is_dropped(kernel: str) -> None:
    one, _ = joined(kernel)
    (datagram,) = one.send(udp())
    assert one.receive(datagram) == []
    assert one.count("drop_unknown_index") == 1


def test_random_datagrams_change_nothing_and_a_valid_one_among_them_passes(kernel: str) -> None:
    one, two = joined(kernel)
    (valid,) = one.send(udp())
    dice = random.Random(7)
    index = valid[:8]
    accepted = []
    for i in range(100_000):
        rubbish = dice.randbytes(dice.randrange(0, 120))
        if i % 3 == 0:
            rubbish = index + rubbish
        elif i % 3 == 1:
            rubbish = bytes((4, 0, 0, 0)) + rubbish
        two.udp.readable.append((rubbish, endpoint(1)))
        if i == 50_000:
            two.udp.readable.append((valid, endpoint(1)))
        if i % 1000 == 999:
            accepted += two.receive(now=NOW + i / 1000)
    assert accepted == [udp()]
    assert {type(event) for event in two.events} <= {seam.Raw}
    assert two.count("drop_tag") > 20_000
    assert two.count("drop_unknown_index") > 20_000


def test_a_packet_whose_source_is_not_its_senders_is_dropped(kernel: str) -> None:
    one, two = joined(kernel)
    for source in ((10, 32, 2, 9), (10, 32, 3, 9), (8, 8, 8, 8)):
        frame = udp(ends=(bytes(source), V4[1]))
        assert two.receive(*one.send(frame)) == []
    assert two.count("drop_inner_source") == 3


def test_a_packet_that_is_not_for_us_is_dropped(kernel: str) -> None:
    one, two = joined(kernel)
    one.apply(seam.Route(bytes((10, 32, 3, 0)), 24, 2))
    assert two.receive(*one.send(udp(ends=(V4[0], bytes((10, 32, 3, 4)))))) == []
    assert two.count("drop_inner_destination") == 1


def test_an_inner_length_beyond_the_body_is_dropped(kernel: str) -> None:
    one, two = joined(kernel)
    frame = bytearray(udp())
    struct.pack_into(">H", frame, 12, len(frame))
    assert two.receive(*one.send(bytes(frame))) == []
    assert two.count("drop_malformed") == 1


def test_a_partial_checksum_without_its_header_is_dropped(kernel: str) -> None:
    one, two = joined(kernel)
    packets = (network(V4, 47, bytes(30)), network(V4, UDP, bytes(30), fragment=9), network(V4, 6, bytes(10)))
    forged = [one.forge(wire.PACKET_PARTIAL, packet, counter) for counter, packet in enumerate(packets)]
    assert two.receive(*forged) == []
    assert two.count("drop_malformed") == 3


def test_unknown_kinds_are_counted_and_keepalives_are_not(kernel: str) -> None:
    one, two = joined(kernel)
    kinds = (wire.KEEPALIVE, 5, 200)
    assert two.receive(*[one.forge(kind, b"", counter) for counter, kind in enumerate(kinds)]) == []
    assert two.events == []
    assert two.count("drop_kind") == 2


def test_expired_keys_neither_seal_nor_open(kernel: str) -> None:
    one, two = joined(kernel)
    (datagram,) = one.send(udp())
    assert two.receive(datagram, now=EXPIRES) == []
    assert two.count("drop_expired") == 1
    assert one.send(udp(), now=EXPIRES) == []
    assert one.told(seam.Wanted) == [seam.Wanted(2)]
    one.apply(seam.SendControl(one.session, b"x"), EXPIRES)
    assert one.udp.sent == []


def test_retired_keys_neither_seal_nor_open(kernel: str) -> None:
    one, two = joined(kernel)
    (datagram,) = one.send(udp())
    two.apply(seam.Retire(two.session))
    one.apply(seam.Retire(one.session))
    assert one.told(seam.Retired) == [seam.Retired(one.session, 1, len(udp()) - 10, 0, 0)], "with what is not reported"
    assert two.told(seam.Retired) == [seam.Retired(two.session, 0, 0, 0, 0)]
    assert two.receive(datagram) == []
    assert one.send(udp()) == []
    assert two.count("drop_unknown_index") == 1


def test_keys_that_were_refused_are_retired_with_nothing(kernel: str) -> None:
    """Control, which installed them, waits for a word."""
    side = Side(1, 2, kernel=kernel)
    side.apply(seam.Retire(77))
    assert side.told(seam.Retired) == [seam.Retired(77, 0, 0, 0, 0)]
    assert side.count("seam_refused") == 1


def test_a_session_is_never_installed_twice(kernel: str) -> None:
    one, _ = joined(kernel)
    first = one.send(udp())
    one.install()
    assert one.count("seam_refused") == 1
    assert one.send(udp())[0][8:16] != first[0][8:16]


def test_no_route_and_rubbish_from_the_tun(kernel: str) -> None:
    one, _ = joined(kernel)
    assert one.send(udp(ends=(V4[0], bytes((9, 9, 9, 9)))), udp(ends=(V4[1], V4[0])), b"", b"x" * 12) == []
    assert one.count("drop_no_route") == 2


# --- sessions come and go --------------------------------------------------------------------------------------------
def test_packets_wait_for_a_session_and_leave_in_order(kernel: str) -> None:
    one, two = joined(kernel)
    lonely = Side(1, 2, kernel=kernel)
    frames = [udp(bytes((i,)) * 9) for i in range(5)]
    assert lonely.send(*frames) == []
    assert lonely.told(seam.Wanted) == [seam.Wanted(2)]
    lonely.send(frames[0], now=NOW + 5)
    assert len(lonely.told(seam.Wanted)) == 2
    lonely.open()
    written = two.receive(*[datagram for datagram, _ in lonely.udp.sent])
    assert b"".join(frame[38:] for frame in written) == b"".join(bytes((i,)) * 9 for i in (0, 1, 2, 3, 4, 0))
    assert one.count("drop_queue_full") == 0


def test_packets_are_held_until_the_sender_is_known_and_control_passes(kernel: str) -> None:
    one, _ = joined(kernel)
    two = Side(2, 1, kernel=kernel)
    two.install()
    assert two.receive(*one.send(udp(), udp(bytes(99)))) == []
    one.apply(seam.SendControl(one.session, b"body"))
    assert two.receive(one.udp.sent[-1][0]) == []
    assert two.told(seam.Control) == [seam.Control(two.session, endpoint(1), b"body", wire.BODY + 4)]
    two.tun.written.clear()
    two.apply(seam.Deliver(two.session))
    assert two.tun.written == [udp(), udp(bytes(99))]
    assert two.receive(*one.send(udp())) == [udp()]


def test_rekeying_seals_on_the_new_session_and_opens_both(kernel: str) -> None:
    one, two = joined(kernel)
    (old,) = one.send(udp(bytes(99)))
    for side in (one, two):
        side.install(side.session + 1, side.peer * 16 + 1, generation=1)
        side.apply(seam.Deliver(side.session + 1))
    one.apply(seam.Use(2, one.session + 1))
    (new,) = one.send(udp())
    assert new[:8] != old[:8]
    assert len(two.receive(new, old)) == 2


def test_the_endpoint_follows_the_newest_authenticated_datagram(kernel: str) -> None:
    one, two = joined(kernel)
    older, newer = one.send(udp(), udp())
    elsewhere = ("198.51.100.7", 999)
    two.receive(newer, source=elsewhere)
    assert two.told(seam.Moved) == [seam.Moved(two.session, elsewhere)]
    two.receive(older)
    two.receive(newer, source=("203.0.113.1", 1))
    assert len(two.told(seam.Moved)) == 1
    two.send(back())
    assert two.udp.sent[-1][1] == elsewhere


# --- control ---------------------------------------------------------------------------------------------------------
def test_control_bodies_are_padded_to_the_size_asked_for(kernel: str) -> None:
    one, two = joined(kernel)
    body = wire.encode_control(wire.Ping(7, keep=False))
    one.apply(seam.SendControl(one.session, body, 1400))
    ((datagram, _),) = one.udp.sent
    assert len(datagram) == 1400
    two.receive(datagram)
    (event,) = two.told(seam.Control)
    assert isinstance(event, seam.Control)
    assert (event.size, wire.decode_control(event.body)) == (1400, wire.Ping(7, keep=False))


def test_raw_datagrams_are_sent_as_they_are(kernel: str) -> None:
    one, _ = joined(kernel)
    one.apply(seam.SendRaw(("192.0.2.99", 5), b"hello"))
    one.apply(seam.SendRaw(("2001:db8::1", 5), b"hello"))
    assert one.udp.sent == [(b"hello", ("192.0.2.99", 5))]
    assert one.count("drop_no_socket") == 1


def test_reports_only_after_a_change(kernel: str) -> None:
    one, two = joined(kernel)
    one.kernel.report(NOW)
    one.events.clear()
    assert not one.kernel.report(NOW)
    assert one.events == []
    two.receive(*one.send(udp(), udp(), now=NOW + 2), now=NOW + 3)
    assert one.kernel.report(NOW)
    two.kernel.report(NOW)
    (sent,), (received,) = one.told(seam.Used), two.told(seam.Used)
    assert sent == seam.Used(one.session, 2, 120, 0, 0, NOW + 2, 0.0)
    assert received == seam.Used(two.session, 0, 0, 2, 120, 0.0, NOW + 3)
    assert one.told(seam.Counters)


# --- path MTU and what the kernel refuses ----------------------------------------------------------------------------
def test_a_packet_that_exceeds_the_path_is_refused_by_icmp(kernel: str) -> None:
    one, _ = joined(kernel)
    one.apply(seam.PathMtu(2, 1000))
    assert one.send(udp(bytes(972)), udp(bytes(973)), udp(bytes(1400), ends=V6)) != []
    assert len(one.udp.sent) == 1
    assert [frame[:10] for frame in one.tun.written] == [bytes(10)] * 2
    assert one.tun.written[0][30:32] == bytes((3, 4))
    assert one.count("drop_too_big") == 2
    whole = vnet(network(V4, 6, transport(V4, 6, bytes(3000))), gso=1, size=961)
    assert one.send(whole) == []
    one.send(*[udp(bytes(1100))] * 200)
    assert len(one.tun.written) <= 3 + bounds.TOO_BIG_PER_SECOND
    assert one.count("icmp_limited") > 90


def super_frame() -> bytes:
    return vnet(network(V4, 6, transport(V4, 6, bytes(9500))), gso=1, size=1000)


@pytest.mark.parametrize("number", [5, 90, 22])
def test_a_refused_train_is_sent_one_by_one(kernel: str, number: int) -> None:
    one, two = joined(kernel)
    one.udp.train_errno = number
    assert len(two.receive(*one.send(super_frame()))) == 1
    assert one.count("gso_fallback") == 1
    one.udp.train_errno = 0
    one.send(super_frame())
    assert bool(one.udp.trains) == (number != 5)


def test_a_datagram_that_is_too_large_is_told_to_control_now_and_then(kernel: str) -> None:
    one, _ = joined(kernel)
    one.udp.large = 900
    assert len(one.send(super_frame())) == 1
    size = wire.BODY + 40 + 1000
    assert one.told(seam.TooBig) == [seam.TooBig(one.session, size)]
    assert one.count("drop_path_mtu") == 9
    one.send(*[udp(bytes(1000))] * 300)
    assert len(one.told(seam.TooBig)) == 1
    one.send(udp(bytes(1000)), now=NOW + bounds.REFUSED_SECONDS)
    assert len(one.told(seam.TooBig)) == 2
    assert one.count("drop_path_mtu") == 9 + 301


@pytest.mark.parametrize(
    ("number", "name"),
    [(11, "drop_send_buffer"), (101, "drop_unreachable"), (1, "drop_unreachable"), (111, "drop_unreachable")],
)
def test_what_cannot_be_sent_is_counted(kernel: str, number: int, name: str) -> None:
    one, _ = joined(kernel)
    one.udp.train_errno = one.udp.send_errno = number
    one.send(super_frame(), udp())
    one.apply(seam.SendRaw(endpoint(2), b"x"))
    assert one.count(name) == 12


def test_control_is_answered_on_the_lane_that_its_peer_speaks_on(kernel: str) -> None:
    one, two = joined(kernel)
    for side in (one, two):
        side.apply(seam.Retire(side.session))
        side.apply(msgspec.structs.replace(side.installing(), lanes=widened(side.installing(), 3)))
        side.apply(seam.Deliver(side.session))
    assert said_on(two) == two.peer * 16
    body = one.forge(wire.CONTROL, b"", 5, two.session + 2)
    assert two.receive(body) == []
    assert said_on(two) == two.peer * 16 + 2
    two.receive(one.forge(wire.KEEPALIVE, b"", 6, two.session + 1))
    assert said_on(two) == two.peer * 16 + 2, "packets say nothing of where control is"


def said_on(side: Side) -> int:
    """The receiver index under which control's next word leaves."""
    side.udp.sent.clear()
    side.apply(seam.SendControl(side.session, b"word"))
    return int.from_bytes(side.udp.sent[0][0][4:8], "big")


@pytest.mark.timeout(10)
def test_a_segment_larger_than_any_train_is_refused_by_the_host(kernel: str) -> None:
    one, _ = joined(kernel)
    one.udp.large = bounds.MAX_TRAIN_BYTES
    payload = bounds.MAX_TRAIN_BYTES - wire.BODY - 40
    for more in (0, 1, 28):
        whole = network(V4, 6, transport(V4, 6, bytes(payload + more)))
        assert len(one.send(vnet(whole, gso=1, size=65_535))) == (more == 0)
    assert one.count("drop_path_mtu") == 2


def test_receiver_indices_go_round(kernel: str) -> None:
    """The other side chooses them: its second lane may be the first number there is."""
    one, _ = joined(kernel)
    install = one.installing(99, 0xFFFFFFFF)
    one.apply(msgspec.structs.replace(install, lanes=widened(install, 2)[1:]))
    one.apply(seam.Use(2, 99))
    (datagram,) = one.send(udp())
    assert datagram[:8] == bytes((wire.DATA, 0, 0, 0, 0, 0, 0, 0))


def test_a_tun_that_refuses_is_counted(kernel: str) -> None:
    one, two = joined(kernel)
    two.tun.error = OSError(5, "down")
    two.receive(*one.send(udp()))
    assert two.count("drop_tun_write") == 1


def test_longest_prefix_wins_and_routes_go(kernel: str) -> None:
    one, two = joined(kernel)
    one.apply(seam.Route(bytes((10, 32, 2, 2)), 32, 9))
    assert one.send(udp()) == []
    assert one.told(seam.Wanted) == [seam.Wanted(9)]
    one.apply(seam.Unroute(bytes((10, 32, 2, 2)), 32))
    assert two.receive(*one.send(udp())) == [udp()]
    one.apply(seam.Route(bytes(4), 0, 2))
    assert len(one.send(udp(ends=(V4[0], bytes((9, 9, 9, 9)))))) == 1
