"""Who the electors are: found once, learnt from others, and changed one epoch after the other.

    founders see each other ──> a majority of them names the first electors ──> epoch 1
    an elector sees more nodes, or misses one ──> the next ones are chosen ──> survey ──> push ──> the next epoch
    an elector says in its record which epoch it serves ──> everybody asks those from now on

Law: of two configurations of one cluster the later epoch counts. A node belongs to one cluster for ever: another id is
another cluster, whose nodes are strangers. What is chosen is never undone, so whoever finds an epoch frozen may finish
what somebody else began.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set
from typing import Final

from tunrouter.core import asking, bounds, electorate, status
from tunrouter.core.consensus import Change, Done, Electorate, Outcome, Proposer, same
from tunrouter.core.elector import SERVES, Booth
from tunrouter.core.electorate import Configuration, Elector, Founding
from tunrouter.core.inventory import Found, Inventory
from tunrouter.core.journal import ClusterRow, Journal, RegisterRow
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Outbox
from tunrouter.core.questions import Questions
from tunrouter.core.record import ClusterBody
from tunrouter.core.registers import ELECTORS, Item, Name, Value
from tunrouter.core.transition import Push, Survey, Values

NEVER: Final = float("inf")
DISK: Final = "disk"
CONFIGURATION: Final = "configuration"
"""Names of the rows that say whose disk this is, and which electors were known last."""
AMNESIA: Final = "amnesia"
"""Name of the row that a disk has which came in the place of a lost one."""
LEAST_PAUSE: Final = 0.25

Tell = Callable[[int, asking.RegisterBody, float], None]
"""Says it to another node, with which a session is opened if there is none."""


class Electors:
    lapses = False

    """`founding` is None for a node that joins what it hears of."""

    def __init__(
        self, local: Local, mesh: Mesh, journal: Journal, out: Outbox, tell: Tell, founding: Founding | None
    ) -> None:
        self.configuration: Configuration | None = None
        self.proposer = Proposer(local, self._say, self._electorate)
        self.questions = Questions(local, self._say)
        self.learned: Callable[[float], None] = lambda now: None
        """Is told when the electors are known, or are others."""
        self.foreign: dict[int, int] = {}
        """Nodes of other clusters, with the cluster's id."""
        self._local = local
        self._mesh = mesh
        self._journal = journal
        self._out = out
        self._tell = tell
        self._founding = founding
        self.booth = Booth(Elector(local.id, local.random_id()), journal, out, self._began)
        self._look_at = 0.0
        self._busy = False
        """Founding, or on the way to the next epoch."""
        self._since: dict[str, tuple[object, float]] = {}
        self._pushing: set[int] = set()
        self._named: frozenset[int] = frozenset()
        """Those that the electors are to be now."""
        self._by_hand = False
        self.founded_here = False
        self._removed: tuple[tuple[int, int], ...] = ()

    def restore(self, clusters: Iterable[ClusterRow], registers: Iterable[RegisterRow]) -> None:
        known = {row.name: row.data for row in clusters}
        if DISK in known:
            self.booth.own = Elector(self._local.id, int.from_bytes(known[DISK], "big"))
        if CONFIGURATION in known:
            self.configuration = electorate.decode(known[CONFIGURATION])
        if SERVES in known:
            self.booth.serves = electorate.decode(known[SERVES])
            self.booth.registers.restore(registers, self.booth.serves.epoch)
        elif self.configuration is None:
            self.booth.registers.restore(registers, 0)

    def start(self, now: float) -> None:
        self._journal.put(ClusterRow(DISK, self.booth.own.disk.to_bytes(8, "big")))
        if self.configuration is None:
            self.booth.founding = self._founding
        self._look_at = now
        self._journal.then(self._announce)

    @property
    def cluster(self) -> int:
        """0 while there is none."""
        return self.configuration.cluster if self.configuration is not None else 0

    @property
    def electors(self) -> frozenset[int]:
        return self.configuration.nodes if self.configuration is not None else frozenset()

    # --- as those see it who claim and hand back (registry.py) -------------------------------------------------------
    settled = True
    held: Collection[int] = ()

    @property
    def within_reach(self) -> bool:
        """A majority of the electors is there."""
        known = self.configuration
        return known is not None and len(known.nodes & (self._mesh.here | {self._local.id})) >= known.quorum

    @property
    def hindrance(self) -> str:
        return self.proposer.hindrance

    def bequeathed(self) -> tuple[Name, ...]:
        """A node's identity is its disk's: what another one had is rmpeer's business."""
        return ()

    def left_at(self, place: int) -> float | None:
        """A register says itself whether it ever had a holder, and does not vanish."""
        return None

    def change(self, names: Iterable[Name], change: Change, done: Done, now: float) -> None:
        self.proposer.change(names, change, done, now)

    def read(self, names: Iterable[Name], done: Done, now: float) -> None:
        self.proposer.read(names, done, now)

    # --- who they are ------------------------------------------------------------------------------------------------
    def others(self) -> list[int]:
        """Other nodes of this cluster that can be reached."""
        return [node for node in sorted(self._mesh.here) if self._body(node).cluster == self.cluster != 0]

    @property
    def serving(self) -> bool:
        """This node is one of those who decide."""
        return self.booth.serves is not None and self.booth.serves == self.configuration

    @property
    def begun(self) -> bool:
        """A majority of the electors say that they serve: what the epoch before held is not needed any more."""
        known = self.configuration
        if known is None:
            return False
        serving = sum(self._body(node).configuration == known for node in known.nodes - {self._local.id})
        return serving + self.serving >= known.quorum

    # --- what others say ---------------------------------------------------------------------------------------------
    def hear(self, node: int, body: asking.RegisterBody, now: float) -> None:
        if isinstance(body, asking.RegisterTell):
            (self.proposer if body.id < asking.FIRST_QUESTION else self.questions).hear(node, body, now)
        else:
            self.booth.hear(node, body, lambda tell: self._tell(node, tell, now), now)

    def _say(self, node: int, ask: asking.RegisterAsk, now: float) -> None:
        if node == self._local.id:
            # Answered at the end of the step at the earliest: see `Booth.hear`.
            self.booth.hear(node, ask, lambda tell: self.hear(node, tell, now), now)
        else:
            self._tell(node, ask, now)

    def on_cluster(self, node: int, body: ClusterBody, now: float) -> None:
        """What a node's record says."""
        if self.cluster and body.cluster and body.cluster != self.cluster:
            self.foreign[node] = body.cluster
            return
        self.foreign.pop(node, None)
        heard = body.configuration
        if heard is not None and heard.cluster == body.cluster and node in heard.nodes and self._believed(node, heard):
            self.learn(heard, now)

    def _believed(self, node: int, heard: Configuration) -> bool:
        """An elector that we know says it, or a majority of the new ones do: a single stranger cannot."""
        known = self.configuration
        if known is None or node in known.nodes:
            return True
        return sum(self._body(other).configuration == heard for other in heard.nodes) >= heard.quorum

    def _body(self, node: int) -> ClusterBody:
        return self._mesh.cluster(node) or ClusterBody(0, 0, 0, None)

    def learn(self, heard: Configuration, now: float) -> None:
        known = self.configuration
        if known is not None and (heard.cluster != known.cluster or heard.epoch <= known.epoch):
            return
        if known is None:
            self._out.log("info", "cluster", f"this node belongs to the cluster {heard.cluster:016x}")
            self.booth.founding = None
        self.configuration = heard
        self._journal.put(ClusterRow(CONFIGURATION, electorate.encode(heard)))
        self._journal.forget(ClusterRow(AMNESIA, b"").key)
        self._journal.then(self._announce)
        self._look_at = now
        self.learned(now)

    def _began(self, configuration: Configuration, now: float) -> None:
        self.learn(configuration, now)
        self._look_at = now
        self._journal.then(self._announce)

    def _announce(self, now: float) -> None:
        founding = self.booth.founding
        mine = self.booth.serves if self.serving else None
        founds = founding.id if founding is not None else 0
        self._mesh.say_cluster(ClusterBody(self.cluster, self.booth.own.disk, founds, mine, self._removed))

    def say_removed(self, removed: tuple[tuple[int, int], ...]) -> None:
        """These nodes, in these incarnations, have nothing any more."""
        self._removed = removed
        self._journal.then(self._announce)

    def find(self, holder: int, done: Found, now: float) -> None:
        """The registers that `holder` has, as far as a majority knows of any; None if there is no majority."""
        if self.configuration is None:
            done(None, now)
        else:
            Inventory(self.configuration, holder, self.questions, done).begin(now)

    # --- who decides -------------------------------------------------------------------------------------------------
    def _electorate(self) -> Electorate | None:
        # A frozen epoch is settled by those who froze it, also when a later one has been heard of.
        configuration = self.configuration
        if configuration is not None:
            return Electorate(configuration.cluster, configuration.epoch, configuration.nodes, configuration.quorum)
        founding = self.booth.founding
        if founding is None:
            return None
        founders = self._founders(founding)
        return Electorate(founding.id, 0, founders, founding.quorum) if len(founders) >= founding.quorum else None

    def founders(self) -> frozenset[int]:
        """Those that found a cluster together with this node, as far as they are here."""
        return self._founders(self.booth.founding) if self.booth.founding is not None else frozenset()

    def _founders(self, founding: Founding) -> frozenset[int]:
        """All that were told the same and belong to no cluster."""
        nodes = {node for node in self._mesh.nodes if self._body(node).founding == founding.id}
        nodes = {node for node in nodes if not self._body(node).cluster} | {self._local.id}
        if founding.seed:
            nodes = {node for node in nodes if self._is_named(node, founding.seed)}
        return frozenset(nodes)

    def _is_named(self, node: int, names: tuple[str, ...]) -> bool:
        return not {self._mesh.name_of(node), status.peer_name(node), f"{node:016x}"}.isdisjoint(names)

    # --- what is due -------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> float:
        return min(self._look_at, self.proposer.deadline, self.questions.deadline)

    def tick(self, now: float) -> None:
        self.proposer.tick(now)
        self.questions.tick(now)
        if now >= self._look_at:
            self._look_at = now + self._local.jitter(self._pause(), bounds.RETRY_JITTER)
            self._look(now)

    def _pause(self) -> float:
        if self.configuration is None:
            return LEAST_PAUSE if self.booth.founding is not None else NEVER
        if self._named:
            return bounds.ELECTORS_SECONDS
        return bounds.ELECTORS_SECONDS if self.booth.serves is not None else NEVER

    def _lasts(self, what: str, state: object, now: float) -> float:
        """For how many seconds it has been the same."""
        before, since = self._since.get(what, (None, now))
        if before != state:
            since = now
        self._since[what] = state, since
        return now - since

    def _look(self, now: float) -> None:
        if self._busy:
            return
        if self.configuration is None:
            self._found(now)
        elif self._named:
            electors = tuple(map(self._elector, sorted(self._named)))
            self._replace(self.configuration, electors, now, by_hand=self._by_hand)
        elif self.booth.serves is not None:
            self._look_after(self.configuration, self.booth.serves, now)

    # --- founding ----------------------------------------------------------------------------------------------------
    def _found(self, now: float) -> None:
        founding = self.booth.founding
        if founding is None:
            return
        founders = self._founders(founding)
        waited = self._lasts("founders", len(founders) >= founding.quorum, now)
        if len(founders) < founding.quorum:
            return
        rank = sorted(founders).index(self._local.id) if self._local.id in founders else len(founders)
        patience = 0.0 if len(founders) >= founding.size else bounds.FOUNDING_SECONDS
        if waited >= patience + 2 * rank * bounds.ELECTORS_SECONDS:
            electors = self._first_electors(founders)
            first = Configuration(self._local.random_id(), 1, electors)
            self._busy = True
            self.proposer.change([Name(ELECTORS, 0)], _once(first), self._founded, now)

    def _first_electors(self, founders: frozenset[int]) -> tuple[Elector, ...]:
        size = electorate.largest_size(len(founders))
        return tuple(self._elector(node) for node in sorted(founders)[:size])

    def _elector(self, node: int) -> Elector:
        return self.booth.own if node == self._local.id else Elector(node, self._body(node).disk)

    def _founded(self, outcome: Outcome, now: float) -> None:
        self._busy = False
        value = outcome.value(Name(ELECTORS, 0))
        if value is None or self.configuration is not None:
            return
        first = electorate.decode(value.data)
        self.founded_here = self._local.id == min(first.nodes)
        if self.booth.own in first.electors:
            self.booth.serve(first, ())
        self.learn(first, now)
        self._push_all(first, (), now)

    # --- the next epoch ----------------------------------------------------------------------------------------------
    def _look_after(self, known: Configuration, serves: Configuration, now: float) -> None:
        if self.booth.own not in known.electors:
            if self._lasts("retired", (known, self.begun), now) >= bounds.RESIGN_SECONDS and self.begun:
                self.booth.resign()
        elif serves != known:
            self._lasts("retired", None, now)
        elif self.booth.registers.frozen:
            frozen = self._lasts("frozen", known.epoch, now)
            if frozen >= bounds.TAKE_OVER_SECONDS * (1 + sorted(known.nodes).index(self._local.id)):
                self._busy = True
                self.proposer.change([Name(ELECTORS, known.epoch)], same, self._next_chosen, now)
        else:
            self._lead(known, now)

    def _lead(self, known: Configuration, now: float) -> None:
        here = self._mesh.here | {self._local.id}
        others = [node for node in sorted(known.nodes & here) if node != self._local.id]
        lacking = [node for node in others if self._body(node).configuration != known]
        if any(node < self._local.id for node in others if node not in lacking):
            return  # that one leads
        lacking = [node for node in lacking if node not in self._pushing and self._elector(node) in known.electors]
        if lacking and self._lasts("lacking", tuple(lacking), now) >= bounds.GROW_SECONDS:
            self._push(known, tuple(self.booth.registers.held()), lacking, now)
            return
        wanted = self._wanted(known, here, now)
        settled = self._lasts("wanted", wanted, now) >= bounds.GROW_SECONDS
        if wanted != known.electors and settled and len(known.nodes & here) >= known.quorum:
            self._replace(known, wanted, now, by_hand=False)

    def _wanted(self, known: Configuration, here: Set[int], now: float) -> tuple[Elector, ...]:
        """Those that are there, then others of this cluster, as many as the nodes can give; never fewer than now."""
        if known.by_hand:
            return known.electors
        stays = [elector for elector in known.electors if not self._lost(elector, here, now)]
        ours = [node for node in sorted(here) if node == self._local.id or self._body(node).cluster == known.cluster]
        size = max(electorate.largest_size(len(ours)), len(known.electors))
        others = [self._elector(node) for node in ours if node not in {elector.node for elector in stays}]
        chosen = (stays + others)[:size]
        if len(chosen) < size:
            return known.electors
        return tuple(sorted(chosen))

    def _lost(self, elector: Elector, here: Set[int], now: float) -> bool:
        there = elector.node in here
        away = self._lasts(f"elector {elector.node}", there, now)
        if there:
            return self._elector(elector.node) != elector
        return away >= bounds.ELECTOR_LOST_SECONDS or not self._mesh.knows(elector.node)

    def _replace(self, known: Configuration, electors: tuple[Elector, ...], now: float, *, by_hand: bool) -> None:
        following = Configuration(known.cluster, known.epoch + 1, electors, by_hand)
        self._busy = True
        self.proposer.change([Name(ELECTORS, known.epoch)], _once(following), self._next_chosen, now)

    def _next_chosen(self, outcome: Outcome, now: float) -> None:
        known = self.configuration
        self._busy = False
        if known is None or outcome.items is None:
            return
        item = outcome.items.get(Name(ELECTORS, known.epoch))
        if item is None or not item.value.version:
            return
        self._busy = True
        following = electorate.decode(item.value.data)

        def surveyed(values: Values | None, now: float) -> None:
            self._busy = False
            if values is not None:
                self._push_all(following, values, now)

        Survey(known, Item(item.name, item.ballot, item.value), self.questions, self.proposer, surveyed).begin(now)

    def _push_all(self, following: Configuration, values: Values, now: float) -> None:
        self._push(following, values, sorted(following.nodes), now)

    def _push(self, following: Configuration, values: Values, nodes: Iterable[int], now: float) -> None:
        served: set[int] = set()

        def pushed(node: int, serves: bool, now: float) -> None:
            self._pushing.discard(node)
            if serves:
                served.add(node)
                if len(served) >= following.quorum:
                    self._named = frozenset()
                    self.learn(following, now)

        for node in nodes:
            self._pushing.add(node)
            push = Push(node, following, values, self.questions, lambda ok, at, node=node: pushed(node, ok, at))  # type: ignore[misc]
            push.begin(now)

    # --- by hand -----------------------------------------------------------------------------------------------------
    def name(self, nodes: frozenset[int], now: float, *, by_hand: bool = True) -> str:
        """The electors are to be these; why they cannot be, or nothing. `by_hand`: they stay so until named again."""
        if len(nodes) not in electorate.SIZES:
            return "name 1, 3 or 5 nodes"
        if self.configuration is None:
            return "this node belongs to no cluster yet"
        strange = [node for node in nodes if node != self._local.id and self._body(node).cluster != self.cluster]
        if strange:
            return f"{self._mesh.name_of(strange[0])} does not belong to this cluster"
        self._named, self._by_hand = nodes, by_hand
        self._look_at = now
        return ""


def _once(configuration: Configuration) -> Callable[[Name, Value], Value]:
    """The first one is for ever."""
    data = electorate.encode(configuration)
    return lambda name, value: value if value.version else Value(1, 0, data)
