"""Registers as objects of the cluster's API: one Lease a block, made in one request or refused, owned by its Node.

    no Lease ── create ──> ours           ours ── delete, if it is the same ──> no Lease
    the API's list and watch ──> what is known here ──> read, find
    a Lease that vanishes (its Node was deleted, the cluster collected it) ──> whoever needs it makes it anew

Law: the API server makes an object of one name once, whoever asks; that is the compare-and-set. A missing Lease is no
proof of its holder's death: blocks that were held lately, or that a live peer announces, are claimed last or not at
all. While the API is away nothing changes hands, and what the disk says goes on. A Lease is ownership: it is never
renewed. Its version is the API's own count of changes, so that it grows from one holder to the next. One that names
this node, but belongs to another Node that is there, is a copy's: it is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from tunrouter.core import bounds
from tunrouter.core.consensus import Change, Done, Outcome
from tunrouter.core.inventory import Found
from tunrouter.core.journal import ClusterRow, Journal
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import CreateLease, DeleteLease, Outbox, TakeLease
from tunrouter.core.record import ClusterBody
from tunrouter.core.registers import BLOCK, EMPTY, Item, Name, Value

NEVER: Final = float("inf")
CLUSTER: Final = "kubernetes"
NODE: Final = "node"
"""Names of the rows that say which cluster this node belongs to, and which Node object it had last."""
ANOTHER: Final = -1
"""Holder of a Lease that is somebody's, and nobody's that can be named."""


class Lease(NamedTuple):
    """One as the API has it."""

    place: int
    holder: int
    """Node id; 0 if it is nobody's that we understand."""
    version: int
    """Grows with every change in the API: what is heard late is known by it, too."""
    uid: str
    """Of the object."""
    owner: str
    """UID of the Node object that owns it."""


# --- what is heard of the API ----------------------------------------------------------------------------------------
class Synced(NamedTuple):
    """All Leases that there are; from now on changes are told."""

    cluster: int
    """Its id."""
    leases: tuple[Lease, ...]
    version: int
    """Of the list; what is newer may be missing in it."""


class Made(NamedTuple):
    """One is there, or is another one than before."""

    lease: Lease


class Gone(NamedTuple):
    place: int
    uid: str
    """Of the object that was there."""


class Away(NamedTuple):
    """The API does not answer, for this reason."""

    why: str


class Members(NamedTuple):
    """The Node objects that there are, and ours; by their UIDs."""

    own: str
    """Empty while this node has no Node object."""
    all: frozenset[str]
    served: frozenset[str] = frozenset()
    """Those that say that this network is, or was, there."""


class Cut(NamedTuple):
    """There are Leases of blocks that lie in our range and are cut otherwise; empty if there are none."""

    name: str


class Settled(NamedTuple):
    """What became of the `CreateLease` or `DeleteLease` of that number."""

    number: int
    lease: Lease | None
    """What is there now."""
    why: str = ""
    """Not known: it failed for this reason."""


News = Synced | Made | Gone | Away | Members | Cut | Settled


class Reading(NamedTuple):
    """A look that waits until the API has told what there is."""

    names: tuple[Name, ...]
    done: Done
    until: float


class Pending(NamedTuple):
    """A change under way."""

    done: Done
    until: float
    wanted: dict[int, tuple[Name, Value]]
    """By the number of the request, what the register becomes if it succeeds."""
    items: dict[Name, Item]
    """What is decided of it."""


