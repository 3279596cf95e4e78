"""What goes by relay, on each kernel: nodes 1, 2 and 3 in a row, where 2 hears the others and they hear only it."""

from __future__ import annotations

from itertools import count

import pytest
from nacl import bindings

from tests.dataplane.fakes import FakeTun, FakeUdp
from tests.dataplane.frames import udp
from tests.dataplane.kernels import open_kernel
from tests.dataplane.pair import EXPIRES, NOW, endpoint, secret
from tunrouter.core import bounds, seam, wire

MARKER = b"nobody on the way may read this"


def base(node: int, peer: int) -> int:
    """The receiver index at `node` of its session with `peer`."""
    return 1024 * node + 128 * peer


class Node:
    def __init__(self, kernel: str, number: int, *peers: int) -> None:
        self.number = number
        self.tun, self.udp = FakeTun(), FakeUdp()
        self.events: list[seam.ToControl] = []
        self.kernel = open_kernel(kernel, self.tun, [self.udp], self.events.append)
        for owner in (1, 2, 3):
            self.apply(seam.Route(bytes((10, 32, owner, 0)), 24, seam.SELF if owner == number else owner))
        for peer in peers:
            self.open(peer)

    def apply(self, message: seam.ToWorker, now: float = NOW) -> None:
        self.kernel.apply(message, now)

    def open(self, peer: int, *, deliver: bool = True) -> None:
        me, session = self.number, base(self.number, peer)
        lane = seam.Lane(0, secret(me, peer, 32), secret(me, peer, 8), secret(peer, me, 32), secret(peer, me, 8))
        self.apply(seam.Install(session, peer, base(peer, me), (lane,), endpoint(peer), EXPIRES, sealed=True))
        if deliver:
            self.apply(seam.Deliver(session))
            self.apply(seam.Use(peer, session))

    def move(self, peer: int) -> None:
        """The session with `peer` goes by relay from now on."""
        self.apply(seam.Move(base(self.number, peer), seam.relayed(peer)))

    def told(self, kind: type) -> list[seam.ToControl]:
        return [event for event in self.events if isinstance(event, kind)]

    def count(self, name: str) -> int:
        return self.kernel.counters[name]

    def departed(self) -> list[tuple[bytes, seam.Endpoint]]:
        sent, self.udp.sent[:] = list(self.udp.sent), []
        return sent


class Row:
    """`cut` holds pairs of which the first does not reach the second."""

    def __init__(self, kernel: str, numbers: tuple[int, ...] = (1, 2, 3)) -> None:
        self.nodes = {number: Node(kernel, number, *(peer for peer in numbers if peer != number)) for number in numbers}
        self.cut = {(1, 3), (3, 1)}
        self.wire: list[bytes] = []
        self.arrived: list[tuple[int, int, bytes]] = []
        self._counters = count(100)
        """Of hostile bodies: those of the kernels are lower."""

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    def send(self, source: int, destination: int, payload: bytes = MARKER, now: float = NOW) -> None:
        self[source].tun.readable.append(udp(payload, (bytes((10, 32, source, 2)), bytes((10, 32, destination, 2)))))
        self[source].kernel.drain_tun(now)
        self.settle(now)

    def settle(self, now: float = NOW) -> None:
        for _ in range(40):
            under_way = [(node.number, *one) for node in self.nodes.values() for one in node.departed()]
            if not under_way:
                return
            for source, datagram, to in under_way:
                self.wire.append(datagram)
                target = int(to[0].rpartition(".")[2])
                if (source, target) not in self.cut:
                    self.arrive(source, target, datagram, now)
        raise AssertionError("it does not come to rest")

    def arrive(self, source: int, target: int, datagram: bytes, now: float = NOW) -> None:
        self.arrived.append((source, target, datagram))
        self[target].udp.readable.append((datagram, endpoint(source)))
        self[target].kernel.drain_udp(self[target].udp, now)

    def say(self, source: int, target: int, body: bytes) -> None:
        """A relay body as `source` would seal it, were it hostile; its kernel does not know of it."""
        header = wire.HEADER.pack(wire.DATA, 0, 0, base(target, source), next(self._counters))
        nonce = header[:8] + secret(source, target, 8) + header[8:]
        box = bindings.crypto_secretbox(bytes((wire.RELAY,)) + body, nonce, secret(source, target, 32))
        self.arrive(source, target, header + box)

    def pods(self, number: int) -> int:
        """How often the marker came out of the TUN of `number`."""
        return sum(MARKER in frame for frame in self[number].tun.written)


@pytest.fixture
def row(kernel: str) -> Row:
    made = Row(kernel)
    for one, other in ((1, 3), (3, 1)):
        made[one].apply(seam.Hop(other, 2))
        made[one].move(other)
    return made


