"""A node hands back all that it has and is of no cluster any more.

    no containers? ──> another elector in its place ──> blocks closed, on disk, handed back ──> a majority of the
    electors without it has begun ──> everything forgotten

Law: what cannot be finished is undone or stays as it was, and says why: a node that did not leave is a member like
before. The last node of a cluster cannot leave it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tunrouter.core import bounds, electorate
from tunrouter.core.addresses import Addresses
from tunrouter.core.electors import CONFIGURATION, DISK, Electors
from tunrouter.core.holdings import CLOSING
from tunrouter.core.ipam import Ipam
from tunrouter.core.journal import ClusterRow, Journal
from tunrouter.core.leases import CLUSTER
from tunrouter.core.local import Local
from tunrouter.core.outbox import Refusal

NEVER: Final = float("inf")
PAUSE: Final = 0.1


class Left(NamedTuple):
    blocks: int
    """Handed back."""


Done = Callable[[Left | Refusal], None]


class Leaving:
    """`electors` are None where the cluster's API decides."""

    def __init__(
        self, local: Local, electors: Electors | None, ipam: Ipam, addresses: Addresses, journal: Journal
    ) -> None:
        self._local = local
        self._electors = electors
        self._ipam = ipam
        self._addresses = addresses
        self._journal = journal
        self._done: Done | None = None
        self._blocks = 0
        self._until = NEVER
        self.deadline = NEVER

    def begin(self, done: Done, now: float, *, force: bool) -> None:
        self._done = done
        if self._addresses.used and not force:
            what = f"{self._addresses.used} addresses are in use on this node"
            self._end(Refusal(what, "end what uses them (see: tunrouter ps), or use --force"))
            return
        if self._decides and not self._replace(now):
            self._end(Refusal("this is the last node of its cluster", "to clear this host: tunrouter reset"))
            return
        for lease in list(self._addresses.leases()):
            self._addresses.release(lease.container, lease.interface, now)
        self._ipam.leaving = True
        self._blocks = len(self._ipam.own)
        for place, own in list(self._ipam.own.items()):
            if own.state != CLOSING:
                self._ipam.give_back(place, now)
        self._until = now + bounds.LEAVE_SECONDS
        self.deadline = now

    @property
    def _decides(self) -> bool:
        return self._electors is not None and self._local.id in self._electors.electors

    def _replace(self, now: float) -> bool:
        assert self._electors is not None
        others = self._electors.others()
        size = electorate.largest_size(len(others))
        if not others:
            return False
        stay = [node for node in others if node in self._electors.electors]
        chosen = (stay + [node for node in others if node not in stay])[:size]
        return not self._electors.name(frozenset(chosen), now, by_hand=False)

    def tick(self, now: float) -> None:
        if now < self.deadline:
            return
        self.deadline = now + PAUSE
        self._ipam.wake(now)
        if not self._ipam.own and not self._decides and self._succeeded:
            for name in (CONFIGURATION, DISK, CLUSTER):
                self._journal.forget(ClusterRow(name, b"").key)
            if self._electors is not None:
                self._electors.booth.resign()
            self._end(Left(self._blocks))
        elif now >= self._until:
            self._ipam.leaving = False
            self._end(Refusal(self._why(), "run it again when a majority of the electors answers"))

    @property
    def _succeeded(self) -> bool:
        """Nothing that this node has is needed by others."""
        return self._electors is None or not self._electors.cluster or self._electors.begun

    def _why(self) -> str:
        blocks = len(self._ipam.own)
        if not blocks:
            return "no majority of the other electors has begun"
        return f"{blocks} blocks are not handed back: {self._ipam.reason or 'nobody who decides answers'}"

    def _end(self, result: Left | Refusal) -> None:
        self.deadline = NEVER
        if self._done is not None:
            self._done(result)
