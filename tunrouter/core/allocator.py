"""All about addresses at one node: the door through which node.py asks for them, and what goes on behind it.

    allocate ──> addresses.py ──> the journal ──> on disk ──> Answer
                     │ none free: it waits ──> ipam.py gets a block ──> served in the order of asking

Law: an answer is given once for each ticket, and not before it is on disk. Who waits for an address gets it or, in
time, the reason why there is none; so many may wait at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from itertools import takewhile
from typing import Final, NamedTuple

from tunrouter.core import asking, bounds
from tunrouter.core.addresses import Addresses, Reason, Refused
from tunrouter.core.clones import Clones
from tunrouter.core.electorate import Founding
from tunrouter.core.electors import Electors, Tell
from tunrouter.core.ipam import Ipam
from tunrouter.core.journal import BlockRow, ClusterRow, Journal, LeaseRow, RegisterRow, Row
from tunrouter.core.leases import Leases, News
from tunrouter.core.leave import Leaving
from tunrouter.core.local import Local
from tunrouter.core.members import Members
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Answer, Fenced, Outbox, Refusal
from tunrouter.core.pool import Lease
from tunrouter.core.reclaim import Reclaim, Removed
from tunrouter.core.record import ClusterBody
from tunrouter.core.requests import Allocate, Claim, Leave, Release, Remove, Request, SetElectors
from tunrouter.core.routes import Announced

NEVER: Final = float("inf")
SEE: Final = "see: kubectl get leases -n weave-net-blocks"


class Waiting(NamedTuple):
    request: Allocate
    until: float


class Allocator:
    """`static`: the operator gave `local.blocks`, and there are no registers; `kubernetes`: they are Leases.

    `own` is told which blocks are ours.
    """

    def __init__(
        self,
        local: Local,
        mesh: Mesh,
        out: Outbox,
        tell: Tell,
        network: IPv4Network,
        own: Callable[[tuple[Announced, ...], float], None],
        *,
        static: bool,
        kubernetes: bool = False,
        founding: Founding | None = None,
    ) -> None:
        self.static = static
        self.journal = Journal()
        self.addresses = Addresses(self.journal)
        self.leases = Leases(local, mesh, self.journal, out) if kubernetes else None
        self._electors = Electors(local, mesh, self.journal, out, tell, founding) if not kubernetes else None
        registry: Leases | Electors = self.leases if self.leases is not None else self.electors
        self.registry = registry
        self.ipam = Ipam(local, mesh, registry, self.addresses, self.journal, out, network, own)
        holdings = self.ipam.holdings
        holdings.gained, holdings.lost = self._on_gained, self._on_lost
        registry.learned = self.ipam.decided
        self.members: Members | None = None
        if self.leases is not None:
            self.leases.doubted, mesh.allows = self.ipam.doubt, self.leases.allows
            self.members = Members(local, mesh, self.leases, out)
        self.clones = Clones(local, mesh, self.journal, out)
        self.reclaim = Reclaim(local, mesh, registry, out)
        self._local = local
        self._out = out
        self._waiting: dict[int, Waiting] = {}
        """In the order of asking, and so in that of their deadlines."""
        self._served = 0
        """What `Addresses.changes` was when all of them were tried last."""
        self._leaving: Leaving | None = None
        self._expected: dict[IPv4Address, Claim] = {}
        """Addresses that are in use here, though their block is not ours, or not known to be.

        None may be forgotten, or it would be given away with its block; they are what this kernel has ports for.
        """
        self._lost: set[IPv4Address] = set()
        """Those of them that are certainly another node's, or nobody's."""
        self._fenced: tuple[IPv4Address, ...] = ()

    @property
    def electors(self) -> Electors:
        """Where not the cluster's API decides."""
        assert self._electors is not None
        return self._electors

    # --- a life begins -----------------------------------------------------------------------------------------------
    def restore(self, rows: Iterable[Row], now: float) -> None:
        """What the disk has kept of earlier lives; before `start`."""
        kept = list(rows)
        self.addresses.restore([row for row in kept if isinstance(row, LeaseRow)], now)
        if not self.static:
            clusters = [row for row in kept if isinstance(row, ClusterRow)]
            if self.leases is not None:
                self.leases.restore(clusters)
            else:
                self.electors.restore(clusters, [row for row in kept if isinstance(row, RegisterRow)])
            self.ipam.restore([row for row in kept if isinstance(row, BlockRow)], now)

    def start(self, now: float, *, moved: Row | None = None) -> None:
        """`moved`: the machine was booted since the last life, so the disk may be a copy (`Ipam.start`)."""
        self.clones.start(now)
        if self.static:
            for block in self._local.blocks:
                self.addresses.add_block(block.block, now, rested=True)
        else:
            self.registry.start(now)
            self.ipam.start(now, moved=moved)

    # --- what the operator and containers ask ------------------------------------------------------------------------
    def ask(self, request: Request, now: float) -> None:
        match request:
            case Allocate():
                self._allocate(request, now)
            case Release():
                self._release(request, now)
            case Claim():
                self._claim(request, now)
            case _ if self.static:
                what = "this node's block was given by its operator (--block): there are no registers"
                self._answer(request.ticket, Refusal(what, "give the block to another node, or leave --block out"))
            case Remove():
                self._remove(request, now)
            case Leave():
                self._leave(request, now)
            case SetElectors(ticket, nodes):
                self._set_electors(ticket, frozenset(nodes), now)

    def _set_electors(self, ticket: int, nodes: frozenset[int], now: float) -> None:
        if self._electors is None:
            self._answer(ticket, Refusal("the Kubernetes API decides about blocks here: there are no electors", SEE))
            return
        why = self.electors.name(nodes, now)
        self._answer(ticket, Refusal(why, "see: tunrouter electors") if why else tuple(sorted(nodes)))

    def _allocate(self, request: Allocate, now: float) -> None:
        found = self._try(request, now)
        passing = isinstance(found, Refused) and found.reason in (Reason.FULL, Reason.CLOSED)
        if passing and len(self._waiting) < bounds.MAX_PENDING:
            self._waiting[request.ticket] = Waiting(request, now + bounds.ALLOCATE_SECONDS)
            self.ipam.wake(now)
        elif isinstance(found, Refused):
            self._answer(request.ticket, self._refusal(found))
        else:
            self._give(request, found)

    def _try(self, request: Allocate, now: float) -> IPv4Address | Refused:
        return self.addresses.allocate(request.container, request.interface, now, request.wanted, request.pod)

    def refusal(self, address: IPv4Address) -> Refusal | None:
        """Why nobody gets exactly this one at present."""
        refused = self.addresses.refusal(address)
        return self._refusal(refused) if refused is not None else None

    def _refusal(self, refused: Refused) -> Refusal:
        what = refused.reason.value
        if refused.address is not None:
            what = f"{refused.address}: {what}"
        if refused.holder is not None:
            what = f"{what} ({refused.holder.container})"
        if refused.reason is Reason.FULL:
            why = self.ipam.reason or self.registry.hindrance or what
            return Refusal(f"no address is free: {why}", "see: tunrouter status ipam")
        if refused.reason is Reason.ELSEWHERE:
            blocks = ", ".join(map(str, self.addresses.blocks))
            wait = "wait until this node has a block: see tunrouter status"
            return Refusal(what, f"choose one of {blocks}, or none" if blocks else wait)
        if refused.reason is Reason.RESTING:
            return Refusal(what, "wait a minute, or choose another address, or none")
        return Refusal(what, "choose another address, or none")

    def _answer(self, ticket: int, result: object) -> None:
        self._once_durable(lambda: self._out.put(Answer(ticket, result)))

    def _give(self, request: Allocate, address: IPv4Address) -> None:
        """Unless it is released by then: the node may be leaving, or nobody wants it any more."""

        def give() -> None:
            held = self.addresses.held_by(request.container, request.interface) == address
            late = Refusal("released before it could be used", "attach it again")
            self._out.put(Answer(request.ticket, address if held else late))

        self._once_durable(give)

    def _once_durable(self, action: Callable[[], None]) -> None:
        self.journal.then(lambda _: action())

    def _release(self, request: Release, now: float) -> None:
        """Who has nothing is released of nothing; who waits for an address does not any more."""
        ticket, container, interface = request
        for waiting, (asked, _) in list(self._waiting.items()):
            if asked.container == container and interface in (None, asked.interface):
                del self._waiting[waiting]
                self._answer(waiting, Refusal("released before there was an address", "attach it again"))
        for address, claim in list(self._expected.items()):
            if claim.container == container and interface in (None, claim.interface):
                del self._expected[address]
        self._answer(ticket, self.addresses.release(container, interface, now))

    def _claim(self, request: Claim, now: float) -> None:
        ticket, container, interface, address = request
        refused = self.addresses.claim(container, interface, address, now)
        if isinstance(refused, Refused):
            why = refused.reason.value
            self._out.log("warning", f"claim {address}", f"{container} uses {address}: {why}", reason=why)
            if refused.reason is Reason.ELSEWHERE:
                self._expected[address] = request
        self._answer(ticket, not isinstance(refused, Refused))

    def _on_lost(self, leases: tuple[Lease, ...]) -> None:
        for address, container, interface, _ in leases:
            self._expected[address] = Claim(0, container, interface, address)
            self._lost.add(address)

    def _fence(self) -> None:
        """What is in use here and certainly not ours is cut off, in this life and the next, until it is released."""
        if self.static:
            return
        self._lost.update(address for address in self._expected if self.ipam.foreign(address))
        self._lost &= self._expected.keys()
        fenced = tuple(sorted(self._lost))
        if fenced != self._fenced:
            self._fenced = fenced
            self._out.put(Fenced(fenced))

    def _on_gained(self, block: IPv4Network, now: float) -> None:
        for address in [address for address in self._expected if address in block]:
            _, container, interface, _ = self._expected.pop(address)
            self.addresses.claim(container, interface, address, now)

    def _remove(self, request: Remove, now: float) -> None:
        """One after the other; the first that is refused ends it."""
        left, done = list(request.nodes), list[Removed]()

        def one(result: Removed | Refusal, now: float) -> None:
            if isinstance(result, Refusal):
                self._answer(request.ticket, result)
            else:
                done.append(result)
                following(now)

        def following(now: float) -> None:
            if left:
                self.reclaim.remove(left.pop(0), one, now, force=request.force, dry_run=request.dry_run)
            else:
                self._answer(request.ticket, tuple(done))

        following(now)

    def _leave(self, request: Leave, now: float) -> None:
        if self._leaving is not None:
            self._answer(request.ticket, Refusal("this node is leaving already", "wait for it"))
            return
        self._leaving = Leaving(self._local, self._electors, self.ipam, self.addresses, self.journal)
        self._leaving.begin(lambda result: self._left(request.ticket, result), now, force=request.force)

    def _left(self, ticket: int, result: object) -> None:
        self._leaving = None
        self._answer(ticket, result)

    # --- what the disk and others say --------------------------------------------------------------------------------
    def committed(self, number: int, now: float) -> None:
        self.journal.committed(number, now)

    def hear(self, node: int, body: asking.RegisterBody, now: float) -> None:
        if not self.static and self._electors is not None:
            self.electors.hear(node, body, now)

    def hear_api(self, news: News, now: float) -> None:
        """The cluster's API says so, or does not answer."""
        if self.leases is not None and self.members is not None:
            self.leases.hear(news, now)
            self.members.wake(now)

    def on_cluster(self, node: int, body: ClusterBody, now: float) -> None:
        if self.static:
            return
        self.registry.on_cluster(node, body, now)
        for removed, incarnation in body.removed:
            self.reclaim.hear(removed, incarnation, now)
        self.ipam.wake(now)

    # --- what is due -------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> float:
        times = [next((waiting.until for waiting in self._waiting.values()), NEVER), self.addresses.deadline]
        if not self.static:
            times += [self.registry.deadline, self.ipam.deadline]
        if self.members is not None:
            times.append(self.members.deadline)
        if self._leaving is not None:
            times.append(self._leaving.deadline)
        return min(times)

    def tick(self, now: float) -> None:
        if not self.static:
            self.registry.tick(now)
            self.ipam.tick(now)
        if self.members is not None:
            self.members.tick(now)
        if self._leaving is not None:
            self._leaving.tick(now)
        self.clones.tick(now)
        self.addresses.wake(now)

    def finish(self, now: float) -> None:
        """The last thing of a step: what it changed goes to the disk, and what waited for that may happen."""
        self.journal.run(now)
        self._serve(now)
        self._fence()
        persist = self.journal.take()
        if persist is not None:
            self._out.put(persist)

    def _serve(self, now: float) -> None:
        """Those that wait, in the order of asking. Where there is none for one, there is for who had one before.

        Who was refused is refused again while nothing changes or all is closed, so that in most steps only those are
        tried whose time is over.
        """
        every = self.addresses.changes != self._served and self.addresses.open_blocks
        if every:
            self._served = self.addresses.changes
        full = False
        for ticket, waiting in list(self._waiting.items()) if every else self._due(now):
            request = waiting.request
            hopeless = full and request.wanted is None and not self._remembers(request)
            if hopeless and now < waiting.until:
                continue
            found = self._try(request, now)
            if not isinstance(found, Refused):
                del self._waiting[ticket]
                self._give(request, found)
                continue
            full |= found.reason is Reason.FULL
            if now >= waiting.until:
                del self._waiting[ticket]
                self._answer(ticket, self._refusal(found))

    def _due(self, now: float) -> list[tuple[int, Waiting]]:
        return list(takewhile(lambda waits: waits[1].until <= now, self._waiting.items()))

    def _remembers(self, request: Allocate) -> bool:
        return self.addresses.remembers(request.container, request.interface, request.pod)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Addresses that wait until their block is ours, with who uses them."""
        return tuple(self._expected.values())

    @property
    def pending(self) -> tuple[Waiting, ...]:
        return tuple(self._waiting.values())
