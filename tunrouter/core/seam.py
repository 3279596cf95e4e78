"""The messages between control and data plane: the only thing either knows of the other.

Law: control never touches a payload packet, the data plane never decides. Every message is one MessagePack array on a
packet-preserving pipe, whether the worker is an object in the same process or a process of its own. A session is named
by its local receiver index base: lane n of it opens what arrives for index base + n and seals for the other side's base
+ n. A worker is given the lanes that are its own, and no lane is ever given twice.

Lossy messages (`LOSSY`) may be dropped by a full pipe and are counted; all others carry state, are bounded by the
tables they describe, and wait.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tunrouter.core import packed

Endpoint = tuple[str, int]
"""Address in its canonical text form, and UDP port; or `relayed`, which names a node instead."""
_NODE: Final = "node:"

SELF: Final = 0
"""The node id under which `Route` names this node's own prefixes; no key hashes to it that we would accept."""


class Lane(msgspec.Struct, frozen=True, array_like=True):
    """Keys of one sender and one receiver: 32-byte keys and 8-byte salts; 16-byte cookies as keys in plaintext mode."""

    number: int
    """Which of its session's lanes: what is added to both index bases."""
    seal_key: bytes
    seal_salt: bytes
    open_key: bytes
    open_salt: bytes

    def __repr__(self) -> str:
        return f"Lane({self.number}, …)"


# --- control to worker -----------------------------------------------------------------------------------------------
class Install(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Open what arrives for `session`; payload waits until `Deliver` says that the sender's identity is checked."""

    session: int
    node: int
    remote: int
    """The receiver index base of the other side."""
    lanes: tuple[Lane, ...]
    """Those of this worker, at least one."""
    endpoint: Endpoint
    expires: float
    """CLOCK_MONOTONIC seconds after which the worker refuses the keys by itself."""
    sealed: bool


class Deliver(msgspec.Struct, frozen=True, array_like=True, tag=2):
    session: int


class Use(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Seal packets for `node` on `session`, starting with those that wait."""

    node: int
    session: int


class Retire(msgspec.Struct, frozen=True, array_like=True, tag=4):
    session: int


class Move(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Another worker of `session` heard its peer at `endpoint`: seal to there until something newer is heard."""

    session: int
    endpoint: Endpoint


class Route(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """`prefix` (4 or 16 bytes, host bits zero) of `length` bits belongs to `node`; also the source check's table."""

    prefix: bytes
    length: int
    node: int


class Unroute(msgspec.Struct, frozen=True, array_like=True, tag=7):
    prefix: bytes
    length: int


class PathMtu(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Inner packets for `node` may have at most `mtu` bytes."""

    node: int
    mtu: int


class SendControl(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Seal `body` on `session`, padded with zeros until the datagram (without IP and UDP) has `size` bytes."""

    session: int
    body: bytes
    size: int = 0


class SendRaw(msgspec.Struct, frozen=True, array_like=True, tag=10):
    endpoint: Endpoint
    datagram: bytes


class Known(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Addresses whose handshakes never wait behind strangers'."""

    addresses: tuple[str, ...]


class Check(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """To be answered with `Alive`, by the worker's loop itself."""


class Hop(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """What goes by relay to node `target` goes inside the session in use with `via`; 0: nowhere any more."""

    target: int
    via: int


class Backup(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """While `on`, every datagram of `session` also goes by relay to its node: the replay window removes the twin."""

    session: int
    on: bool


class Relayed(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """A datagram of node `origin` that came by relay to another worker, as `Astray` said."""

    origin: int
    datagram: bytes


class Will(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """`body` is said on `session` if control goes and no other one comes in its place."""

    session: int
    body: bytes


class Charter(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """What the next control must want as well, to take this worker over: opaque, and kept from others than it."""

    text: str


class End(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Control's last word: the worker ends with it, and waits for no other."""


ToWorker = (
    Install
    | Deliver
    | Use
    | Retire
    | Move
    | Route
    | Unroute
    | PathMtu
    | SendControl
    | SendRaw
    | Known
    | Check
    | Hop
    | Backup
    | Relayed
    | Will
    | End
    | Charter
)


# --- worker to control -----------------------------------------------------------------------------------------------
class Raw(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """A datagram of type 1, 2 or 3, unauthenticated."""

    source: Endpoint
    datagram: bytes


class Control(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """An opened control body with the size of the datagram that carried it."""

    session: int
    source: Endpoint
    body: bytes
    size: int


class Wanted(msgspec.Struct, frozen=True, array_like=True, tag=35):
    """Packets wait for `node`, which has no session in use."""

    node: int


class Moved(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """The newest authenticated packet of `session` came from another endpoint, which is now used."""

    session: int
    endpoint: Endpoint


class Used(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """Totals of one session since `Install`; sent at most once a second and only after a change."""

    session: int
    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int
    last_sent: float
    """CLOCK_MONOTONIC of the last payload packet, 0.0 before the first."""
    last_received: float
    """CLOCK_MONOTONIC of the last opened datagram of any kind."""


class TooBig(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """The kernel refused a datagram of `size` bytes (without IP and UDP) on `session`."""

    session: int
    size: int


class Counters(msgspec.Struct, frozen=True, array_like=True, tag=39):
    """All counters of the worker, by name, since its start."""

    values: dict[str, int]


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """The worker's loop turns; `kernel` moves its packets."""

    kernel: str


class HopWanted(msgspec.Struct, frozen=True, array_like=True, tag=41):
    """Something is to go by relay to node `target`, for which there is no hop."""

    target: int


class Astray(msgspec.Struct, frozen=True, array_like=True, tag=42):
    """A datagram of node `origin` came by relay that no lane of this worker opens: perhaps another worker's does."""

    origin: int
    datagram: bytes


class Inherited(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """What an earlier control told this worker and never took back; said to the next one, in parts."""

    sessions: tuple[int, ...] = ()
    routes: tuple[tuple[bytes, int], ...] = ()
    """Prefixes with their lengths."""
    hops: tuple[int, ...] = ()
    """Targets that something goes to by relay."""


class Retired(msgspec.Struct, frozen=True, array_like=True, tag=44):
    """The last totals of a session that control has retired, as in `Used`."""

    session: int
    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int


ToControl = Raw | Control | Wanted | Moved | Used | TooBig | Counters | Alive | HopWanted | Astray | Inherited | Retired

LOSSY: Final = (SendControl, SendRaw, Check, Relayed, Raw, Control, Wanted, Used, Counters, Alive, HopWanted, Astray)


def relayed(node: int) -> Endpoint:
    """The endpoint of `node` for what travels inside other nodes' sessions."""
    return f"{_NODE}{node:016x}", 0


def relay_target(endpoint: Endpoint) -> int:
    """The node of such an endpoint; 0 for an address."""
    address, port = endpoint
    return int(address[len(_NODE) :], 16) if not port and address.startswith(_NODE) else 0


_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_control: msgspec.msgpack.Decoder[ToControl] = msgspec.msgpack.Decoder(ToControl)


def encode(message: ToWorker | ToControl) -> bytes:
    return _encoder.encode(message)


def decode_to_worker(data: bytes) -> ToWorker:
    """Raises ProtocolError: the two ends are of one build, so a failure means a broken end."""
    return packed.read(_to_worker, data, "message to the worker")


def decode_to_control(data: bytes) -> ToControl:
    """Raises ProtocolError, as `decode_to_worker` does."""
    return packed.read(_to_control, data, "message to control")
