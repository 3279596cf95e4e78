"""How much passed between this node and others since it started: payload, and gossip.

Law: every sum only grows, since rates are made of them. So what a peer sent before it was told apart stays with the
others', and what it sends while it is told apart is never added to theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tunrouter.core import bounds

Counts = tuple[int, int, int, int]
"""Packets (or messages) and their bytes sent, packets and bytes received."""
NONE: Final[Counts] = (0, 0, 0, 0)


class Tally:
    def __init__(self) -> None:
        self.payload = NONE
        self.others = NONE
        """Of it, what is of nobody in `apart`."""
        self.gossip = NONE
        self.apart: set[int] = set()
        """Neighbours whose own sums are shown: for each there are series in a database for ever."""

    def tell_apart(self, neighbours: Iterable[int]) -> None:
        """These are the neighbours now. Who is told apart stays so as long as it is one of them."""
        here = list(neighbours)
        self.apart.intersection_update(here)
        for node in here:
            if len(self.apart) >= bounds.MAX_PEER_SERIES:
                break
            self.apart.add(node)

    def passed(self, node: int, before: Counts, after: Counts) -> None:
        """The sums of the session with `node` are these now."""
        more = _minus(after, before)
        self.payload = _plus(self.payload, more)
        if node not in self.apart:
            self.others = _plus(self.others, more)

    def said(self, size: int) -> None:
        """A message of gossip with so many bytes; none was said if it has none."""
        if size:
            self.gossip = _plus(self.gossip, (1, size, 0, 0))

    def heard(self, size: int) -> None:
        self.gossip = _plus(self.gossip, (0, 0, 1, size))


def _plus(one: Counts, other: Counts) -> Counts:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _minus(one: Counts, other: Counts) -> Counts:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3]