class Leases:
    founded_here = False
    lapses = True

    def __init__(self, local: Local, mesh: Mesh, journal: Journal, out: Outbox) -> None:
        self.cluster = 0
        self.foreign: dict[int, int] = {}
        """Nodes of other clusters, with the cluster's id."""
        self.learned: Callable[[float], None] = lambda now: None
        self.doubted: Callable[[float], None] = lambda now: None
        """Is told that Leases of this node came, changed or went."""
        self.members: frozenset[str] | None = None
        """UIDs of the Node objects, as far as they are known."""
        self.why = ""
        """Why the API is away; empty if it is not, or not known to be."""
        self._local = local
        self._mesh = mesh
        self._journal = journal
        self._out = out
        self._leases: dict[int, Lease] = {}
        self._left: dict[int, float] = {}
        """Places that had a holder, with when it lost them."""
        self._served: frozenset[str] = frozenset()
        self._synced = False
        self._absent = True
        """This node has no Node object; its last one's UID stands for it with others."""
        self._cut = ""
        """A Lease of a block that is cut otherwise than ours."""
        self._settle_at = NEVER
        self._heard = False
        """A peer is, or was, there to say what it holds."""
        self._pending: list[Pending] = []
        self._readings: list[Reading] = []
        self._number = 0
        self._removed: tuple[tuple[int, int], ...] = ()

    # --- a life begins -----------------------------------------------------------------------------------------------
    def restore(self, rows: Iterable[ClusterRow]) -> None:
        for row in rows:
            if row.name == CLUSTER:
                self.cluster = int.from_bytes(row.data, "big")
            elif row.name == NODE:
                self._local.uid = row.data.decode()

    def start(self, now: float) -> None:
        self._settle_at = now + bounds.LONELY_SECONDS
        self._heard = False  # who was here before the start is noticed now, else he would be waited for
        if self.cluster:
            self._journal.then(self._announce)

    def _announce(self, now: float) -> None:
        self._mesh.say_cluster(ClusterBody(self.cluster, 0, 0, None, self._removed))

    def say_removed(self, removed: tuple[tuple[int, int], ...]) -> None:
        self._removed = removed
        self._journal.then(self._announce)

    def on_cluster(self, node: int, body: ClusterBody, now: float) -> None:
        if self.cluster and body.cluster not in (0, self.cluster):
            self.foreign[node] = body.cluster
        else:
            self.foreign.pop(node, None)

    # --- what is known -----------------------------------------------------------------------------------------------
    @property
    def within_reach(self) -> bool:
        return self._synced and not self.why

    @property
    def settled(self) -> bool:
        """Peers have said what they hold: a Lease that vanished under them must not be taken meanwhile."""
        others = self._served - {self._local.uid}
        new = not others and not self._leases and not self._left
        alone = self.members is not None and (new or self.members <= {self._local.uid})
        known = self._synced and not self._absent and not self._cut
        return known and (alone or self._settle_at == NEVER)

    @property
    def hindrance(self) -> str:
        if self.why:
            return f"the Kubernetes API does not answer: {self.why}"
        if not self._synced:
            return "the Kubernetes API has not answered yet"
        if self._absent:
            return f"there is no Node object {self._local.name!r} in the cluster that is this machine's"
        if self._cut:
            return f"there is a block {self._cut}, of another length: start with the --block-size of the other nodes"
        return ""

    @property
    def held(self) -> Collection[int]:
        return self._leases.keys()

    def left_at(self, place: int) -> float | None:
        return self._left.get(place)

    def left(self, place: int, since: float) -> None:
        """Its holder is known to have lost it then."""
        self._left.setdefault(place, since)

    def abandoned(self, members: frozenset[str]) -> dict[str, int]:
        """Places by their Leases' UIDs: neither owner nor holder is there, nor is it ours."""
        here = self._mesh.here
        return {
            lease.uid: place
            for place, lease in self._leases.items()
            if lease.owner not in members and lease.holder not in here and lease.holder != self._local.id
        }

    def collect(self, place: int, uid: str) -> None:
        """Deletes that Lease, if it still is the one."""
        self._number += 1
        self._out.put(DeleteLease(self._number, place, uid))

    # --- what the API says -------------------------------------------------------------------------------------------
    def hear(self, news: News, now: float) -> None:
        match news:
            case Synced():
                self._on_synced(news, now)
            case Made(lease):
                self._learn(lease, now)
            case Gone(place, uid):
                if (known := self._leases.get(place)) is not None and known.uid == uid:
                    self._put(place, None, now)
            case Away(why):
                self.why = why
                self._look(now)
            case Members():
                self._on_members(news, now)
            case Cut(name):
                self._cut = name
                self.learned(now)
            case Settled():
                self._on_settled(news, now)

    def _on_synced(self, news: Synced, now: float) -> None:
        cluster = news.cluster
        if self.cluster not in (0, cluster):
            self._out.log("error", "cluster", "the API is another cluster's than before")
        if self.cluster != cluster:
            self.cluster = cluster
            self._journal.put(ClusterRow(CLUSTER, cluster.to_bytes(8, "big")))
            self._journal.then(self._announce)
        self.why, self._synced = "", True
        there = {lease.place: lease for lease in news.leases[: bounds.MAX_BLOCKS]}
        for place, known in list(self._leases.items()):
            if place not in there and known.version <= news.version:
                self._put(place, None, now)
        for lease in there.values():
            self._learn(lease, now)
        self._look(now)

    def _look(self, now: float) -> None:
        """Those that waited for the API need not any more."""
        readings, self._readings = self._readings, []
        for reading in readings:
            self.read(reading.names, reading.done, now)
        self.learned(now)

    def _learn(self, lease: Lease, now: float) -> None:
        """An answer of ours may be newer than what a watch tells after it."""
        known = self._leases.get(lease.place)
        if known is None or known.uid == lease.uid or known.version <= lease.version:
            self._put(lease.place, lease, now)

    def _put(self, place: int, lease: Lease | None, now: float) -> None:
        before = self._leases.get(place)
        if lease is not None:
            self._leases[place] = lease
            self._left.pop(place, None)
        elif before is not None:
            del self._leases[place]
            self._left[place] = now
        if before == lease:
            return
        if self._ours(before) or self._ours(lease):
            self.doubted(now)
        self._mesh.reconsider(place, {one.holder for one in (before, lease) if one is not None})

    def _on_members(self, news: Members, now: float) -> None:
        own = news.own
        self.members, self._served, self._absent = news.all, news.served, not own
        if own not in ("", self._local.uid):
            self._local.uid = own
            self._journal.put(ClusterRow(NODE, own.encode()))
            self._mesh.say_node(now)
        self.learned(now)

    def _ours(self, lease: Lease | None) -> bool:
        if lease is None or lease.holder not in (self._local.id, 0):
            return False
        if lease.owner == self._local.uid:
            return True  # also where somebody has taken our name off
        return lease.holder != 0 and lease.owner not in (self.members or ())

    def _value(self, place: int) -> Value:
        lease = self._leases.get(place)
        if lease is None:
            return EMPTY
        if self._ours(lease):
            return Value(lease.version, self._local.id, lease.uid.encode())
        foreign = lease.holder in (0, self._local.id)
        return Value(lease.version, ANOTHER if foreign else lease.holder, lease.uid.encode())

    def allows(self, node: int, place: int, version: int) -> bool:
        """Whether another node may have that block, as far as is known here: no Lease names somebody else.

        While the API is away somebody else may have heard later of it.
        """
        lease = self._leases.get(place)
        if lease is None or lease.holder in (0, node):
            return True
        return not self.within_reach and version > lease.version

    # --- what is asked -----------------------------------------------------------------------------------------------
    def read(self, names: Iterable[Name], done: Done, now: float) -> None:
        if self.within_reach:
            done(Outcome({name: Item(name, value=self._value(name.number)) for name in names}), now)
        elif self.why:
            done(Outcome(None, self.hindrance), now)
        else:  # at a start the answer is a moment away
            self._readings.append(Reading(tuple(names), done, now + bounds.API_PATIENCE_SECONDS))

    def find(self, holder: int, done: Found, now: float) -> None:
        if not self.within_reach or self._absent:
            done(None, now)
            return
        ours = holder == self._local.id
        found = [p for p, one in self._leases.items() if (self._ours(one) if ours else one.holder == holder)]
        done(tuple(Name(BLOCK, place) for place in sorted(found)), now)

    def bequeathed(self) -> tuple[Name, ...]:
        """What belongs to our Node object, and to a node that had it before with another disk and is not there."""
        mine, here = self._local.uid, self._mesh.here | {self._local.id}
        found = [p for p, one in self._leases.items() if one.owner == mine and one.holder not in here]
        return tuple(Name(BLOCK, place) for place in sorted(found)) if self.settled else ()

    def change(self, names: Iterable[Name], change: Change, done: Done, now: float) -> None:
        if not self.within_reach or self._absent:
            done(Outcome(None, self.hindrance), now)
            return
        pending = Pending(done, now + bounds.CHANGE_SECONDS, {}, {})
        for name in names:
            before = self._value(name.number)
            after = change(name, before)
            if after == before:
                pending.items[name] = Item(name, value=before)
                continue
            self._number += 1
            pending.wanted[self._number] = name, after
            self._out.put(_request(self._number, name.number, before, after))
        self._pending.append(pending)
        self._finish(pending, now)

    def _on_settled(self, news: Settled, now: float) -> None:
        for pending in list(self._pending):
            if news.number not in pending.wanted:
                continue
            name, after = pending.wanted.pop(news.number)
            if news.why:
                self._pending.remove(pending)
                pending.done(Outcome(None, news.why), now)
                return
            if news.lease is not None:
                self._learn(news.lease, now)
            else:
                self._put(name.number, None, now)
            pending.items[name] = Item(name, value=self._value(name.number) if news.lease is not None else after)
            self._finish(pending, now)
            return

    def _finish(self, pending: Pending, now: float) -> None:
        if not pending.wanted:
            self._pending.remove(pending)
            pending.done(Outcome(pending.items), now)

    # --- what is due -------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> float:
        readings, pending = self._readings, self._pending
        untils = [one.until for one in readings] + [one.until for one in pending]
        return min(self._settle_at, *untils, NEVER)

    def tick(self, now: float) -> None:
        if not self._heard and self._mesh.here:
            self._heard = True
            self._settle_at = min(self._settle_at, now + bounds.SETTLE_SECONDS)
        if self._settle_at != NEVER and now >= self._settle_at:
            self._settle_at = NEVER
            self.learned(now)
        late = [one.done for one in self._readings if now >= one.until]
        late += [one.done for one in self._pending if now >= one.until]
        self._readings = [one for one in self._readings if now < one.until]
        self._pending = [one for one in self._pending if now < one.until]
        for done in late:
            done(Outcome(None, self.hindrance or "the Kubernetes API is slow"), now)


def _request(number: int, place: int, before: Value, after: Value) -> CreateLease | TakeLease | DeleteLease:
    """From nobody to us, from another to us, or to nobody."""
    if not after.holder:
        return DeleteLease(number, place, before.data.decode())
    return TakeLease(number, place, before.data.decode()) if before.holder else CreateLease(number, place)
