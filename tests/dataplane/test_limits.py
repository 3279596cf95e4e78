"""What a member may cost: lanes, held and waiting packets, and messages to control are bounded for each by itself."""

from __future__ import annotations

import msgspec

from tests.dataplane.frames import V4, back, network, transport, udp, vnet
from tests.dataplane.pair import EXPIRES, NOW, Side, endpoint, joined
from tunrouter.core import bounds, seam


def test_control_hears_of_an_alternating_endpoint_once_a_second() -> None:
    one, two = joined()
    places = [("198.51.100.7", 999), ("198.51.100.7", 1000)]
    for i, datagram in enumerate(one.send(*[udp()] * 101)):
        two.receive(datagram, source=places[i % 2])
    assert two.told(seam.Moved) == [seam.Moved(two.session, places[0])]
    two.receive(*one.send(udp()), source=places[1])
    two.send(back())
    assert two.udp.sent[-1][1] == places[1]
    two.kernel.report(NOW + 0.5)
    two.kernel.report(NOW + 0.6)
    assert two.told(seam.Moved)[1:] == [seam.Moved(two.session, places[1])]
    two.receive(*one.send(udp()), source=places[0], now=NOW + 1.4)
    assert len(two.told(seam.Moved)) == 2
    two.receive(*one.send(udp()), source=places[1], now=NOW + 1.4)
    two.kernel.report(NOW + 1.4)
    assert len(two.told(seam.Moved)) == 2  # it is where control believes it to be
    two.receive(*one.send(udp()), source=places[0], now=NOW + 1.5)
    assert two.told(seam.Moved)[2:] == [seam.Moved(two.session, places[0])]


def _lanes(install: seam.Install, count: int) -> tuple[seam.Lane, ...]:
    """Lanes 0 to `count` - 1, all with the one lane's keys."""
    return tuple(msgspec.structs.replace(install.lanes[0], number=number) for number in range(count))


def test_an_unused_lane_costs_no_more_than_its_keys() -> None:
    one, two = joined()
    for side in (one, two):
        install = side.installing(side.session + 100, side.peer * 16 + 100)
        side.apply(msgspec.structs.replace(install, lanes=_lanes(install, 3)))
        side.apply(seam.Deliver(side.session + 100))
        side.apply(seam.Use(side.peer, side.session + 100))
    session, mirror = one.kernel._sessions[one.session + 100], two.kernel._sessions[two.session + 100]
    assert two.receive(*one.send(udp())) == [udp()]
    assert [hasattr(lane, "nonce") for lane in session.seals] == [True, False, False]
    assert [hasattr(lane, "hot") for lane in mirror.opens] == [True, False, False]
    assert not any(hasattr(lane, "hot") for lane in session.opens)
    assert [lane.cold is None for lane in mirror.opens] == [True, False, False]


def test_lanes_are_bounded_over_all_sessions() -> None:
    one = Side(1, 2)
    install = one.installing()
    wide = msgspec.structs.replace(install, lanes=_lanes(install, bounds.MAX_WORKERS))
    sessions = bounds.MAX_LANES // bounds.MAX_WORKERS
    for i in range(sessions):
        one.apply(msgspec.structs.replace(wide, session=i * bounds.MAX_WORKERS))
    assert one.count("seam_refused") == 0
    one.apply(msgspec.structs.replace(install, session=bounds.MAX_LANES))
    assert one.count("seam_refused") == 1
    assert len(one.kernel._inbound._lanes) == bounds.MAX_LANES
    one.apply(seam.Retire(0))
    one.apply(msgspec.structs.replace(install, session=bounds.MAX_LANES))
    assert one.count("seam_refused") == 1


