"""Taking back the blocks of nodes that are gone for good, and hearing from others that they did.

    rmpeer ──> is it reachable? then no ──> its registers, as the electors know them ──> each from it to free
    ──> told to all: this node was removed ──> each looks at the electors itself ──> forgets it

Law: a block goes from its holder to free by compare-and-set, so it happens once, from however many hosts it is done.
What a node says of another's removal means nothing until the electors confirm it. Who is reachable keeps what it has;
only `force` takes it from a node that may be alive on the far side of a partition, and that node is cut off from it as
soon as it can ask the electors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tunrouter.core import bounds
from tunrouter.core.consensus import Outcome
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox, Refusal
from tunrouter.core.registers import BLOCK, PAGE, Name, Value
from tunrouter.core.registry import Registry


class Removed(NamedTuple):
    node: int
    blocks: tuple[int, ...]
    """By place in the range: those that were taken from it now."""


Done = Callable[[Removed | Refusal, float], None]


class Reclaim:
    def __init__(self, local: Local, mesh: Mesh, registry: Registry, out: Outbox) -> None:
        self.removed: dict[int, int] = {}
        """Nodes that were removed from here, with the incarnation that was known last."""
        self._local = local
        self._mesh = mesh
        self._registry = registry
        self._out = out

    # --- from here ---------------------------------------------------------------------------------------------------
    def remove(self, node: int, done: Done, now: float, *, force: bool, dry_run: bool) -> None:
        if refusal := self._refusal(node, force=force):
            done(refusal, now)
            return

        def found(names: tuple[Name, ...] | None, now: float) -> None:
            if names is None:
                why = self._registry.hindrance or "no quorum: a majority of the electors does not answer"
                done(Refusal(why, "try again when it does"), now)
            elif dry_run:
                self._look(node, names, done, now)
            else:
                self._take(node, list(names), [], done, now)

        self._registry.find(node, found, now)

    def _refusal(self, node: int, *, force: bool) -> Refusal | None:
        name = self._mesh.name_of(node)
        if node == self._local.id:
            return Refusal(f"{name} is this node", "to hand its blocks back: tunrouter leave")
        if node in self._mesh.here and not force:
            return Refusal(f"{name} is alive: it can be reached", "stop it first, or run `tunrouter leave` there")
        return None

    def _look(self, node: int, names: tuple[Name, ...], done: Done, now: float) -> None:
        """What would be taken."""

        def read(outcome: Outcome, now: float) -> None:
            if outcome.items is None:
                done(Refusal(outcome.reason, "try again when the electors answer"), now)
            else:
                held = [name.number for name, item in outcome.items.items() if item.value.holder == node]
                done(Removed(node, tuple(sorted(held))), now)

        if names:
            self._registry.read(names[:PAGE], read, now)
        else:
            done(Removed(node, ()), now)

    def _take(self, node: int, names: list[Name], taken: list[int], done: Done, now: float) -> None:
        if not names:
            self._remember(node)
            done(Removed(node, tuple(taken)), now)
            return
        page, rest = names[:PAGE], names[PAGE:]
        # Tells our change from that of another host that does the same.
        mark = self._local.random(8)

        def free(name: Name, value: Value) -> Value:
            return Value(value.version + 1, 0, mark) if value.holder == node else value

        def freed(outcome: Outcome, now: float) -> None:
            if outcome.items is None:
                done(Refusal(outcome.reason, "run it again when the electors answer: what was taken is"), now)
                return
            ours = [name.number for name, item in outcome.items.items() if item.value.data == mark]
            self._take(node, rest, taken + ours, done, now)

        self._registry.change(page, free, freed, now)

    def _remember(self, node: int) -> None:
        self.removed[node] = self._mesh.incarnation(node)
        while len(self.removed) > bounds.MAX_REMOVED:
            del self.removed[next(iter(self.removed))]
        self._registry.say_removed(tuple(self.removed.items()))
        if node not in self._mesh.here:
            self._mesh.bury(node)

    # --- from elsewhere ----------------------------------------------------------------------------------------------
    def hear(self, node: int, incarnation: int, now: float) -> None:
        """Another node says that it removed `node`, as it was known in that life of it."""
        if node == self._local.id or node in self._mesh.here or not self._mesh.knows(node):
            return
        if self._mesh.incarnation(node) > incarnation:
            return
        places = [place for place, (owner, _) in self._mesh.owners().items() if owner == node]
        names = [Name(BLOCK, place) for place in places[:PAGE]]
        if not names:
            return

        def read(outcome: Outcome, now: float) -> None:
            if outcome.items is None or node in self._mesh.here:
                return
            if not any(item.value.holder == node for item in outcome.items.values()):
                self._out.count("nodes_removed")
                self._mesh.bury(node)

        self._registry.read(names, read, now)
