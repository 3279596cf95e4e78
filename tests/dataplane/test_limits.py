"""What a member may cost: lanes, held and waiting packets, and messages to control are bounded for each by itself."""

from __future__ import annotations

import msgspec

from tests.dataplane.frames import V4, back, network, transport, udp, vnet
from tests.dataplane.pair import EXPIRES, NOW, Side, endpoint, joined, widened
from tunrouter.core import bounds, seam, wire


def test_control_hears_of_an_alternating_endpoint_once_a_second(kernel: str) -> None:
    one, two = joined(kernel)
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


def test_lanes_are_bounded_over_all_sessions(kernel: str) -> None:
    one = Side(1, 2, kernel=kernel)
    install = one.installing()
    wide = msgspec.structs.replace(install, lanes=widened(install, bounds.MAX_WORKERS))
    sessions = bounds.MAX_LANES // bounds.MAX_WORKERS
    for i in range(sessions):
        one.apply(msgspec.structs.replace(wide, session=i * bounds.MAX_WORKERS))
    assert one.count("seam_refused") == 0
    one.apply(msgspec.structs.replace(install, session=bounds.MAX_LANES))
    assert one.count("seam_refused") == 1
    one.apply(seam.Retire(0))
    one.apply(msgspec.structs.replace(install, session=bounds.MAX_LANES))
    assert one.count("seam_refused") == 1


def test_a_flood_of_control_bodies_is_cut_per_session(kernel: str) -> None:
    one, two = joined(kernel)
    for side in (one, two):
        side.install(side.session + 1, side.peer * 16 + 1, generation=1)
    for _ in range(500):
        one.apply(seam.SendControl(one.session, b"flood"))
    one.apply(seam.SendControl(one.session + 1, b"heartbeat"))
    bodies = [datagram for datagram, _ in one.udp.sent]
    two.receive(*bodies)
    heard = [event.session for event in two.told(seam.Control) if isinstance(event, seam.Control)]
    assert heard == [two.session] * bounds.CONTROL_BURST + [two.session + 1]
    assert two.count("control_rate") == 500 - bounds.CONTROL_BURST
    one.udp.sent.clear()
    one.apply(seam.SendControl(one.session, b"later"))
    two.receive(one.udp.sent[0][0], now=NOW + 1)
    assert len(two.told(seam.Control)) == bounds.CONTROL_BURST + 2


def test_a_report_that_finds_no_room_is_made_up_for(kernel: str) -> None:
    one, two = joined(kernel)
    lanes = one.installing().lanes
    for i in range(9):
        one.apply(seam.Install(100 + i, 2, 500 + i, lanes, endpoint(2), EXPIRES, sealed=True))
        one.apply(seam.Use(2, 100 + i))
        one.send(udp())
    one.room[seam.Used] = 0
    assert one.kernel.report(NOW)
    assert one.told(seam.Used) == []
    for second in range(8):
        one.room[seam.Used] = 3
        one.receive(*[two.forge(wire.KEEPALIVE, b"", second, 100 + i) for i in range(4)], now=NOW + second)
        assert one.kernel.report(NOW + second)  # some have news for each report, and must not always go first
    heard = {event.session for event in one.told(seam.Used) if isinstance(event, seam.Used)}
    assert heard >= set(range(100, 109))


def test_waiting_is_bounded_in_nodes_and_bytes(kernel: str) -> None:
    one = Side(1, 2, kernel=kernel)
    nodes = range(100, 100 + bounds.MAX_WAITING_NODES + 10)
    places = {node: bytes((10, 40 + node // 256, node % 256)) for node in nodes}
    for node, place in places.items():
        one.apply(seam.Route(place + b"\0", 24, node))
        one.send(udp(b"", ends=(V4[0], place + b"\1")))
    assert one.count("drop_queue_full") == 10
    large = vnet(network(V4, 6, transport(V4, 6, bytes(60_000))), gso=1, size=1000)
    for place in places.values():
        frame = large[:26] + place + b"\1" + large[30:]
        one.send(*[frame] * 5)
    install = one.installing()
    for node in nodes:
        one.apply(msgspec.structs.replace(install, session=node * 64, node=node))
        one.apply(seam.Use(node, node * 64))
    sizes = [len(datagram) - wire.BODY for datagram, _ in one.udp.sent]
    assert sizes.count(28) == bounds.MAX_WAITING_NODES
    held = sum(size > 28 for size in sizes) // 60 * len(large) + bounds.MAX_WAITING_NODES * 38
    assert bounds.MAX_WAITING_BYTES - 70_000 < held <= bounds.MAX_WAITING_BYTES


def test_the_oldest_waiting_packet_gives_way(kernel: str) -> None:
    one = Side(1, 2, kernel=kernel)
    one.send(*[udp(bytes((i,)) * 9) for i in range(bounds.MAX_WAITING + 3)])
    assert one.count("drop_queue_full") == 3
    one.open()
    _, two = joined(kernel)
    assert two.receive(one.udp.sent[0][0])[0][38:] == bytes((3,)) * 9
    assert len(one.udp.sent) == bounds.MAX_WAITING


def test_held_packets_are_bounded_and_still_checked(kernel: str) -> None:
    one, _ = joined(kernel)
    two = Side(2, 1, kernel=kernel)
    two.install()
    spoofed = udp(ends=(bytes((10, 32, 9, 9)), V4[1]))
    two.receive(*one.send(*[spoofed] * (bounds.MAX_HELD + 5)))
    assert two.count("drop_held_full") == 5
    two.apply(seam.Deliver(two.session))
    assert two.tun.written == []
    assert two.count("drop_inner_source") == bounds.MAX_HELD


def test_a_forgotten_node_leaves_nothing_behind(kernel: str) -> None:
    one = Side(1, 2, kernel=kernel)
    blocks = ((bytes((10, 32, 2, 0)), 24), (bytes((0xFD, 0, 0, 2)) + bytes(12), 64))
    large = vnet(network(V4, 6, transport(V4, 6, bytes(60_000))), gso=1, size=1000)
    rounds = bounds.MAX_WAITING_BYTES // len(large) + bounds.MAX_WAITING_NODES
    for count in range(1, rounds):
        one.send(large)
        for block in blocks:
            one.apply(seam.Unroute(*block))
        one.kernel.report(NOW)
        assert one.count("drop_no_route") == count
        for block in blocks:
            one.apply(seam.Route(*block, 2))
    assert one.count("drop_queue_full") == 0
    one.open()
    assert one.udp.sent == []


def test_waiting_packets_that_leave_make_room(kernel: str) -> None:
    one = Side(1, 2, kernel=kernel)
    large = vnet(network(V4, 6, transport(V4, 6, bytes(60_000))), gso=1, size=1000)
    for session in range(0, 64 * (bounds.MAX_WAITING_BYTES // len(large)) // 50, 64):
        one.send(*[large] * 60)
        assert one.udp.sent == []
        one.apply(msgspec.structs.replace(one.installing(), session=session))
        one.apply(seam.Use(2, session))
        assert len(one.udp.sent) == 60 * 60
        one.apply(seam.Retire(session))
    assert one.count("drop_queue_full") == 0
