"""What may happen to a data plane, as values that are drawn from numbers and run on `twins.Twins`.

Nodes 2 and 3 are members, node 1 is ours, node 4 owns a prefix without ever having a session, node 5 owns nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.dataplane.traffic import Draw, Flow, Frame, address, draw_flow, draw_frame, packets, reads
from tests.dataplane.twins import TRAIN_BYTES, TRAIN_WAGONS, Arrival, Keys, Place, Twins
from tests.dataplane.underlay import HARMS, Harm, hurt, riffle
from tunrouter.core import bounds, seam, wire

ENDPOINTS: Final[dict[int, list[seam.Endpoint]]] = {
    4: [("192.0.2.2", 6783), ("192.0.2.2", 6784), ("198.51.100.9", 6783)],
    6: [("2001:db8::2", 6783), ("2001:db8::2", 1), ("fe80::9%7", 6783), ("fe80::9%8", 6783)],
}
V4, V6 = ENDPOINTS[4][0], ENDPOINTS[6][0]
PLACES: Final = (
    Place(0x100, 2, 0x9100, (0,), V4, sealed=True),
    Place(0x200, 3, 0x9200, (0, 1, 2), V6, sealed=True),
    Place(0x300, 2, 0x9300, (1, 3), V4, sealed=False),
    Place(0x400, 3, 0x9400, (0,), V4, sealed=True),
    Place(0x500, 2, 0x9500, (5,), V6, sealed=False),
    Place(0x201, 2, 0x9600, (0,), V4, sealed=True),  # its lane is the second one of 0x200
    Place(0x600, 3, 0x9700, (4, 2, 4), V4, sealed=True),
    Place(0x700, 3, 0x9800, (), V4, sealed=True),
    Place(0x800, 2, 0x9900, tuple(range(bounds.MAX_WORKERS + 3)), V4, sealed=False),
)
OURS, STRANGER = 1, 5
PREFIXES: Final = [
    *[(address(4, node, 0), 24, seam.SELF if node == OURS else node) for node in range(1, 5)],
    *[(address(6, node, 0), 64, seam.SELF if node == OURS else node) for node in range(1, 5)],
    (address(4, 2, 0), 26, 3),
    (address(4, 1, 2), 32, 2),
    (address(4, 0, 0), 16, 3),
    (bytes(4), 0, 2),
    (bytes(16), 0, 3),
    (address(6, 3, 2), 128, seam.SELF),
    (address(6, 3, 255), 127, 2),  # with a host bit
    (bytes(4), 33, 2),
    (bytes(16), 129, 2),
    (bytes(3), 8, 2),
    (b"", 0, 2),
]
_SIZES: Final = (0, 3, 15, 16, 32, 33, 64, 65, 620, 624, 640, bounds.MAX_HANDSHAKE_BYTES, 1233)


class World:
    """The twins, and the other sides."""

    def __init__(self, twins: Twins) -> None:
        self.twins = twins
        self.keys = [Keys(place) for place in PLACES]
        self.versions = sorted(twins.members[0].udps)
        self.failing = self.relaying = False
        self.past: list[bytes] = []
        """Datagrams of earlier commands, to be repeated."""

    def receive(self, arrivals: list[Arrival]) -> None:
        for version in self.versions:
            mine = [arrival for arrival in arrivals if (":" in arrival[1][0]) == (version == 6)]
            self.twins.receive(version, mine)
        self.past = (self.past + [data for data, _ in arrivals])[-300:]

    def send(self, found: list[bytes]) -> None:
        """Where sending fails, or something goes by relay, both kernels have to make the same trains.

        Failed trains are counted; and what is relayed is sealed when the train of what it is made of leaves.
        """
        if not (self.failing or self.relaying):
            self.twins.send(found)
            return
        batch, sealed, wagons = list[bytes](), 0, 0
        for read in found:
            segments = 1 + len(read) // max(int.from_bytes(read[4:6], "little"), 1)
            more, cars = len(read) + 150 * segments, 2 + segments // bounds.MAX_TRAIN_SEGMENTS
            if more > TRAIN_BYTES or cars > TRAIN_WAGONS:
                continue
            if sealed + more > TRAIN_BYTES or wagons + cars > TRAIN_WAGONS:
                self.twins.send(batch)
                batch, sealed, wagons = [], 0, 0
            batch, sealed, wagons = [*batch, read], sealed + more, wagons + cars
        self.twins.send(batch)


class Tell(NamedTuple):
    """Control's message."""

    message: seam.ToWorker

    def run(self, world: World) -> None:
        world.relaying |= isinstance(self.message, seam.Hop)
        world.twins.apply(self.message)


