"""Our nftables as they were written last: pods come and go as elements, and what others change is found out.

Law: what was written is known by its fingerprint, taken after our transaction; when the rule sets' generation says that
somebody else wrote meanwhile, nothing is known, and the next look writes everything anew.
"""

from __future__ import annotations

from tunrouter.edge import nft
from tunrouter.errors import HostError
from tunrouter.host.ruleset import TABLES, Port, permissions


class Tables:
    def __init__(self) -> None:
        self._text = ""
        self._permitted: frozenset[Port] = frozenset()
        self._fingerprint = b""
        self._intact_at = -1
        """A generation in which they are as we wrote them."""

    def ensure(self, text: str, ports: frozenset[Port], before: int) -> bool:
        """They are `text` with these permissions; whether that had to be written. `before` is the generation now."""
        intact = text == self._text and self._unchanged(before)
        if intact and ports == self._permitted:
            self._intact_at = before
            return False
        if not (intact and self._permit(ports)):
            nft.apply(text + permissions((), ports))
        self._text, self._permitted, self._fingerprint = text, ports, nft.fingerprint(*TABLES)
        if nft.generation() == before + 1:
            self._intact_at = before + 1
        else:
            self._fingerprint = b""  # somebody else wrote, too: perhaps that is not ours
        return True

    def _permit(self, ports: frozenset[Port]) -> bool:
        """Changes only what differs; False if somebody changed the tables just now."""
        try:
            nft.apply(permissions(self._permitted, ports))
        except HostError:
            return False
        return True

    def _unchanged(self, generation: int) -> bool:
        return bool(self._fingerprint) and (
            generation == self._intact_at or nft.fingerprint(*TABLES) == self._fingerprint
        )
