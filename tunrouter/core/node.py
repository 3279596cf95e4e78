"""The node: what the data plane reports and the operator asks goes in with the time, effects and one deadline out.

Law: every public method is one step. It takes `now` (CLOCK_MONOTONIC seconds), changes the tables and returns what is
to be done, in order; between steps nothing happens, except that `deadline` passes. Nothing that a peer or stranger can
send raises here: it is counted under a name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from ipaddress import IPv4Network
from typing import Final

from tunrouter.core import asking, bounds, dial, record, seam, wire
from tunrouter.core.allocator import Allocator
from tunrouter.core.borders import Borders
from tunrouter.core.contacts import Contacts
from tunrouter.core.dial import Opened
from tunrouter.core.echoes import Echoes
from tunrouter.core.electorate import Founding
from tunrouter.core.halfopen import HalfOpenTable
from tunrouter.core.hops import Hops
from tunrouter.core.journal import Row
from tunrouter.core.keys import KeyRing
from tunrouter.core.leases import News
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.mtus import Mtus
from tunrouter.core.neighbours import Neighbours
from tunrouter.core.outbox import Effect, Outbox, Said
from tunrouter.core.peers import Peers
from tunrouter.core.record import Read
from tunrouter.core.requests import Request
from tunrouter.core.routes import Announced, Routes
from tunrouter.core.session import Session
from tunrouter.core.states import Event, State
from tunrouter.core.tally import Tally
from tunrouter.core.timetable import NEVER, Timetable
from tunrouter.errors import ProtocolError

HINT_SECONDS: Final = 60.0
"""How long endpoints of an earlier life are tried."""
STARVED_SECONDS: Final = 0.5
"""A look at the clock that comes later than this after its deadline accuses nobody."""


class Node:
    def __init__(
        self,
        local: Local,
        network: IPv4Network,
        read: Read = record.read,
        *,
        static: bool = True,
        kubernetes: bool = False,
        founding: Founding | None = None,
    ) -> None:
        """`static`: `local` has the blocks that the operator gave; otherwise registers do, with `kubernetes` Leases.

        `founding` is what operators said to those who found a cluster. `read` is for simulations: many nodes in one
        process need not read and check the same record each.
        """
        self.local = local
        self.routes = Routes(network, local.blocks, local.id)
        self.worker_counters: dict[str, int] = {}
        self.tally = Tally()
        self._out = Outbox()
        self.mesh = Mesh(local, self.routes, self._out, self._say, read)
        self.hops = Hops(self.mesh.topology, self._out)
        self.peers = Peers(local, self.mesh, self.hops, self._out, self._fire, self._gone)
        self.sessions, self.dials, self.targets = self.peers.sessions, self.peers.dials, self.peers.targets
        self.half_open = HalfOpenTable(
            local, self._out, self.peers.stale, self.dials.on_reflected, self.peers.unconfirmed
        )
        self.allocator = Allocator(
            local, self.mesh, self._out, self._tell, network, self._own,
            static=static, kubernetes=kubernetes, founding=founding,
        )  # fmt: skip
        foreign = self.allocator.registry.foreign
        self.borders = Borders(local, self.mesh, foreign, self.dials, self.half_open, self._out)
        self.neighbours = Neighbours(local, self.sessions, self.mesh, self.peers.wanted, self.dials, foreign)
        self._mtus = Mtus(self.routes, local.pod_mtu, self._out)
        self._stopping = False
        self._contacts = Contacts(self._out)
        self._echoes = Echoes(self._out)
        self._maimed: set[int] = set()
        """Half-open sessions of which lanes were lost."""
        self.deadline = NEVER
        """When `on_timer` is due, in seconds."""
        self._timetable = Timetable()
        self._touched: set[int] = set()
        """Sessions that this step changed."""
        self._rearranged = True
        """A session or target came, went or moved in this step."""

    # --- what the operator asks --------------------------------------------------------------------------------------
    def start(
        self, hints: tuple[seam.Endpoint, ...], now: float, rows: Iterable[Row] = (), *, moved: Row | None = None
    ) -> list[Effect]:
        """The first step; `hints` are endpoints that an earlier life remembered, `rows` is what its disk kept.

        `moved`: the machine was booted since, or it is another one; the row that says so from when that is ruled out.
        """
        self.mesh.start(now)
        self.allocator.restore(rows, now)
        self.allocator.start(now, moved=moved)
        for endpoint in hints[: bounds.MAX_TARGETS]:
            self.dials.start(endpoint, now, seconds=HINT_SECONDS)
        self._contacts.remembered = hints
        self._rearranged = True
        return self._step(now)

    def connect(self, name: str, endpoint: seam.Endpoint | None, reason: str, now: float) -> list[Effect]:
        """Adds a target, or says where an old one is now; without endpoint `reason` says why its name has none."""
        if name not in self.targets and self.targets.full:
            self._out.count("targets_full")
        else:
            self._touched |= self.targets.put(name, endpoint, reason, now)
        self._rearranged = True
        return self._step(now)

    def forget(self, name: str, now: float) -> list[Effect]:
        """Removes a target; a session that stands goes on until nobody uses it."""
        self._touched |= self.targets.remove(name, now)
        return self._step(now)

    def tell(self, node: int, body: wire.AgentBody, now: float) -> list[Effect]:
        """Says it to a peer's agent, which may not hear it; where no session stands one is opened, as for a packet."""
        self._tell(node, body, now)
        return self._step(now)

    def ping(self, node: int, ticket: int, now: float) -> list[Effect]:
        """A heartbeat for who waits for its `Echo`; where no session stands one is opened, and nothing else is sent."""
        session = self.sessions.get(node)
        if session is not None and session.current is not None:
            self._echoes.send(session, ticket, now)
        else:
            self._on_wanted(node, now)
        return self._step(now)

    def _tell(self, node: int, body: wire.AgentBody | asking.RegisterBody, now: float) -> None:
        session = self.sessions.get(node)
        if session is not None and session.current is not None:
            session.say(body)
        else:
            self._on_wanted(node, now)

    def own(self, blocks: tuple[Announced, ...], now: float) -> list[Effect]:
        """The operator gives these blocks now; for nodes whose blocks no register decides about."""
        self.mesh.own(blocks)
        return self._step(now)

    def ask(self, request: Request, now: float) -> list[Effect]:
        """About addresses and blocks; answered with an `Answer` of its ticket, in this step or a later one."""
        self.allocator.ask(request, now)
        return self._step(now)

    def hear_api(self, news: Iterable[News], now: float) -> list[Effect]:
        """What the cluster's API says of Leases and Nodes, or that it does not answer."""
        for one in news:
            self.allocator.hear_api(one, now)
        return self._step(now)

    def on_durable(self, number: int, now: float) -> list[Effect]:
        """All that `Persist` effects up to this number asked for is on disk."""
        self.allocator.committed(number, now)
        return self._step(now)

    def _own(self, blocks: tuple[Announced, ...], now: float) -> None:
        self.mesh.own(blocks)

    def use_secrets(self, ring: KeyRing, now: float) -> list[Effect]:
        self.local.use_secrets(ring)
        return self._step(now)

    def readdressed(self, endpoints: tuple[seam.Endpoint, ...], now: float) -> list[Effect]:
        """Packets leave this host in another way than before; `endpoints` are those that it knows of itself now.

        Peers hear it at once: who follows us to where we are must have heard something from there.
        """
        fresh = endpoints != self.local.endpoints
        self.mesh.readdressed(endpoints, now)
        for session in self.sessions.values():
            session.on_readdressed(now, fresh=fresh)
        self.dials.hasten({dial.endpoint for dial in self.dials.all()}, now)
        self._touched.update(self.sessions)
        return self._step(now)

    def stop(self, now: float) -> list[Effect]:
        """The last step: tells the peers, and lets none of them in again."""
        self._stopping = True
        for session in self.sessions.values():
            session.say(wire.Close("shutdown"))
        return self._step(now)

    def depart(self, now: float) -> list[Effect]:
        """The last step of a node that is expected back: the peers are told only if nobody comes in its place."""
        self._stopping = True
        for session in self.sessions.values():
            session.bequeath(wire.Close("shutdown"))
        return self._step(now)

    # --- what the data plane reports ---------------------------------------------------------------------------------
    def on_messages(self, messages: Iterable[seam.ToControl], now: float) -> list[Effect]:
        """What the data plane said since the last step, in its order."""
        self._look(now)
        for message in messages:
            self._on_message(message, now)
        return self._step(now)

    def _on_message(self, message: seam.ToControl, now: float) -> None:
        match message:
            case seam.Raw():
                self._on_raw(message, now)
            case seam.Control():
                self._on_control(message, now)
            case seam.Wanted(node):
                self._on_wanted(node, now)
            case seam.Moved(base, endpoint):
                if session := self._session_of(base):
                    session.on_moved(base, endpoint, now)
                    self._rearranged = True
            case seam.Used() | seam.Retired():
                self._on_totals(message, now)
            case seam.TooBig(base, size):
                if session := self._session_of(base):
                    session.mtu.refused(size + session.outer_bytes, now)
            case seam.HopWanted(target):
                self.hops.lead(target)
            case seam.Counters(values):
                self.worker_counters = values

    def _on_totals(self, message: seam.Used | seam.Retired, now: float) -> None:
        """So much has passed on keys that are known, or on some that are gone."""
        gone = self.peers.by_base.last(message.session) if isinstance(message, seam.Retired) else None
        session = gone[0] if gone is not None else self._session_of(message.session)
        if session is None:
            return
        before = session.traffic()
        if isinstance(message, seam.Used):
            session.on_used(message, now)
        elif gone is not None:
            session.slots.settle(gone[1], message)
        self.tally.passed(session.node, before, session.traffic())

    def on_lanes_lost(self, maimed: Collection[int], now: float) -> list[Effect]:
        """Lanes of these sessions are with nobody, perhaps all that they had: their keys are renewed at once."""
        self._maimed = {base for base in maimed if base in self.half_open}
        for base in maimed:
            if session := self._session_of(base):
                session.on_lanes_lost(base, now)
        return self._step(now)

    def on_timer(self, now: float) -> list[Effect]:
        """What is due at `now`; call it no later than `deadline`."""
        self._look(now)
        return self._step(now)

    def _look(self, now: float) -> None:
        """At the clock: who comes much too late was held up itself, and starts counting anew."""
        if now - self.deadline > STARVED_SECONDS:
            self._out.count("starved")
            for session in self.sessions.values():
                session.live.forgive(now)
            self._touched.update(self.sessions)

    # --- one step ----------------------------------------------------------------------------------------------------
    def _step(self, now: float) -> list[Effect]:
        self.half_open.tick(now)
        self._keep_addresses(now)
        self._touched.update(self._timetable.due(now))
        if now >= self.neighbours.deadline:
            self._touched |= self.neighbours.look(now)
        for node in list(self._touched):
            self._tick(self.sessions[node], now)
        if self._rearranged:
            self._touched |= self.targets.hold(now)
        if unanswered := self.dials.tick(now):
            self._on_no_answer(set(unanswered), now)
        self._share(now)
        if self._rearranged:
            self._contacts.publish(self.sessions.values(), self.targets)
        self._mtus.publish([self.sessions[node] for node in self._touched])
        for node in self._touched:
            self._timetable.set(node, self.sessions[node].deadline)
        self._touched.clear()
        self._rearranged = False
        parts = (self.dials, self.half_open, self.mesh, self.neighbours, self.hops, self.allocator)
        self.deadline = min(self._timetable.next, *(part.deadline for part in parts))
        return self._out.take()

    def _keep_addresses(self, now: float) -> None:
        for node, body in self.mesh.clusters.items():
            self.allocator.on_cluster(node, body, now)
            session = self.sessions.get(node)
            if session is not None and self.borders.closes(session):
                self._fire(session, Event.FAREWELL, now)
        self.mesh.clusters.clear()
        if self.routes.against_own:
            self.allocator.ipam.doubt(now)
        self.allocator.tick(now)
        self.allocator.finish(now)

    def _share(self, now: float) -> None:
        doubts = False
        if self._rearranged:
            standing = self.neighbours.standing()
            self.mesh.link({s.node: s.live.rtt for s in standing}, now, self.neighbours.missed)
            self.tally.tell_apart(session.node for session in standing)
            doubts = self.mesh.topology.trust({s.node for s in standing if s.state is not State.SUSPECT})
        self.mesh.tick(now)
        self.hops.refresh(now, urgent=doubts)
        for node in self.mesh.changed & self.sessions.keys():
            self.peers.locate(self.sessions[node])
            self._touched.add(node)
        self.mesh.changed.clear()

    def _tick(self, session: Session, now: float) -> None:
        before = session.state
        session.tick(now)
        self._rearranged |= session.state is not before
        if session.forgettable(now):
            self.peers.forget(session)

    def _session_of(self, base: int) -> Session | None:
        """The session whose keys are known under `base`, which this step is going to change."""
        session = self.peers.by_base.get(base)
        if session is not None:
            self._touched.add(session.node)
        return session

    def _on_no_answer(self, endpoints: set[seam.Endpoint], now: float) -> None:
        for session in self.sessions.values():
            if session.state is not State.OPENING:
                continue
            where = session.candidates | {seam.relayed(session.node)}
            if not endpoints.isdisjoint(where) and not any(self.dials.get(other) for other in where):
                self._fire(session, Event.GAVE_UP, now)

    def _on_raw(self, message: seam.Raw, now: float) -> None:
        datagram = message.datagram
        kind = datagram[0] if len(datagram) >= wire.HEADER_BYTES else 0
        if origin := seam.relay_target(message.source):
            self.hops.lead(origin)  # for what is answered
        if kind == wire.FIRST and not self._stopping:
            self.half_open.on_first(message.source, datagram, now)
        elif kind == wire.ANSWER:
            self._on_answer(datagram, now)
        elif kind == wire.REJECT:
            self.dials.on_reject(message.source, datagram)
        elif kind != wire.FIRST:
            self._out.count("handshake_malformed")

    def _on_answer(self, datagram: bytes, now: float) -> None:
        opened = self.dials.on_answer(datagram, now)
        if opened is not None:
            self._out.put(opened.install(now, sealed=self.local.sealed))
            self._adopt(opened, now)

    def _on_carried(self, session: Session, base: int, datagram: bytes, now: float) -> None:
        kind = datagram[0] if len(datagram) >= wire.HEADER_BYTES else 0
        if kind == wire.FIRST and session.handshakes.empty(now):
            self._out.count("carried_over_budget")
        elif kind == wire.FIRST and session.endpoint is not None and not self._stopping:
            session.handshakes.take(now)
            reply = partial(self._reply_inside, session, base)
            self.half_open.on_carried(session.endpoint, datagram, reply, now)
        elif kind == wire.ANSWER:
            self._on_answer(datagram, now)
        else:
            self._out.count("handshake_malformed")

    def _reply_inside(self, session: Session, base: int, answer: bytes) -> None:
        session.say(wire.Carried(answer), base=base)

    def _on_control(self, message: seam.Control, now: float) -> None:
        try:
            body = wire.decode_control(message.body)
        except ProtocolError as error:
            self._out.count("control_malformed")
            where = dial.text(message.source)
            said = f"control message of {where}: {error}"
            self._out.log("warning", "control", said, address=where, reason=str(error))
            return
        if body is None:
            self._out.count("control_unknown")
            return
        if message.session in self.half_open:
            if isinstance(body, wire.Confirm):
                opened = self.half_open.confirm(message.session, message.source, body, now)
                if opened is not None:
                    self._adopt(opened, now)
            else:
                self._out.count("control_before_identity")
            return
        session = self._session_of(message.session)
        if session is not None:
            if isinstance(body, wire.GossipBody):
                self.tally.heard(len(message.body))
            by_relay = seam.relay_target(message.source) != 0
            if isinstance(body, wire.Pong):
                self._echoes.on_pong(session.node, body.id, now, relayed=by_relay or body.relayed)
            in_use = session.on_spoken(message.session, body, now, by_relay=by_relay)
            # What came on another path tells no round trip and no size of this one, and no handshake proves it.
            if in_use or not isinstance(body, wire.Pong | wire.Carried):
                self._obey(session, message.session, body, by_relay=by_relay, now=now)
            elif isinstance(body, wire.Pong):
                session.live.loss.excuse(body.id)

    def _obey(self, session: Session, base: int, body: wire.ControlBody, *, by_relay: bool, now: float) -> None:
        match body:
            case wire.Ping(ping_id, keep):
                self._rearranged |= keep != session.peer_keeps
                session.peer_keeps = keep
                (session.say if by_relay else session.say_directly)(wire.Pong(ping_id, by_relay), base=base)
            case wire.Pong(ping_id):
                session.on_pong(ping_id, now)
            case wire.Confirm():
                session.say(wire.Pong(0, by_relay), base=base)
            case wire.Carried(datagram):
                self._on_carried(session, base, datagram, now)
            case wire.Records() | wire.Sums() | wire.Have() | wire.Outlived():
                self.mesh.hear(session.node, body, now)
            case wire.Spare():
                self.neighbours.spare(session, now)
                self._rearranged = True
            case asking.RegisterAsk() | asking.RegisterTell():
                self.allocator.hear(session.node, body, now)
            case wire.BenchAsk() | wire.BenchAnswer() | wire.LeasesAsk() | wire.LeasesAnswer():
                self._out.put(Said(session.node, body))
            case wire.Close(reason) if session.current is not None and session.current.base == base:
                session.live.loss.excuse_all()
                session.reason = "".join(c for c in reason[: bounds.MAX_NAME_BYTES] if c.isprintable())
                self._fire(session, Event.FAREWELL, now)

    def _on_wanted(self, node: int, now: float) -> None:
        session = self.peers.wanted(node, now)
        if session is None:
            self._out.count("wanted_unknown")
        else:
            session.last_payload = now
            self._fire(session, Event.WANTED, now)

    def _fire(self, session: Session, event: Event, now: float) -> None:
        before = session.state
        session.fire(event, now)
        self._touched.add(session.node)
        self._rearranged |= session.state is not before

    def _gone(self, node: int) -> None:
        """Its session is forgotten."""
        self._mtus.forget(node)
        self._timetable.set(node, NEVER)
        self._touched.discard(node)

    # --- peers -------------------------------------------------------------------------------------------------------
    def _adopt(self, opened: Opened, now: float) -> None:
        if reason := self.mesh.foreign(opened.introduction):
            self.borders.turn_away(opened, reason, now)
            return
        session = self.peers.of(opened.node, now)
        if session is None or not self.peers.make_room(session, len(opened.lanes), now):
            self._out.put(seam.Retire(opened.base))
            self.local.indices.release(opened.base, now)
            return
        self.mesh.introduce(opened.node, opened.introduction, now)
        fresh = session.state is not State.ESTABLISHED
        session.chosen |= opened.initiator and opened.node in self.neighbours.sought
        session.adopt(opened, now)
        if opened.base in self._maimed:
            self._maimed.remove(opened.base)
            session.on_lanes_lost(opened.base, now)
        if opened.initiator:
            self.targets.bind(opened.endpoint, opened.node)
        self._touched.add(opened.node)
        self._rearranged = True
        self.peers.evict(opened, session, now)
        if fresh:
            session.established()

    def name_of(self, node: int) -> str:
        return self.mesh.name_of(node)

    def _say(self, node: int, body: wire.ControlBody) -> None:
        if session := self.sessions.get(node):
            self.tally.said(session.say(body))

    @property
    def counters(self) -> dict[str, int]:
        return self.worker_counters | self._out.counters