class Install(NamedTuple):
    place: int
    lasting: float

    def run(self, world: World) -> None:
        keys = world.keys[self.place]
        world.twins.apply(keys.install(world.twins.now + self.lasting))


class Open(NamedTuple):
    """What control does in the end for a session whose handshake went well."""

    place: int

    def run(self, world: World) -> None:
        place = PLACES[self.place]
        Install(self.place, 500.0).run(world)
        world.twins.apply(seam.Deliver(place.session))
        world.twins.apply(seam.Use(place.node, place.session))


class Report(NamedTuple):
    room: int
    """How many messages control takes then, or -1."""

    def run(self, world: World) -> None:
        for member in world.twins.members:
            member.room = self.room
        world.twins.report()
        for member in world.twins.members:
            member.room = -1


class Later(NamedTuple):
    seconds: float

    def run(self, world: World) -> None:
        world.twins.now += self.seconds


class Failing(NamedTuple):
    """The host's answers to what is sent from now on."""

    train: int
    single: int
    large: int
    tun: int
    once: int
    """And to the next reads of the TUN and of the sockets."""

    def run(self, world: World) -> None:
        world.failing = bool(self.train or self.single or self.large < 65_507)
        for member in world.twins.members:
            member.tun.error = OSError(self.tun, "refused") if self.tun else None
            member.tun.once = self.once
            for udp in member.udps.values():
                udp.once = self.once
                udp.train_errno, udp.send_errno, udp.large = self.train, self.single, self.large


class Send(NamedTuple):
    """The host sends these into the TUN, in the order of a shuffled pack that keeps each flow's own order."""

    frames: tuple[Frame, ...]
    shuffle: int

    def run(self, world: World) -> None:
        world.send(riffle([reads(frame) for frame in self.frames], self.shuffle))


class Rubbish(NamedTuple):
    """Bytes in the place of a frame, and of a datagram."""

    data: bytes

    def run(self, world: World) -> None:
        world.twins.send([self.data] if self.data else [])
        world.receive([(self.data, V4), (self.data, V6)])


class Arrive(NamedTuple):
    """A peer sends these flows, and the underlay does its worst."""

    place: int
    flows: tuple[Flow, ...]
    shuffle: int
    kinds: str
    """Which kind of box packets come in: by their checksum, or the wrong one."""
    jump: int
    """Counters that the peer leaves out first."""
    harms: tuple[Harm, ...]
    source: int
    alternate: bool
    """Whether every second datagram comes from another endpoint."""

    def run(self, world: World) -> None:
        keys = world.keys[self.place]
        if not keys.place.lanes:
            return
        for number in keys.counters:
            keys.counters[number] += self.jump
        said = [[self._say(keys, flow, inner) for inner in packets(flow)] for flow in self.flows]
        data = riffle(said, self.shuffle)
        for harm in self.harms:
            data = hurt(data, harm, world.past)
        family = ENDPOINTS[6 if ":" in keys.place.endpoint[0] else 4]
        usual, other = family[self.source % len(family)], family[(self.source + 1) % len(family)]
        world.receive([(one, other if self.alternate and i % 2 else usual) for i, one in enumerate(data)])

    def _say(self, keys: Keys, flow: Flow, inner: bytes) -> bytes:
        partial = flow.checksum == "partial" and flow.protocol in (6, 17)
        kind = wire.PACKET_PARTIAL if partial != (self.kinds == "wrong") else wire.PACKET
        return keys.say(kind, inner, flow.port if self.kinds == "spread" else 0)


class Speak(NamedTuple):
    """Bodies of any kind in authentic boxes."""

    place: int
    kind: int
    body: bytes
    times: int
    counter: int | None

    def run(self, world: World) -> None:
        keys = world.keys[self.place]
        if not keys.place.lanes:
            return
        data = [keys.say(self.kind, self.body, i, self.counter) for i in range(self.times)]
        world.receive([(one, keys.place.endpoint) for one in data])


