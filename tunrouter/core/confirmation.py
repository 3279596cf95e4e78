"""Are our blocks ours still? What the registers say, against what the disk and the kernel have.

    a new life, a doubt, ten minutes ──> read ──> ours: confirmed │ another's: lost │ vanished: made anew, or let go
    ours there, and not known here: lost with the disk or on the way ──> taken up

Law: in a new life nothing new is given from a block before those who decide confirm it: somebody may have taken it from
a node that was dead. Where they may be away for long (`Registry.lapses`), what no peer contradicts is used meanwhile. A
register that vanished under pods is made anew, and until then nothing new is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tunrouter.core import bounds
from tunrouter.core.addresses import Addresses
from tunrouter.core.consensus import Outcome
from tunrouter.core.holdings import CLOSING, Holdings
from tunrouter.core.journal import Journal, Row
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.registers import BLOCK, Name, Value
from tunrouter.core.registry import Registry

NEVER: Final = float("inf")


class Confirmation:
    """`wake` is called when there may be something to do with blocks."""

    def __init__(
        self,
        local: Local,
        mesh: Mesh,
        registry: Registry,
        addresses: Addresses,
        journal: Journal,
        holdings: Holdings,
        wake: Callable[[float], None],
    ) -> None:
        self.deadline = NEVER
        self.inventoried = False
        """It is known what is ours."""
        self._local = local
        self._mesh = mesh
        self._registry = registry
        self._addresses = addresses
        self._journal = journal
        self._holdings = holdings
        self._wake = wake
        self._trust_at = NEVER
        """Peers have spoken by then."""
        self._cut_off = False
        self._searched = False
        self._heir = False
        """The disk has no block: perhaps it had."""
        self._patience = 0.0
        self._moved: Row | None = None
        self._sure_at = NEVER
        self._failures = 0
        """Answers in a row that said nothing."""

    def start(self, now: float, *, moved: Row | None) -> None:
        """As `Ipam.start`."""
        self.deadline = now
        self._trust_at = now + bounds.SETTLE_SECONDS
        self._moved = moved
        self._patience = bounds.CLONE_SECONDS if moved and self._holdings.own else 0.0
        # Where those who decide may be away for long, others are not waited for either.
        self._sure_at = now + self._patience if self._registry.lapses else NEVER
        self._heir = not self._holdings.own

    def doubt(self, now: float) -> None:
        """Another node says that a block of ours is its own, and a later register version; or a register changed."""
        self.deadline = min(self.deadline, now)

    def postpone(self, now: float) -> None:
        """There is no cluster yet."""
        self.deadline = now + bounds.IPAM_SECONDS

    def tick(self, now: float) -> None:
        """Whoever was apart from those who decide asks them first of all what it has lost meanwhile."""
        cut_off = not self._registry.within_reach
        if self._cut_off and not cut_off:
            self.deadline = now
        self._cut_off = cut_off
        if now >= self.deadline:
            self.deadline = now + self._local.jitter(bounds.VERIFY_SECONDS, bounds.RETRY_JITTER)
            self._verify(now)

    def _patient(self, now: float) -> bool:
        """Whether to wait, from when others can hear us, until a life that was there before would have spoken."""
        if self._patience and self._sure_at == NEVER and not self._cut_off:
            self._sure_at = now + self._patience
        return bool(self._patience) and now < self._sure_at

    def _verify(self, now: float) -> None:
        if self._patient(now):
            self.deadline = min(self._sure_at, now + bounds.IPAM_SECONDS)
            return
        places = [place for place in self._holdings.own if place not in self._holdings.busy]
        if not self._searched or self._registry.lapses:
            self._searched = True
            self._registry.find(self._local.id, self._found, now)
        if not places:
            return
        self._holdings.busy.update(places)

        def read(outcome: Outcome, now: float) -> None:
            self._holdings.busy.difference_update(places)
            if outcome.items is None:
                self._again(outcome.reason, now)
                self._take_on_trust(places, now)
                return
            if all(own.verified for own in self._holdings.own.values()):
                self._failures = 0
            if self._moved is not None:
                self._journal.put(self._moved)
                self._moved = None
            for place in places:
                self._check(place, outcome.items[Name(BLOCK, place)].value, now)
            self._wake(now)

        self._registry.read([Name(BLOCK, place) for place in places], read, now)

    def _again(self, reason: str, now: float) -> None:
        """Ever later: who decides may refuse for long, and tells by itself when it is back."""
        self._holdings.reason = reason
        pause = self._local.jitter(min(2.0 ** min(self._failures, 9), bounds.REFUSED_MOST_SECONDS), bounds.RETRY_JITTER)
        self._failures += self._registry.lapses
        self.deadline = min(self.deadline, now + pause * bounds.IPAM_SECONDS)

    def _take_on_trust(self, places: Iterable[int], now: float) -> None:
        """Nobody can confirm them now, and that may last."""
        if not self._registry.lapses or now < self._trust_at:
            return
        owners = self._mesh.owners()
        for place in places:
            own, owner = self._holdings.own.get(place), owners.get(place)
            if own is None or own.state == CLOSING:
                continue
            if owner is None or owner.node == self._local.id:
                self._addresses.open(self._holdings.block(place))
            else:
                self._addresses.close(self._holdings.block(place))

    def _check(self, place: int, value: Value, now: float) -> None:
        own = self._holdings.own.get(place)
        if own is None:
            return
        mine = value.holder == self._local.id
        if mine and value.version == own.version:
            if not own.verified:
                self._holdings.confirm(place)
            return
        anew = mine or (not value.holder and self._holdings.needed(place))
        if self._registry.lapses and own.state != CLOSING and anew:
            self._renew(place, now)
        else:
            self._holdings.lose(place, now)

    def _renew(self, place: int, now: float) -> None:
        """Its register vanished under us, or was made by an earlier life of ours."""
        holdings = self._holdings
        before = holdings.own[place].version
        holdings.suspend(place)
        holdings.busy.add(place)

        def ours(_: Name, value: Value) -> Value:
            return value if value.holder else Value(max(value.version, before) + 1, self._local.id)

        def renewed(outcome: Outcome, now: float) -> None:
            holdings.busy.discard(place)
            value = outcome.value(Name(BLOCK, place))
            if value is None:
                self._again(outcome.reason, now)
                if not self._registry.hindrance:  # nobody can have it then
                    self._take_on_trust([place], now)
            elif place in holdings.own and value.holder == self._local.id:
                self._failures = 0
                holdings.put(place, holdings.own[place]._replace(version=value.version))
                holdings.confirm(place)
                holdings.tell(now)
            elif place in holdings.own:
                holdings.lose(place, now)

        self._registry.change([Name(BLOCK, place)], ours, renewed, now)

    # --- what is ours and not known here -----------------------------------------------------------------------------
    def _found(self, names: tuple[Name, ...] | None, now: float) -> None:
        if names is None:
            self._searched = False
            self.deadline = min(self.deadline, now + bounds.IPAM_SECONDS)
            return
        heir = self._heir and not self._holdings.own
        legacy = self._registry.bequeathed() if heir else ()
        # Until what a lost disk left behind is taken up, nothing that is used here is known to be another's.
        self.inventoried = not heir or (self._registry.settled and not legacy)
        places = 1 << (self._local.block_length - self._holdings.network.prefixlen)
        known = self._holdings.own.keys() | self._holdings.busy
        for name in names[: bounds.MAX_BLOCKS_ANNOUNCED]:
            if name.number < places and name.number not in known:
                self._adopt(name.number, now)
        for name in legacy:
            if name.number not in known:
                self._inherit(name, now)

    def _inherit(self, name: Name, now: float) -> None:
        """It becomes ours by name, and what was in use of it is kept."""
        self._holdings.busy.add(name.number)

        def ours(_: Name, value: Value) -> Value:
            return Value(value.version + 1, self._local.id)

        def inherited(outcome: Outcome, now: float) -> None:
            self._holdings.busy.discard(name.number)
            value = outcome.value(name)
            if value is None:
                self._again(outcome.reason, now)
                return
            if value.holder == self._local.id:
                self._holdings.gain(name.number, value.version, now, rested=False)
            self.doubt(now)

        self._registry.change([name], ours, inherited, now)

    def _adopt(self, place: int, now: float) -> None:
        """What was in use of it is claimed by those who use it, and the rest rests."""

        def read(outcome: Outcome, now: float) -> None:
            self._holdings.busy.discard(place)
            value = outcome.value(Name(BLOCK, place))
            if value is not None and value.holder == self._local.id and place not in self._holdings.own:
                self._holdings.gain(place, value.version, now, rested=False)

        self._holdings.busy.add(place)
        self._registry.read([Name(BLOCK, place)], read, now)