def test_a_flood_of_control_bodies_is_cut_per_session() -> None:
    one, two = joined()
    for side in (one, two):
        side.install(side.session + 1, side.peer * 16 + 1, generation=1)
    for _ in range(500):
        one.apply(seam.SendControl(one.session, b"flood"))
    one.apply(seam.SendControl(one.session + 1, b"heartbeat"))
    bodies = [datagram for datagram, _ in one.udp.sent]
    two.receive(*bodies)
    heard = [event.session for event in two.told(seam.Control) if isinstance(event, seam.Control)]
    assert heard == [two.session] * bounds.CONTROL_PER_SECOND + [two.session + 1]
    assert two.count("control_rate") == 500 - bounds.CONTROL_PER_SECOND
    one.udp.sent.clear()
    one.apply(seam.SendControl(one.session, b"later"))
    two.receive(one.udp.sent[0][0], now=NOW + 1)
    assert len(two.told(seam.Control)) == bounds.CONTROL_PER_SECOND + 2


def test_a_report_that_finds_no_room_is_made_up_for() -> None:
    one, _ = joined()
    lanes = one.installing().lanes
    others = [seam.Install(100 + i, 2, 500 + i, lanes, endpoint(2), EXPIRES, sealed=True) for i in range(9)]
    for install in others:
        one.apply(install)
        one.apply(seam.Use(2, install.session))
        one.send(udp())
    heard: list[int] = []

    def emit(message: seam.ToControl) -> bool:
        room = isinstance(message, seam.Used) and len(heard) % 4 != 3
        heard.append(message.session if isinstance(message, seam.Used) and room else 0)
        return room

    one.kernel._emit = emit
    for second in range(8):
        assert one.kernel.report(NOW + second)
        for session in list(one.kernel._sessions.values())[:4]:
            session.received_packets += 1  # some have news for each report, and must not always go first
    assert set(heard) >= {install.session for install in others}


def test_waiting_is_bounded_in_nodes_and_bytes() -> None:
    one = Side(1, 2)
    for i in range(bounds.MAX_WAITING_NODES + 10):
        one.apply(seam.Route(bytes((10, 40 + i // 256, i % 256, 0)), 24, 100 + i))
        one.send(udp(ends=(V4[0], bytes((10, 40 + i // 256, i % 256, 1)))))
    assert one.count("drop_queue_full") == 10
    large = vnet(network(V4, 6, transport(V4, 6, bytes(60_000))), gso=1, size=1000)
    for i in range(bounds.MAX_WAITING_NODES):
        frame = bytearray(large)
        frame[26:30] = bytes((10, 40 + i // 256, i % 256, 1))
        one.send(*[bytes(frame)] * 5)
    held = sum(sum(map(len, path.waiting)) for path in one.kernel._outbound._paths.values())
    assert bounds.MAX_WAITING_BYTES - 70_000 < held <= bounds.MAX_WAITING_BYTES
    assert held == one.kernel._outbound._waiting_bytes


def test_the_oldest_waiting_packet_gives_way() -> None:
    one = Side(1, 2)
    one.send(*[udp(bytes((i,)) * 9) for i in range(bounds.MAX_WAITING + 3)])
    assert one.count("drop_queue_full") == 3
    one.open()
    _, two = joined()
    assert two.receive(one.udp.sent[0][0])[0][38:] == bytes((3,)) * 9
    assert len(one.udp.sent) == bounds.MAX_WAITING


def test_held_packets_are_bounded_and_still_checked() -> None:
    one, _ = joined()
    two = Side(2, 1)
    two.install()
    spoofed = udp(ends=(bytes((10, 32, 9, 9)), V4[1]))
    two.receive(*one.send(*[spoofed] * (bounds.MAX_HELD + 5)))
    assert two.count("drop_held_full") == 5
    two.apply(seam.Deliver(two.session))
    assert two.tun.written == []
    assert two.count("drop_inner_source") == bounds.MAX_HELD


def test_a_forgotten_node_leaves_nothing_behind() -> None:
    one = Side(1, 2)
    one.send(udp())
    one.apply(seam.Unroute(bytes((10, 32, 2, 0)), 24))
    one.apply(seam.Unroute(bytes((0xFD, 0, 0, 2)) + bytes(12), 64))
    one.kernel.report(NOW)
    assert one.kernel._outbound._paths == {}
    assert (one.kernel._outbound._waiting, one.kernel._outbound._waiting_bytes) == (0, 0)