class Knock(NamedTuple):
    """Handshake datagrams, or what looks like them."""

    head: bytes
    size: int
    times: int
    source: int
    version: int

    def run(self, world: World) -> None:
        data = self.head.ljust(self.size, b"h")[: self.size]
        family = ENDPOINTS[self.version]
        world.receive([(data, family[(self.source + i) % len(family)]) for i in range(self.times)])


class Carry(NamedTuple):
    """Datagrams of one session inside another one's boxes, or handshakes, or rubbish."""

    place: int
    inside: int
    hops: int
    target: int
    origin: int
    flow: Flow
    kind: int
    rubbish: bytes
    """In the place of a datagram of `inside`, if there is any."""
    astray: bool
    """Another worker heard them."""

    def run(self, world: World) -> None:
        keys, inner = world.keys[self.place], world.keys[self.inside]
        if not keys.place.lanes or not inner.place.lanes:
            return
        said = [self.rubbish] if self.rubbish else [inner.say(self.kind, one, 0) for one in packets(self.flow)]
        if self.astray:
            for one in said:
                world.twins.apply(seam.Relayed(self.origin or 9, one))
            return
        head = wire.RELAY_HEAD.pack(self.hops, self.target, self.origin)
        world.receive([(keys.say(wire.RELAY, head + one, 0), keys.place.endpoint) for one in said])


Command = Tell | Install | Open | Report | Later | Failing | Send | Rubbish | Arrive | Speak | Knock | Carry


# --- draws -----------------------------------------------------------------------------------------------------------
_ERRORS: Final = (errno.EIO, errno.EMSGSIZE, errno.EINVAL, errno.EAGAIN, errno.ENOBUFS, errno.EPERM)


def _place(draw: Draw) -> int:
    return draw.near(0, 1, 2, upto=len(PLACES) - 1) if draw.random() < 0.3 else draw.of(0, 0, 1)


def _session(draw: Draw) -> int:
    return draw.of(*[PLACES[_place(draw)].session] * 8, 0x101, 0x999)


def _endpoint(draw: Draw) -> seam.Endpoint:
    return draw.choice(ENDPOINTS[draw.of(4, 6)])


def _anywhere(draw: Draw) -> seam.Endpoint:
    return seam.relayed(draw.of(2, 3, STRANGER)) if draw.random() < 0.4 else _endpoint(draw)


def _body(draw: Draw) -> bytes:
    return bytes(draw.near(0, 1, 2, 40, 1102, 1103, upto=1400))


def _tell(draw: Draw) -> Tell:
    place, prefix = PLACES[_place(draw)], draw.choice(PREFIXES)
    node = draw.of(2, 2, 3, 3, 4, STRANGER)
    known = tuple(_endpoint(draw)[0] for _ in range(draw.randint(0, 2)))
    messages: tuple[seam.ToWorker, ...] = (
        seam.Deliver(_session(draw)),
        seam.Use(place.node, place.session),
        seam.Use(node, _session(draw)),
        seam.Retire(_session(draw)),
        seam.Move(_session(draw), _anywhere(draw)),
        seam.Route(*prefix),
        seam.Unroute(*prefix[:2]),
        seam.PathMtu(node, draw.of(0, 68, 576, 1280, 1339, 9000, 65_535)),
        seam.SendControl(_session(draw), _body(draw), draw.near(0, 1200, 65_507, 70_000, upto=1500)),
        seam.SendControl(_session(draw), bytes(draw.of(65_473, 65_474, 65_475))),
        seam.SendRaw(_anywhere(draw), _body(draw) or b"1"),
        seam.Hop(node, draw.of(2, 2, 3, 3, 4, 0)),
        seam.Hop(node, draw.of(2, 3)),
        seam.Backup(_session(draw), draw.random() < 0.7),
        seam.Known(known),
    )
    return Tell(draw.choice(messages))


def _send(draw: Draw) -> Send:
    found = []
    for _ in range(draw.of(1, 1, 2, 3, 12)):
        destination = draw.of(*[2] * 6, *[3] * 4, 4, OURS, STRANGER)
        found.append(draw_frame(draw, draw.of(*[OURS] * 8, STRANGER), destination))
    return Send(tuple(found), draw.of(0, draw.randint(1, 1000)))


