"""Sessions as the data plane sees them: per lane one sealing and one opening direction with keys, nonces and windows.

Law: (key, nonce) never repeats. Each direction of a lane has its own key and salt, its counter only grows, and a
session is never installed twice. The nonce is header bytes 0-7, the lane's salt, then the counter.

A worker holds some of a session's lanes: it seals on the first of them and opens on all, most of which never carry a
datagram where the peer has fewer workers. So a lane is cold, no more
than its key and salt, until its first datagram warms it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from tunrouter.core import bounds, seam, wire
from tunrouter.core.admission import Budget
from tunrouter.core.replay import ReplayWindow
from tunrouter.dataplane import box

QUAD: Final = struct.Struct(">QQ")
"""A data header: its first eight bytes and its counter."""
COUNTER_AT: Final = 16
"""Where the counter stands in a nonce."""


def first_half(index: int) -> int:
    """Header bytes 0-7 of a data datagram for receiver `index`, as one number; indices go round at 2**32."""
    return wire.DATA << 56 | index & 0xFFFFFFFF


Cold = tuple[bytes, bytes]
"""Key and salt of a lane that has not been used."""
Hot = tuple["Session", box.Box, box.Pointer, bytearray, box.Pointer, Callable[[int], bool]]
"""Session, opening function, key, nonce, the nonce's address, and the replay window's question."""


class SealLane:
    """What one lane needs to seal; the loop that seals warms it and advances `counter`."""

    __slots__ = ("cold", "counter", "first", "key", "nonce", "nonce_at", "number", "seal", "session")
    key: box.Pointer
    nonce: bytearray
    nonce_at: box.Pointer

    def __init__(self, session: Session, index: int, number: int, key: bytes, salt: bytes) -> None:
        self.session = session
        self.number = number
        self.first = first_half(index)
        self.counter = 0
        self.cold: Cold | None = (key, salt)
        self.seal = box.seal if session.sealed else box.put_cookie

    def warm(self) -> None:
        assert self.cold is not None
        (key, salt), self.cold = self.cold, None
        self.key = box.pointer(bytearray(key))
        self.nonce = bytearray(self.first.to_bytes(8, "big") + salt + bytes(8))
        self.nonce_at = box.pointer(self.nonce)


class OpenLane:
    """What one lane needs to open; `newest` is the highest authenticated counter, `hot` what the loop wants at once."""

    __slots__ = ("cold", "first", "hot", "newest", "position", "session")
    hot: Hot

    def __init__(self, session: Session, position: int, index: int, key: bytes, salt: bytes) -> None:
        self.session = session
        self.position = position
        """Among those of the session that this worker has."""
        self.first = first_half(index)
        self.newest = -1
        self.cold: Cold | None = (key, salt)

    def warm(self) -> None:
        assert self.cold is not None
        (key, salt), self.cold = self.cold, None
        nonce = bytearray(self.first.to_bytes(8, "big") + salt + bytes(8))
        unbox = box.open_box if self.session.sealed else box.check_cookie
        is_new = ReplayWindow().check_and_advance
        self.hot = (self.session, unbox, box.pointer(bytearray(key)), nonce, box.pointer(nonce), is_new)


class Session:
    """One session: its lanes, its endpoint, and what was used of it."""

    def __init__(self, install: seam.Install) -> None:
        self.id = install.session
        self.node = install.node
        self.sealed = install.sealed
        self.move(install.endpoint)
        self.backup = False
        """What is sealed also goes by relay."""
        self.told_at = float("-inf")
        self.expires = install.expires
        self.delivers = False
        self.held: list[bytearray] = []
        self.control = Budget(bounds.CONTROL_PER_SECOND, bounds.CONTROL_BURST)
        self.hop_wanted = Budget(bounds.HOPS_WANTED_PER_SECOND, bounds.HOPS_WANTED_PER_SECOND)
        self.astray = Budget(bounds.ASTRAY_PER_SECOND, bounds.ASTRAY_PER_SECOND)
        self.refused_at = float("-inf")
        """When control was told that a datagram was too large."""
        self.sent_packets = 0
        self.sent_bytes = 0
        self.received_packets = 0
        self.received_bytes = 0
        self.last_sent = 0.0
        self.last_received = 0.0
        self.reported: tuple[float, ...] = self.stamp()
        self.reported_at = float("-inf")
        lanes = install.lanes[: bounds.MAX_WORKERS]
        self.seals = [SealLane(self, install.remote + s.number, s.number, s.seal_key, s.seal_salt) for s in lanes]
        self.opens = [
            OpenLane(self, i, install.session + s.number, s.open_key, s.open_salt) for i, s in enumerate(lanes)
        ]
        self.spoken = 0
        """The lane that the peer's control spoke on last: ours answers there, for that way leads to it."""

    def move(self, endpoint: seam.Endpoint) -> None:
        """Where the other side is, and where control believes it to be."""
        self.endpoint = self.told = endpoint
        self.relayed = seam.relay_target(endpoint)

    def alive(self, now: float) -> bool:
        return now < self.expires and self.seals[0].counter < bounds.REJECT_MESSAGES

    def stamp(self) -> tuple[float, ...]:
        """Differs whenever `used` does."""
        return self.sent_packets, self.received_packets, self.last_sent, self.last_received

    def used(self) -> seam.Used:
        return seam.Used(*self._totals(), self.last_sent, self.last_received)

    def retired(self) -> seam.Retired:
        return seam.Retired(*self._totals())

    def _totals(self) -> tuple[int, int, int, int, int]:
        return self.id, self.sent_packets, self.sent_bytes, self.received_packets, self.received_bytes


class Path:
    """The way to one node: the session in use and the largest packet."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.session: Session | None = None
        self.mtu = bounds.MAX_FRAME
