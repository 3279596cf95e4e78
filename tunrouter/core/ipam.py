"""The blocks of this node: claimed where registers are, used alone, handed back.

    wanted ──> a register from free to ours ──> on disk ──> addresses are given from it, and everybody is told
    given back: closed ──> on disk ──> nobody is told of it any more ──> the register to free ──> forgotten

What is held is in holdings.py; confirmation.py asks whether it is ours still.

Law: a block is used only after its register is ours and that is on our disk; it is free only after we stopped using it.
A block that another node had rests before it is used, and there is always one in reserve, so that no container waits
for those who decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from tunrouter.core import bounds, vacancies
from tunrouter.core.addresses import Addresses
from tunrouter.core.confirmation import Confirmation
from tunrouter.core.consensus import Outcome
from tunrouter.core.holdings import CLOSING, HELD, Holdings
from tunrouter.core.journal import BlockRow, Journal, Row
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox
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
        self.holdings = Holdings(local, addresses, journal, out, network, changed)
        self.own = self.holdings.own
        """By place in the range, the first one first."""
        self.leaving = False
        self._confirmation = Confirmation(local, mesh, registry, addresses, journal, self.holdings, self.wake)
        self.doubt = self._confirmation.doubt
        self._local = local
        self._mesh = mesh
        self._registry = registry
        self._addresses = addresses
        self._journal = journal
        self._stopping: set[int] = set()
        """Places of blocks that are closed, while that is not on disk."""
        self._refused = 0
        """Claims in a row that came to nothing."""
        self._outbid = 0
        """Claims in a row that others were quicker with."""
        self._taken: dict[int, int] = {}
        """Places that nobody tells of, but that somebody holds, with the version seen."""
        self._look_at = NEVER
        self._surplus: tuple[int, float] | None = None

    def restore(self, rows: Iterable[BlockRow], now: float) -> None:
        self.holdings.restore(rows, now)

    def start(self, now: float, *, moved: Row | None) -> None:
        """`moved`: the disk may be a copy of one that runs elsewhere; what it says is used when that is ruled out.

        The row is written then: a life that ended before has ruled out nothing for the next one.
        """
        self._look_at = now
        self._confirmation.start(now, moved=moved)
        self.holdings.tell(now)

    def block(self, place: int) -> IPv4Network:
        return self.holdings.block(place)

    @property
    def reason(self) -> str:
        """Why there is no block yet, or none more."""
        return self.holdings.reason

    def foreign(self, address: IPv4Address) -> bool:
        """Whether it certainly lies in no block of this node, as far as those who decide say."""
        size = self.network.max_prefixlen - self._local.block_length
        place = (int(address) - int(self.network.network_address)) >> size
        # A round that is under way may be about to say that it is ours.
        return self._confirmation.inventoried and place not in self.holdings.busy and place not in self.own

    @property
    def exhausted(self) -> bool:
        """Nobody can get a block: each one of the range has a holder."""
        return len(self._mesh.owners().keys() | self.own.keys() | set(self._registry.held)) >= self.places

    @property
    def announced(self) -> tuple[Announced, ...]:
        """What is ours and not on its way back."""
        return self.holdings.announced

    # --- what is due -------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> float:
        return min(self._look_at, self._confirmation.deadline)

    def decided(self, now: float) -> None:
        """It is known who decides, or others do now."""
        self._look_at = now
        self._confirmation.doubt(now)

    def wake(self, now: float) -> None:
        """Something is needed soon: an address is waited for, or the electors changed."""
        self._look_at = min(self._look_at, now)

    def tick(self, now: float) -> None:
        if not self._registry.cluster:
            self.holdings.reason = "this node belongs to no cluster yet"
            self._look_at = now + bounds.IPAM_SECONDS
            self._confirmation.postpone(now)
            return
        self._confirmation.tick(now)
        if now >= self._look_at:
            self._look_at = now + self._local.jitter(bounds.IPAM_SECONDS, bounds.RETRY_JITTER)
            self._look(now)

    def _look(self, now: float) -> None:
        for place, own in list(self.own.items()):
            if own.state == CLOSING and place not in self.holdings.busy | self._stopping:
                self._hand_back(place, now)
        if self.leaving or self.holdings.busy:
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
            self.holdings.reason = f"this node has {len(usable)} blocks, the most that one may have"
            return False
        return not usable or (all(own.verified for own in usable) and self._addresses.free(now) < self.spare)

    # --- a block more ------------------------------------------------------------------------------------------------
    def _claim(self, now: float) -> None:
        if not self._registry.settled:
            self.holdings.reason = self._registry.hindrance or "it hears first which blocks others hold"
            return
        place, was_held = self._candidate(now)
        if place is None:
            return
        self.holdings.busy.add(place)
        name = Name(BLOCK, place)
        fresh = False

        def ours(_: Name, value: Value) -> Value:
            nonlocal fresh
            fresh = value.holder == value.version == 0 and not was_held
            return value if value.holder else Value(value.version + 1, self._local.id)

        def claimed(outcome: Outcome, now: float) -> None:
            self.holdings.busy.discard(place)
            value = outcome.value(name)
            if value is None:
                self.holdings.reason = outcome.reason
                self._look_at = now + self._refused_pause()
                return
            self._refused = 0
            if value.holder == self._local.id:
                self._outbid = 0
                self.holdings.gain(place, value.version, now, rested=fresh)
            else:
                self._taken[place] = value.version
                self._outbid += 1
            self.wake(now + self._pause())

        self._registry.change([name], ours, claimed, now)

    def _refused_pause(self) -> float:
        if not self._registry.lapses:
            return bounds.IPAM_SECONDS
        self._refused += 1
        longest = min(2.0 ** min(self._refused - 1, 9), bounds.REFUSED_MOST_SECONDS)
        return self._local.jitter(longest * bounds.IPAM_SECONDS, bounds.RETRY_JITTER)

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
            self.holdings.reason = f"no block of {self.network} is free{why}"
        return place, was_held

    # --- back --------------------------------------------------------------------------------------------------------
    def _give_up_surplus(self, now: float) -> None:
        """A block that nobody has used for a quarter of an hour, while the others are enough."""
        empty = [place for place, own in self.own.items() if own.state == HELD and self.holdings.idle(place)]
        if not empty or self._addresses.free(now) - self.block(0).num_addresses < 2 * self.spare:
            self._surplus = None
        elif self._surplus is None or self._surplus[0] != empty[-1]:
            self._surplus = empty[-1], now
        elif now - self._surplus[1] >= bounds.SURPLUS_SECONDS:
            self.give_back(empty[-1], now)
            self._surplus = None

    def give_back(self, place: int, now: float) -> None:
        own = self.own[place]
        self._addresses.close(self.block(place))
        self.holdings.put(place, own._replace(state=CLOSING))
        self._stopping.add(place)

        def stopped(now: float) -> None:
            self._stopping.discard(place)
            self.holdings.tell(now)
            self.wake(now)

        self._journal.then(stopped)

    def _hand_back(self, place: int, now: float) -> None:
        if not self.holdings.idle(place):
            return
        self.holdings.busy.add(place)
        name, version = Name(BLOCK, place), self.own[place].version

        def free(_: Name, value: Value) -> Value:
            mine = (value.holder, value.version) == (self._local.id, version)
            return Value(version + 1, 0) if mine else value

        def freed(outcome: Outcome, now: float) -> None:
            self.holdings.busy.discard(place)
            if outcome.items is not None and place in self.own:
                self.holdings.forget(place)

        self._registry.change([name], free, freed, now)