def _arrive(draw: Draw) -> Arrive:
    place, found = _place(draw), []
    for _ in range(draw.of(1, 1, 2, 3, 12)):
        source = draw.of(*[PLACES[place].node] * 30, 1, 4, STRANGER)
        found.append(draw_flow(draw, source, draw.of(*[OURS] * 30, 2, STRANGER)))
    harms = draw.of(0, 0, 1, 4)
    return Arrive(
        place,
        tuple(found),
        draw.of(0, draw.randint(1, 1000)),
        draw.choice(["usual"] * 4 + ["spread", "spread", "wrong"]),
        draw.of(*[0] * 6, 1, 100, 8127, 8128, 9000),
        tuple(Harm(draw.choice(HARMS), draw.randint(0, 200), draw.randint(0, 1500)) for _ in range(harms)),
        draw.of(0, 0, 0, 1, 2),
        draw.random() < 0.1,
    )


def _speak(draw: Draw) -> Speak:
    kinds = (wire.KEEPALIVE, wire.CONTROL, wire.CONTROL, wire.PACKET, wire.PACKET_PARTIAL, wire.RELAY, 255)
    counter = draw.choice([None, None, 0, 7000, (1 << 60) - 1, 1 << 60, (1 << 64) - 1])
    return Speak(_place(draw), draw.of(*kinds), _body(draw), draw.of(1, 2, 60, 300), counter)


def _carry(draw: Draw) -> Carry:
    source = draw.of(2, 3)
    return Carry(
        _place(draw),
        _place(draw),
        draw.of(0, 1, 2, 8, 255),
        draw.of(0, 0, 0, 2, 3, STRANGER),
        draw.of(0, 2, 3, STRANGER),
        draw_flow(draw, source, OURS),
        draw.of(wire.PACKET_PARTIAL, wire.PACKET, wire.CONTROL, wire.RELAY),
        draw.choice([b"", b"", b"", bytes((1, 1, 0, 0)).ljust(624, b"h"), b"x" * 15, b"x" * 16, b"\4" + bytes(80)]),
        draw.random() < 0.1,
    )


def _knock(draw: Draw) -> Knock:
    """What may be a handshake, and what has its first bytes or its size only."""
    kind, size = draw.choice([(1, 624), (2, 65), (2, 200), (3, 16)])
    head = bytes((kind, 1, 0, 0))
    if draw.random() < 0.5:
        head = bytes((draw.of(1, 2, 3, 4, 0, 9), draw.of(0, 1, 2, 3, 4), draw.of(0, 0, 0, 1), 0))
        size = draw.of(size, *_SIZES)
    return Knock(head, size, draw.of(1, 3, 30, 400), draw.randint(0, 3), draw.of(4, 6))


def _failing(draw: Draw) -> Failing:
    if draw.random() < 0.5:
        return Failing(0, 0, 65_507, 0, 0)
    large = draw.of(65_507, 65_507, 1400, 600, 100)
    train, single = draw.of(0, 0, *_ERRORS), draw.of(0, 0, *_ERRORS)
    return Failing(train, single, large, draw.of(0, 0, errno.EIO), draw.of(0, 0, errno.EIO))


def _rubbish(draw: Draw) -> Rubbish:
    data = draw.randbytes(draw.randint(0, 100))
    return Rubbish(data if draw.random() < 0.5 else bytes(10) + bytes((draw.of(0x45, 0x4F, 0x60),)) + data)


_KINDS: Final[tuple[tuple[int, Callable[[Draw], Command]], ...]] = (
    (14, _arrive),
    (10, _send),
    (6, _tell),
    (4, lambda draw: Open(_place(draw))),
    (1, lambda draw: Install(_place(draw), draw.choice([0.0, 1.0, 30.0, 500.0]))),
    (3, lambda draw: Report(draw.of(-1, -1, -1, 0, 1, 2))),
    (3, lambda draw: Later(draw.choice([0.0, 0.004, 0.4, 1.0, 1.1, 40.0]))),
    (2, _failing),
    (2, _speak),
    (2, _knock),
    (4, _carry),
    (1, _rubbish),
)
"""What happens, and how often."""


def chapter(seed: int) -> list[Command]:
    """Some things that happen one after the other."""
    draw = Draw(seed)
    weights, makers = zip(*_KINDS, strict=True)
    return [make(draw) for make in draw.choices(makers, weights, k=4)]