def test_a_packet_takes_the_way_around_and_nobody_there_reads_it(row: Row) -> None:
    row.send(1, 3)
    assert row.pods(3) == 1
    assert not row[2].tun.written
    assert not any(MARKER in datagram for datagram in row.wire)
    assert [row[1].count("relay_sent"), row[2].count("relay_forwarded"), row[3].count("relay_delivered")] == [1, 1, 1]
    row.send(3, 1)
    assert row.pods(1) == 1


def test_a_handshake_takes_it_too_and_its_source_is_the_node(row: Row) -> None:
    datagram = bytes((wire.FIRST, 1, 0, 0)).ljust(wire.FIRST_BYTES[True], b"h")
    row[1].apply(seam.SendRaw(seam.relayed(3), datagram))
    row.settle()
    assert row[3].told(seam.Raw) == [seam.Raw(seam.relayed(1), datagram)]


def test_control_hears_by_which_way_it_was_told(row: Row) -> None:
    row[1].apply(seam.SendControl(base(1, 3), b"\0\1x"))
    row.settle()
    (control,) = row[3].told(seam.Control)
    assert isinstance(control, seam.Control)
    assert control.source == seam.relayed(1)


def test_what_comes_directly_does_not_bring_a_relayed_session_back(row: Row) -> None:
    row.cut.clear()
    row[3].apply(seam.Move(base(3, 1), endpoint(1)))
    row.send(3, 1)
    assert row.pods(1) == 1
    row[1].kernel.report(NOW + 2)
    assert not row[1].told(seam.Moved)
    row.send(1, 3)
    assert row[1].count("relay_sent") == 1
    row[1].apply(seam.Move(base(1, 3), endpoint(3)))
    row.send(1, 3)
    assert row.pods(3) == 2
    assert row[1].count("relay_sent") == 1


def test_what_comes_by_relay_proves_no_direct_path(kernel: str) -> None:
    made = Row(kernel)
    made[1].apply(seam.Hop(3, 2))
    made[1].move(3)
    made.send(1, 3)
    assert made.pods(3) == 1
    made[3].kernel.report(NOW + 2)
    (used,) = [each for each in made[3].told(seam.Used) if isinstance(each, seam.Used) and each.session == base(3, 1)]
    assert (used.received_packets, used.last_received) == (1, 0.0)
    assert not made[3].told(seam.Moved)


def test_with_a_backup_it_goes_both_ways_and_arrives_once(kernel: str) -> None:
    made = Row(kernel)
    made[1].apply(seam.Hop(3, 2))
    made[1].apply(seam.Backup(base(1, 3), on=True))
    made.send(1, 3)
    assert made.pods(3) == 1, "the direct way is cut"
    made.cut.clear()
    made.send(1, 3)
    assert made.pods(3) == 2
    assert made[3].count("drop_replay") == 1
    made[1].apply(seam.Backup(base(1, 3), on=False))
    made.send(1, 3)
    assert made.pods(3) == 3
    assert made[1].count("relay_sent") == 2


def test_who_is_in_doubt_is_no_hop(row: Row) -> None:
    row[1].apply(seam.Backup(base(1, 2), on=True))
    row.send(1, 3)
    assert row[1].count("relay_no_route") == 1


def test_without_a_hop_control_is_asked(row: Row) -> None:
    row[1].apply(seam.Hop(3, 0))
    for _ in range(100):
        row.send(1, 3)
    assert row[1].count("relay_no_route") == 100
    assert row[1].told(seam.HopWanted) == [seam.HopWanted(3)] * bounds.HOPS_WANTED_PER_SECOND


def test_a_relay_goes_on_by_its_own_hops_and_never_back(row: Row) -> None:
    row[2].apply(seam.Retire(base(2, 3)))
    row.send(1, 3)
    assert row[2].told(seam.HopWanted) == [seam.HopWanted(3)]
    row[2].apply(seam.Hop(3, 1))
    row.send(1, 3)
    assert row[2].count("relay_no_route") == 2
    assert row.pods(3) == 0


def test_what_runs_in_circles_ends(kernel: str) -> None:
    made = Row(kernel, (1, 2, 4))
    for node, via in ((1, 2), (2, 4), (4, 1)):
        made[node].apply(seam.Hop(3, via))
    made[1].apply(seam.SendRaw(seam.relayed(3), bytes((wire.FIRST, 1, 0, 0)).ljust(wire.FIRST_BYTES[True], b"h")))
    made.settle()
    assert sum(node.count("relay_hop_limit") for node in made.nodes.values()) == 1
    assert sum(node.count("relay_forwarded") for node in made.nodes.values()) == bounds.RELAY_HOPS - 1


def test_nobody_gives_a_body_more_hops_than_there_are(kernel: str) -> None:
    made = Row(kernel, (1, 2, 4))
    for node, via in ((1, 2), (2, 4), (4, 1)):
        made[node].apply(seam.Hop(3, via))
    made.say(1, 2, wire.RELAY_HEAD.pack(255, 3, 0) + bytes(wire.HEADER_BYTES))
    made.settle()
    assert sum(node.count("relay_hop_limit") for node in made.nodes.values()) == 1
    assert sum(node.count("relay_forwarded") for node in made.nodes.values()) == bounds.RELAY_HOPS - 1


