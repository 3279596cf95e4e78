"""Who decides whose a block is, as those see it that claim, check and hand back: registers and compare-and-set.

    electors.py: a few nodes agree among themselves        leases.py: objects of the cluster's own API decide

Law: a register changes from one holder to another by compare-and-set only, and what was decided is never guessed: an
outcome without items is an unknown one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from tunrouter.core.consensus import Change, Done
from tunrouter.core.inventory import Found
from tunrouter.core.record import ClusterBody
from tunrouter.core.registers import Name


class Registry(Protocol):
    founded_here: bool
    """This node was the first of its cluster."""
    lapses: bool
    """A register may vanish although its holder lives: one that is missing proves nothing, and who needs it makes it
    anew. Then those who decide may also be away for long, and what the disk says is used until they are back."""
    learned: Callable[[float], None]
    """Is told when it is known who decides, or others do."""

    foreign: dict[int, int]
    """Nodes of other clusters, with the cluster's id."""

    @property
    def deadline(self) -> float: ...

    def tick(self, now: float) -> None: ...

    def start(self, now: float) -> None:
        """The first step; what the disk kept was restored before."""

    def on_cluster(self, node: int, body: ClusterBody, now: float) -> None:
        """What a node's record says."""

    @property
    def cluster(self) -> int:
        """0 while there is none."""

    @property
    def within_reach(self) -> bool:
        """Those who decide can be asked, as far as this node knows."""

    @property
    def settled(self) -> bool:
        """What others hold is known well enough to choose a block."""

    @property
    def hindrance(self) -> str:
        """Why something that was asked for is not decided yet; empty if nothing waits."""

    @property
    def held(self) -> Collection[int]:
        """Places of blocks that have a holder, beside those that gossip tells of."""

    def left_at(self, place: int) -> float | None:
        """When its last holder lost that block, if it is known to have had one."""

    def change(self, names: Iterable[Name], change: Change, done: Done, now: float) -> None:
        """Every one of the registers, at most `PAGE` of them, to `change` of what it is."""

    def read(self, names: Iterable[Name], done: Done, now: float) -> None: ...

    def find(self, holder: int, done: Found, now: float) -> None:
        """The registers that `holder` has; None if that cannot be said now."""

    def bequeathed(self) -> tuple[Name, ...]:
        """Registers of a node that was this machine before its disk was lost."""

    def say_removed(self, removed: tuple[tuple[int, int], ...]) -> None:
        """These nodes, in these incarnations, have nothing any more."""
