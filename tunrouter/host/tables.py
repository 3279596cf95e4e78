"""Our nftables as they were written last: pods come and go as elements, and what others change is found out.

Law: the generation of the rule sets in which ours are as we wrote them is known; a pod's permission is a change of
exactly that one. When somebody else wrote meanwhile, ours are looked at, and written anew where they differ.
"""

from __future__ import annotations

from tunrouter.edge.netlink import nft
from tunrouter.host.ruleset import PODS, TABLES, Port, permissions, permitted


class Tables:
    def __init__(self) -> None:
        self._text = ""
        self._permitted: frozenset[Port] = frozenset()
        self._fingerprint = b""
        """Without the pods, who come and go."""
        self._intact_at = -1
        """A generation in which they are as we wrote them."""

    def ensure(self, text: str, ports: frozenset[Port], before: int) -> bool:
        """They are `text` with these permissions; whether that had to be written. `before` is the generation now."""
        intact = text == self._text and self._unchanged(before)
        if intact and ports == self._permitted:
            self._intact_at = before
            return False
        gone, come = permitted(self._permitted - ports), permitted(ports - self._permitted)
        if intact and nft.replace(gone, come, before):
            self._permitted, self._intact_at = ports, before + 1
            return True
        nft.apply(text + permissions(ports))
        self._text, self._permitted = text, ports
        self._fingerprint = nft.fingerprint(*TABLES, without=(PODS.name,))
        if nft.generation() == before + 1:
            self._intact_at = before + 1
        else:
            self._fingerprint = b""  # somebody else wrote, too: perhaps that is not ours
        return True

    def _unchanged(self, generation: int) -> bool:
        if not self._fingerprint or generation == self._intact_at:
            return bool(self._fingerprint)
        if nft.fingerprint(*TABLES, without=(PODS.name,)) != self._fingerprint:
            return False
        return nft.elements(PODS) == permitted(self._permitted)
