"""The blocks of this node: claimed at the electors, used alone, checked, handed back, or lost.

    wanted ──> a register from free to ours ──> on disk ──> addresses are given from it, and everybody is told
    given back: closed ──> on disk ──> nobody is told of it any more ──> the register to free ──> forgotten
    read at the electors: ours still? ──> else fenced: no address of it is used here from this moment on

Law: a block is used only after its register is ours and that is on our disk; it is free only after we stopped using it.
In a new life nothing new is given from a block before the electors confirm it: somebody may have taken it from a node
that was dead. A block that another node had rests before it is used, and there is always one in reserve, so that no
container waits for electors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from tunrouter.core import bounds, vacancies
from tunrouter.core.addresses import Addresses
from tunrouter.core.consensus import Outcome
from tunrouter.core.holdings import CLOSING, FIRST, HELD, Own, block_at, cut, kept
from tunrouter.core.journal import BlockRow, Journal, Row
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox
from tunrouter.core.pool import Lease
from tunrouter.core.registers import BLOCK, Name, Value
from tunrouter.core.registry import Registry
from tunrouter.core.routes import Announced

NEVER: Final = float("inf")


class Ipam:
    """`changed` is told which blocks others may know of: at once when one is lost, else when that is on disk."""

    def __init__(
        self,
        local: Local,
        mesh: Mesh,
        registry: Registry,
        addresses: Addresses,
        journal: Journal,
        out: Outbox,
        network: IPv4Network,
        changed: Callable[[tuple[Announced, ...], float], None],
    ) -> None:
        self.network = network
        self.places = 1 << (local.block_length - network.prefixlen)
        """Blocks of the range."""
        self.own: dict[int, Own] = {}
        """By place in the range, the first one first."""
        self.reason = ""
        """Why there is no block yet, or none more."""
        self.leaving = False
        self.lost: Callable[[tuple[Lease, ...]], None] = lambda leases: None
        """Is told of addresses that are in use here and another node's."""
        self.gained: Callable[[IPv4Network, float], None] = lambda block, now: None
        """Is told of a block that is ours now, before anything is given from it."""
        self._local = local
        self._mesh = mesh
        self._registry = registry
        self._addresses = addresses
        self._journal = journal
        self._out = out
        self._changed = changed
        self._busy: set[int] = set()
        """Registers that a round of ours is about."""
        self._stopping: set[int] = set()
        """Places of blocks that are closed, while that is not on disk."""
        self._outbid = 0
        """Claims in a row that others were quicker with."""
        self._taken: dict[int, int] = {}
        """Places that nobody tells of, but that somebody holds, with the version seen."""
        self._look_at = NEVER
        self._verify_at = NEVER
        self._trust_at = NEVER
        """Peers have spoken by then."""
        self._cut_off = False
        self._searched = False
        self._inventoried = False
        self._patience = 0.0
        self._moved: Row | None = None
        self._sure_at = NEVER
        self._surplus: tuple[int, float] | None = None

    def restore(self, rows: Iterable[BlockRow], now: float) -> None:
        for row in kept(rows, self.network, self._local.block_length):
            self.own[row.place] = Own(row.version, row.state, verified=False)
            self._addresses.add_block(self.block(row.place), now, rested=True)
            self._addresses.close(self.block(row.place))

    def start(self, now: float, *, moved: Row | None) -> None:
        """`moved`: the disk may be a copy of one that runs elsewhere; what it says is used when that is ruled out.

        The row is written then: a life that ended before has ruled out nothing for the next one.
        """
        self._look_at, self._verify_at = now, now
        self._trust_at = now + bounds.SETTLE_SECONDS
        self._moved = moved
        self._patience = bounds.CLONE_SECONDS if moved and self.own else 0.0
        self._tell(now)

    def block(self, place: int) -> IPv4Network:
        return block_at(self.network, self._local.block_length, place)

    def foreign(self, address: IPv4Address) -> bool:
        """Whether it certainly lies in no block of this node, as far as the electors say."""
        size = self.network.max_prefixlen - self._local.block_length
        place = (int(address) - int(self.network.network_address)) >> size
        # A round that is under way may be about to say that it is ours.
        return self._inventoried and place not in self._busy and place not in self.own

    @property
    def exhausted(self) -> bool:
        """Nobody can get a block: each one of the range has a holder."""
        return len(self._mesh.owners().keys() | self.own.keys() | set(self._registry.held)) >= self.places

    @property
    def announced(self) -> tuple[Announced, ...]:
        """What is ours and not on its way back."""
        return tuple(
            Announced(self.block(place), own.version) for place, own in self.own.items() if own.state != CLOSING
        )

    # --- what is due -------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> float:
        return min(self._look_at, self._verify_at)

    def decided(self, now: float) -> None:
        """It is known who decides, or others do now."""
        self._look_at = self._verify_at = now

    def wake(self, now: float) -> None:
        """Something is needed soon: an address is waited for, or the electors changed."""
        self._look_at = min(self._look_at, now)

    def tick(self, now: float) -> None:
        if not self._registry.cluster:
            self.reason = "this node belongs to no cluster yet"
            self._look_at = self._verify_at = now + bounds.IPAM_SECONDS
            return
        self._watch(now)
        if now >= self._verify_at:
            self._verify_at = now + self._local.jitter(bounds.VERIFY_SECONDS, bounds.RETRY_JITTER)
            self._verify(now)
        if now >= self._look_at:
            self._look_at = now + self._local.jitter(bounds.IPAM_SECONDS, bounds.RETRY_JITTER)
            self._look(now)

    def _watch(self, now: float) -> None:
        """Whoever was apart from the electors asks them first of all what it has lost meanwhile."""
        cut_off = not self._registry.within_reach
        if self._cut_off and not cut_off:
            self._verify_at = now
        self._cut_off = cut_off

    def _look(self, now: float) -> None:
        for place, own in list(self.own.items()):
            if own.state == CLOSING and place not in self._busy | self._stopping:
                self._hand_back(place, now)
        if self.leaving or self._busy:
            return
        if self._wants_more(now):
            self._claim(now)
        else:
            self._give_up_surplus(now)

    @property
    def spare(self) -> int:
        """So many addresses should be free."""
        return max(1, min(bounds.SPARE_ADDRESSES, self.block(0).num_addresses // 4))

    def _wants_more(self, now: float) -> bool:
        usable = [own for own in self.own.values() if own.state != CLOSING]
        if len(usable) >= bounds.MAX_BLOCKS_ANNOUNCED:
            self.reason = f"this node has {len(usable)} blocks, the most that one may have"
            return False
        return not usable or (all(own.verified for own in usable) and self._addresses.free(now) < self.spare)

    # --- a block more ------------------------------------------------------------------------------------------------
    def _claim(self, now: float) -> None:
        if not self._registry.settled:
            self.reason = self._registry.hindrance or "it hears first which blocks others hold"
            return
        place, was_held = self._candidate(now)
        if place is None:
            return
        self._busy.add(place)
        name = Name(BLOCK, place)
        fresh = False

        def ours(_: Name, value: Value) -> Value:
            nonlocal fresh
            fresh = value.holder == value.version == 0 and not was_held
            return value if value.holder else Value(value.version + 1, self._local.id)

        def claimed(outcome: Outcome, now: float) -> None:
            self._busy.discard(place)
            value = outcome.value(name)
            if value is None:
                self.reason = outcome.reason
                self.wake(now + bounds.IPAM_SECONDS)
                return
            if value.holder == self._local.id:
                self._gain(place, value.version, now, rested=fresh)
            else:
                self._taken[place] = value.version
                self._outbid += 1
            self.wake(now + self._pause())

        self._registry.change([name], ours, claimed, now)

    def _pause(self) -> float:
        """Those who want blocks at the same moment hear meanwhile what the others got."""
        if not self._registry.lapses or not self._outbid:
            return 0.0
        return self._local.jitter(bounds.CLAIM_PAUSE_SECONDS * min(self._outbid, 8), 0.9)

    def _candidate(self, now: float) -> tuple[int | None, bool]:
        """A place that nobody is known to hold, and whether somebody held it before; or the reason."""
        known = self._mesh.owners().keys() | self.own.keys() | set(self._registry.held)
        taken = known | self._taken.keys()
        if len(taken) >= self.places:
            # Somebody may have handed one back without our hearing of it: those we only know by refusal are tried.
            self._taken.clear()
            taken = known
        # The founder begins at the beginning. Who was outbid where all are told begins anywhere else.
        start = 0 if self._registry.founded_here else self._local.id % self.places
        if self._outbid and self._registry.lapses:
            start = self._local.random_id() % self.places
        place, was_held, why = vacancies.choose(self._registry, taken, self.places, start, now)
        if place is None:
            self.reason = f"no block of {self.network} is free{why}"
        return place, was_held

    def _gain(self, place: int, version: int, now: float, *, rested: bool) -> None:
        """The register is ours: on disk, and then in use."""
        if place in self.own:
            return
        self._outbid = 0
        first = not any(own.state == FIRST for own in self.own.values())
        self._journal.put(cut(self.network, self._local.block_length))
        self._set(place, Own(version, FIRST if first else HELD, verified=True))
        self._addresses.add_block(self.block(place), now, rested=rested)
        self._addresses.close(self.block(place))
        self.gained(self.block(place), now)
        self._busy.add(place)

        def use(now: float) -> None:
            self._busy.discard(place)
            if place in self.own and self.own[place].state != CLOSING:
                self.reason = ""
                self._addresses.open(self.block(place))
                self._out.log("info", f"block {place}", f"{self.block(place)} is this node's")
                self._tell(now)

        self._journal.then(use)

    def _set(self, place: int, own: Own) -> None:
        self.own[place] = own
        self._journal.put(BlockRow(place, own.version, own.state))

    def _tell(self, now: float) -> None:
        self._changed(self.announced, now)

    # --- is it ours still? -------------------------------------------------------------------------------------------
    def doubt(self, now: float) -> None:
        """Another node says that a block of ours is its own, and a later register version."""
        self._verify_at = min(self._verify_at, now)

    def _patient(self, now: float) -> bool:
        """Whether to wait, from when others can hear us, until a life that was there before would have spoken."""
        if self._patience and self._sure_at == NEVER and not self._cut_off:
            self._sure_at = now + self._patience
        return bool(self._patience) and now < self._sure_at

    def _verify(self, now: float) -> None:
        if self._patient(now):
            self._verify_at = min(self._sure_at, now + bounds.IPAM_SECONDS)
            return
        places = [place for place in self.own if place not in self._busy]
        if not self._searched or self._registry.lapses:
            self._searched = True
            self._find(now)
        if not places:
            return
        self._busy.update(places)

        def read(outcome: Outcome, now: float) -> None:
            self._busy.difference_update(places)
            if outcome.items is None:
                self.reason = outcome.reason
                self._verify_at = min(self._verify_at, now + bounds.IPAM_SECONDS)
                self._take_on_trust(places, now)
                return
            if self._moved is not None:
                self._journal.put(self._moved)
                self._moved = None
            for place in places:
                self._check(place, outcome.items[Name(BLOCK, place)].value, now)
            self.wake(now)

        self._registry.read([Name(BLOCK, place) for place in places], read, now)

    def _take_on_trust(self, places: Iterable[int], now: float) -> None:
        """Nobody can confirm them now, and that may last: what no peer contradicts is used as the disk has it."""
        if not self._registry.lapses or now < self._trust_at:
            return
        owners = self._mesh.owners()
        for place in places:
            own, owner = self.own.get(place), owners.get(place)
            if own is None or own.state == CLOSING:
                continue
            if owner is None or owner.node == self._local.id:
                self._addresses.open(self.block(place))
            else:
                self._addresses.close(self.block(place))

    def _check(self, place: int, value: Value, now: float) -> None:
        own = self.own.get(place)
        if own is None:
            return
        mine = value.holder == self._local.id
        if mine and value.version == own.version:
            if not own.verified:
                self._confirm(place, own)
        elif self._registry.lapses and own.state != CLOSING and (mine or (not value.holder and self._needed(place))):
            self._renew(place, own, now)
        else:
            self._lose(place, now)

    def _confirm(self, place: int, own: Own) -> None:
        self.own[place] = own._replace(verified=True)
        self._journal.put(cut(self.network, self._local.block_length))
        if own.state != CLOSING:
            self.reason = ""
            self._addresses.open(self.block(place))

    def _needed(self, place: int) -> bool:
        """Pods live by it: by its addresses, or by the gateway that it gave them."""
        return not self._idle(place) or (self.own[place].state == FIRST and bool(self._addresses.used))

    def _renew(self, place: int, own: Own, now: float) -> None:
        """Its register vanished under us: it is made anew, and until then nothing new is given from it."""
        self._addresses.close(self.block(place))
        self.own[place] = own._replace(verified=False)
        self._busy.add(place)

        def ours(_: Name, value: Value) -> Value:
            return value if value.holder else Value(max(value.version, own.version) + 1, self._local.id)

        def renewed(outcome: Outcome, now: float) -> None:
            self._busy.discard(place)
            value = outcome.value(Name(BLOCK, place))
            if value is None:
                self.reason = outcome.reason
                self._verify_at = min(self._verify_at, now + bounds.IPAM_SECONDS)
            elif place in self.own and value.holder == self._local.id:
                self._set(place, self.own[place]._replace(version=value.version))
                self._confirm(place, self.own[place])
                self._tell(now)
            elif place in self.own:
                self._lose(place, now)

        self._registry.change([Name(BLOCK, place)], ours, renewed, now)

    def _lose(self, place: int, now: float) -> None:
        own = self.own.pop(place)
        self._journal.forget(BlockRow(place, 0, "").key)
        lost = self._addresses.drop_block(self.block(place))
        if own.state == CLOSING and not lost:
            return
        self._out.count("blocks_lost")
        who = f"; {len(lost)} addresses of it were in use here and are cut off" if lost else ""
        self._out.log("error", f"block {place}", f"{self.block(place)} is not this node's any more{who}")
        self._tell(now)
        self.lost(lost)
        self._appoint()

    def _appoint(self) -> None:
        """Some block is the first one, if there is any."""
        if not any(own.state == FIRST for own in self.own.values()):
            for place, own in self.own.items():
                if own.state == HELD:
                    self._set(place, own._replace(state=FIRST))
                    self.own = {place: self.own[place], **self.own}
                    return

    def _find(self, now: float) -> None:
        """Once in a life: what is ours at the electors, but not on our disk, was lost with it or on the way here."""
        self._registry.find(self._local.id, self._found, now)

    def _found(self, names: tuple[Name, ...] | None, now: float) -> None:
        if names is None:
            self._searched = False
            self._verify_at = min(self._verify_at, now + bounds.IPAM_SECONDS)
            return
        self._inventoried = True
        for name in names[: bounds.MAX_BLOCKS_ANNOUNCED]:
            if name.number < self.places and name.number not in self.own and name.number not in self._busy:
                self._adopt(name.number, now)

    def _adopt(self, place: int, now: float) -> None:
        """By the electors' word; what was in use of it is claimed by those who use it, and the rest rests."""

        def read(outcome: Outcome, now: float) -> None:
            self._busy.discard(place)
            value = outcome.value(Name(BLOCK, place))
            if value is not None and value.holder == self._local.id and place not in self.own:
                self._gain(place, value.version, now, rested=False)

        self._busy.add(place)
        self._registry.read([Name(BLOCK, place)], read, now)

    # --- back --------------------------------------------------------------------------------------------------------
    def _give_up_surplus(self, now: float) -> None:
        """A block that nobody has used for a quarter of an hour, while the others are enough."""
        empty = [place for place, own in self.own.items() if own.state == HELD and self._idle(place)]
        if not empty or self._addresses.free(now) - self.block(0).num_addresses < 2 * self.spare:
            self._surplus = None
        elif self._surplus is None or self._surplus[0] != empty[-1]:
            self._surplus = empty[-1], now
        elif now - self._surplus[1] >= bounds.SURPLUS_SECONDS:
            self.give_back(empty[-1], now)
            self._surplus = None

    def _idle(self, place: int) -> bool:
        return not self._addresses.held_in(self.block(place))

    def give_back(self, place: int, now: float) -> None:
        own = self.own[place]
        self._addresses.close(self.block(place))
        self._set(place, own._replace(state=CLOSING))
        self._stopping.add(place)

        def stopped(now: float) -> None:
            self._stopping.discard(place)
            self._tell(now)
            self.wake(now)

        self._journal.then(stopped)

    def _hand_back(self, place: int, now: float) -> None:
        if not self._idle(place):
            return
        self._busy.add(place)
        name, version = Name(BLOCK, place), self.own[place].version

        def free(_: Name, value: Value) -> Value:
            mine = (value.holder, value.version) == (self._local.id, version)
            return Value(version + 1, 0) if mine else value

        def freed(outcome: Outcome, now: float) -> None:
            self._busy.discard(place)
            if outcome.items is not None and place in self.own:
                del self.own[place]
                self._journal.forget(BlockRow(place, 0, "").key)
                self._addresses.drop_block(self.block(place))
                self._appoint()

        self._registry.change([name], free, freed, now)