def test_a_member_that_asks_for_many_targets_uses_up_no_others_questions(kernel: str) -> None:
    made = Row(kernel)
    for target in range(100, 300):
        made.say(1, 2, wire.RELAY_HEAD.pack(8, target, 0) + bytes(wire.HEADER_BYTES))
    assert len(made[2].told(seam.HopWanted)) == bounds.HOPS_WANTED_PER_SECOND
    made.say(3, 2, wire.RELAY_HEAD.pack(8, 77, 0) + bytes(wire.HEADER_BYTES))
    assert made[2].told(seam.HopWanted)[-1] == seam.HopWanted(77)
    made[2].apply(seam.SendRaw(seam.relayed(78), bytes(wire.HEADER_BYTES)))
    assert made[2].told(seam.HopWanted)[-1] == seam.HopWanted(78)


def test_a_member_that_sends_others_workers_much_keeps_nobody_from_it(kernel: str) -> None:
    made = Row(kernel)
    astray = wire.HEADER.pack(wire.DATA, 0, 0, 9, 9).ljust(wire.BODY, b"x")
    for _ in range(bounds.ASTRAY_PER_SECOND + 5):
        made.say(1, 2, wire.RELAY_HEAD.pack(8, 0, 0) + astray)
    assert len(made[2].told(seam.Astray)) == bounds.ASTRAY_PER_SECOND
    assert made[2].count("drop_unknown_index") == 5
    made.say(3, 2, wire.RELAY_HEAD.pack(8, 0, 0) + astray)
    assert made[2].told(seam.Astray)[-1] == seam.Astray(3, astray)


def test_what_was_heard_once_is_not_taken_again_on_any_hop(row: Row) -> None:
    row.send(1, 3)
    for source, target, datagram in list(row.arrived):
        row.arrive(source, target, datagram)
    row.settle()
    assert row.pods(3) == 1
    assert [row[2].count("drop_replay"), row[3].count("drop_replay")] == [1, 1]


def test_rubbish_in_relay_bodies_is_counted(row: Row) -> None:
    row.say(1, 2, b"")
    row.say(1, 2, wire.RELAY_HEAD.pack(8, 0, 0) + bytes(wire.HEADER_BYTES - 1))
    assert row[2].count("relay_malformed") == 2
    row.say(1, 2, wire.RELAY_HEAD.pack(8, 0, 0) + bytes(wire.HEADER_BYTES))
    assert row[2].count("drop_malformed") == 1
    row.say(1, 2, wire.RELAY_HEAD.pack(1, 3, 0) + bytes(wire.HEADER_BYTES))
    assert row[2].count("relay_hop_limit") == 1


def test_bodies_are_not_nested(row: Row) -> None:
    inner = wire.RELAY_HEAD.pack(8, 2, 0) + bytes(40)
    header = wire.HEADER.pack(wire.DATA, 0, 0, base(3, 1), 7)

    nonce = header[:8] + secret(1, 3, 8) + header[8:]
    box = bindings.crypto_secretbox(bytes((wire.RELAY,)) + inner, nonce, secret(1, 3, 32))
    row[3].apply(seam.Relayed(1, header + box))
    assert row[3].count("relay_malformed") == 1


def test_nobody_relays_before_his_identity_is_proved(kernel: str) -> None:
    made = Row(kernel)
    made[2].apply(seam.Retire(base(2, 1)))
    made[2].open(1, deliver=False)
    made[1].apply(seam.Hop(3, 2))
    made[1].move(3)
    made.send(1, 3)
    assert made[2].count("relay_malformed") == 1
    assert made.pods(3) == 0


def test_what_no_lane_opens_may_be_another_workers(row: Row) -> None:
    row[3].apply(seam.Retire(base(3, 1)))
    row.send(1, 3)
    (astray,) = row[3].told(seam.Astray)
    assert isinstance(astray, seam.Astray)
    assert astray.origin == 1
    row[3].open(1)
    row[3].apply(seam.Relayed(1, astray.datagram))
    assert row.pods(3) == 1
    row[3].apply(seam.Retire(base(3, 1)))
    row[3].apply(seam.Relayed(1, astray.datagram))
    assert row[3].count("drop_unknown_index") == 1
    assert len(row[3].told(seam.Astray)) == 1


def test_what_does_not_fit_a_hop_is_counted_and_says_nothing_of_the_hops_own_path(row: Row) -> None:
    row[1].udp.large = 100
    row.send(1, 3)
    assert row[1].count("drop_path_mtu") == 1
    row[2].udp.large = 1400
    for _ in range(50):
        row.say(1, 2, wire.RELAY_HEAD.pack(8, 3, 0) + bytes(1500))
    assert row[2].count("drop_path_mtu") == 50
    assert not row[1].told(seam.TooBig)
    assert not row[2].told(seam.TooBig), "a message of state for each: no heartbeat would find room in the pipe"
