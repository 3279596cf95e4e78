"""The keys of one completed handshake, as their session thinks of them; the data plane has the keys themselves."""

from __future__ import annotations

from typing import Final

from tunrouter.core.dial import Opened

FOREVER: Final = float("inf")


class Keys:
    """One completed handshake: the lanes that the data plane has under `base`."""

    def __init__(self, opened: Opened, now: float) -> None:
        self.base = opened.base
        self.remote = opened.remote
        self.maimed = False
        """Lanes of them were lost with a worker."""
        self.ours = opened.initiator
        self.made = now
        self.superseded = FOREVER
        self.heard = not opened.initiator
        """The peer is known to have them."""
        self.heard_at = now
        self.confirm = opened.confirm
        self.confirm_at = now
        self.sent_bytes = self.received_bytes = self.sent_packets = self.received_packets = 0

    def traffic(self) -> tuple[int, int, int, int]:
        return self.sent_packets, self.sent_bytes, self.received_packets, self.received_bytes
