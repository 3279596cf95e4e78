"""One peer: whether it is there, the keys in use with it, and when the next thing is due.

Law: the table in states.py is the whole life of a session.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds, seam, status, wire
from tunrouter.core.admission import Budget
from tunrouter.core.detour import Detours
from tunrouter.core.dial import NO_ANSWER, Dials, Opened, text
from tunrouter.core.hops import Hops
from tunrouter.core.keyslot import FOREVER, Keys, Registry, Slots
from tunrouter.core.liveness import Liveness, Loss
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox
from tunrouter.core.pathmtu import PathMtu
from tunrouter.core.states import STANDING, TABLE, Event, State
from tunrouter.core.ways import Ways

RESPONDER_GRACE: Final = 10.0
"""How much later than the initiator the responder renews the keys, so that normally only one of them does."""
REOPEN_SECONDS: Final = 1.0
"""Pause before a peer that said goodbye is dialled again."""
GIVE_UP_SECONDS: Final = 90.0
BUSY_SECONDS: Final = 2.0
"""Payload as recent as this makes the path one whose black holes hurt; it is reported once a second."""


class Session:
    """Give it what arrived and the time; it puts what is to be done into the outbox."""

    def __init__(
        self,
        node: int,
        local: Local,
        dials: Dials,
        hops: Hops,
        outbox: Outbox,
        registry: Registry[Session],
        now: float,
    ) -> None:
        self.node = node
        self.state = State.CLOSED
        self.name = ""
        self.targeted = False
        """The operator named who is there."""
        self.spared = False
        """The peer asked to be spared all the same."""
        self.chosen = False
        """One of our neighbours by chance."""
        self.peer_keeps = False
        """The other side wants it to stay open, as `keep` says of ours."""
        self.published: tuple[seam.Endpoint, ...] = ()
        """Where the node says it can be reached."""
        self.incarnation = 0
        self.sequence = -1
        self.endpoint: seam.Endpoint | None = None
        """Where the newest authenticated datagram came from; by relay while there is no direct way."""
        self.home: seam.Endpoint | None = None
        """Where the last handshake succeeded. Dialled as well: who holds a datagram back can move `endpoint`."""
        self.outbound = False
        self.slots: Slots[Session] = Slots(node, local, outbox, registry)
        self.last_payload = now
        self.counted_at: float | None = None
        """When the data plane last said how much went through."""
        self.live = Liveness(now)
        self.ways = Ways()
        self.mtu = PathMtu(bounds.PATH_MTU_BASE, now)
        self.reason = ""
        self.reopen_at = now
        self.closed_at = now
        self._local = local
        self._dials = dials
        self._detours = Detours(node, hops, outbox)
        self._out = outbox
        self.handshakes = Budget(bounds.CARRIED_PER_SECOND, bounds.CARRIED_BURST)
        """Those that the peer may begin inside the one that stands."""

    @property
    def current(self) -> Keys | None:
        """The keys that are sealed with."""
        return self.slots.current

    @property
    def older(self) -> list[Keys]:
        return self.slots.older

    def traffic(self) -> tuple[int, int, int, int]:
        """Packets and bytes sent, packets and bytes received, since the peer is known."""
        return self.slots.traffic()

    @property
    def keep(self) -> bool:
        """We want it to stay open."""
        return self.chosen or (self.targeted and not self.spared)

    @property
    def relayed(self) -> bool:
        """It goes by relay."""
        return self.endpoint is not None and seam.relay_target(self.endpoint) != 0

    @property
    def backed_up(self) -> bool:
        """What is sealed goes both ways: what is said inside says nothing of the direct one."""
        return self._detours.backed != 0

    @property
    def candidates(self) -> set[seam.Endpoint]:
        """Where the node may be."""
        return {e for e in (self.endpoint, self.home, *self.published) if e is not None}

    # --- what happens to a session -----------------------------------------------------------------------------------
    def fire(self, event: Event, now: float) -> None:
        transition = TABLE.get((self.state, event))
        if transition is None:
            return
        before, (self.state, action) = self.state, transition
        getattr(self, f"_{action}")(now)
        if before in STANDING and self.state not in STANDING:
            self._out.count("sessions_ended")
        if before is not self.state and Event.ADOPTED is not event:
            key = f"session {self.node} {self.state.value}"
            self._say(key, f"{self.state.value}, {event.value}", event.value)

    def adopt(self, opened: Opened, now: float) -> None:
        """A handshake with this peer came to its end and its identity is proved."""
        self._out.count("rekeys" if self.state in STANDING else "sessions_opened")
        keys = Keys(opened, now)
        self._out.put(seam.Deliver(keys.base))
        reborn = opened.incarnation > self.incarnation
        if reborn:
            self.incarnation, self.sequence = opened.incarnation, -1
        self.sequence = max(self.sequence, opened.sequence)
        self.name = opened.introduction.name
        if reborn or not opened.initiator:  # an answer does not say it: who answers does not know yet who asks
            self.peer_keeps = opened.introduction.keep
        if self.slots.take(self, keys, opened, now, reborn=reborn):
            self._promote(opened, now)
        if keys.confirm:
            self._confirm(keys, now)
        else:
            self._ping(now)
        self.fire(Event.ADOPTED, now)
        self._use(keys, now)
        self.slots.trim(now)

    def _promote(self, opened: Opened, now: float) -> None:
        if self.state in (State.CLOSED, State.OPENING):
            self.last_payload = now  # somebody wants it: its idle time starts here
        before = self.endpoint
        self.endpoint, self.outbound = opened.endpoint, opened.initiator
        if not self.relayed:
            self.home = opened.endpoint
            self._detours.proved()
        elif not seam.relay_target(before or opened.endpoint):
            self._detours.begin(now)
        # On a path that is known a handshake tells nothing new: its round trip may hold copies that were lost.
        known = self.live.rtt if before == self.endpoint else None
        self.live.opened(now, opened.rtt if known is None else known)
        self.mtu_need(now, fresh=before != self.endpoint)

    def _use(self, keys: Keys, now: float) -> None:
        """Seal with new keys once the peer is known to have them, or at once where there is nothing better."""
        if keys is not self.current:
            return
        older = any(k.made + bounds.REJECT_SECONDS > now for k in self.older)
        if keys.heard or not older or now - self.live.heard_at > bounds.SUSPECT_SECONDS:
            self._out.put(seam.Use(self.node, keys.base))

    def mtu_need(self, now: float, *, fresh: bool) -> None:
        assert self.endpoint is not None
        need = self._local.pod_mtu + wire.OVERHEAD + self.outer_bytes
        if fresh or need != self.mtu.need:
            # The underlay is as large as the pods' MTU says: a relay over IPv6 does not begin with more.
            self.mtu = PathMtu(need, now, self._local.pod_mtu + wire.POD_MARGIN)
        if fresh:
            self.live.loss = Loss()

    @property
    def inner_mtu(self) -> int:
        """The largest inner packet for this peer, in bytes; never more than pods send."""
        return min(self._local.pod_mtu, self.mtu.size - self.outer_bytes - wire.OVERHEAD)

    @property
    def outer_bytes(self) -> int:
        """What its path adds to each datagram."""
        if self.endpoint is None:
            return wire.IP_UDP_BYTES[4]
        direct = [each for each in self.candidates if not seam.relay_target(each)]
        return wire.outer_bytes(self.endpoint, 6 if direct and all(":" in host for host, _ in direct) else 4)

    def on_heard(self, base: int, now: float) -> None:
        """Something authentic arrived on the keys under `base`, and on the path in use."""
        self.live.heard(now)
        self._on_keys_heard(base, now)
        if not self.live.deaf:
            self.fire(Event.HEARD, now)

    def _on_keys_heard(self, base: int, now: float) -> None:
        keys = self.slots.of(base)
        if keys is not None:
            keys.heard_at = now
            if not keys.heard:
                keys.heard, keys.confirm = True, b""
                if keys is self.current:
                    self._out.put(seam.Use(self.node, base))
            self.slots.follow(keys, now)

    def on_moved(self, base: int, endpoint: seam.Endpoint, now: float) -> None:
        """The data plane follows the newest datagram of each key; of keys that are set aside it says nothing new."""
        if self.current is None or self.current.base != base or endpoint == self.endpoint or self.relayed:
            return
        self._say(f"moved {self.node}", f"now at {text(endpoint)}")
        self.endpoint = endpoint
        self.mtu_need(now, fresh=True)

    def on_used(self, report: seam.Used, now: float) -> None:
        keys = self.slots.of(report.session)
        if keys is None:
            return
        if report.sent_packets > keys.sent_packets or report.received_packets > keys.received_packets:
            self.last_payload = now
        self.counted_at = now
        keys.sent_packets, keys.sent_bytes = report.sent_packets, report.sent_bytes
        keys.received_packets, keys.received_bytes = report.received_packets, report.received_bytes
        if keys is self.current and keys.sent_packets >= bounds.REKEY_MESSAGES:
            self.fire(Event.REKEY, now)
        self.live.sent(report.last_sent)
        if report.last_received > self.live.heard_at:
            self.on_heard(report.session, report.last_received)

    def on_spoken(self, base: int, body: wire.ControlBody, now: float, *, by_relay: bool) -> bool:
        """The peer's control said something on the keys under `base`; whether that speaks for the path in use."""
        self.live.spoke_at = now
        if isinstance(body, wire.Ping) and by_relay:
            self.ways.told(now, arrives=body.arrives)
        if isinstance(body, wire.Ping) and not body.hears:
            if not by_relay:
                self.ways.unanswered(now)
            if by_relay and not self.relayed and self.current is not None and base == self.current.base:
                self._detours.doubted(now)
                self._back_up(now)
            self.live.unheard(now)
            return by_relay == self.relayed
        if by_relay != self.relayed:
            self._on_keys_heard(base, now)
            return False
        strayed = isinstance(body, wire.Pong) and body.relayed != self.relayed
        if isinstance(body, wire.Ping | wire.Pong) and not strayed:
            self.live.heard_again()
            if not self.relayed:
                self.ways.cleared()
        self.on_heard(base, now)
        return not strayed

    def on_unconfirmed(self, now: float) -> None:
        """Handshakes that the peer began directly came to nothing, though we answered."""
        if self.state in STANDING and not self.relayed:
            return
        self.ways.unanswered(now)
        if self.relayed and self.current is not None and self.ways.tells(now):
            self.say(self.heartbeat(self.live.next_id(), now))

    def on_lanes_lost(self, base: int, now: float) -> None:
        """Lanes of the keys under `base` are with nobody any more: the keys are renewed at once."""
        keys = self.slots.of(base)
        if keys is None:
            return
        keys.maimed = True
        if keys is self.current:
            self.fire(Event.REKEY, now)
            self._dials.hasten({self.endpoint, self.home}, now)

    def on_readdressed(self, now: float, *, fresh: bool) -> None:
        """Packets leave this host in another way than before: the peer is told at once; `fresh`: by another card."""
        if self.current is None:
            return
        if self.relayed:
            self._detours.retry_at = now
        elif fresh:
            self.mtu_need(now, fresh=True)
        self._ping(now)

    def on_pong(self, ping_id: int, now: float) -> None:
        self.live.answered(ping_id, now)
        self.mtu.answered(ping_id, now)

    # --- what is due -------------------------------------------------------------------------------------------------
    def tick(self, now: float) -> None:
        if self.state is State.CLOSED and self.keep and now >= self.reopen_at:
            self.fire(Event.WANTED, now)
        self.slots.retire_old(now)
        for event in self._due(now):
            self.fire(event, now)
        self._back_up(now)
        if self.relayed and self.current is not None and self._detours.retries(now):
            self._dial_directly(now, bounds.HALF_OPEN_SECONDS)
        if self.current is not None:
            self._talk(self.current, now)

    def _back_up(self, now: float) -> None:
        """While the direct way is in doubt, at this end or the other, everything also goes by relay."""
        base = self.current.base if self.current is not None and not self.relayed else 0
        self._detours.back_up(base, self.slots.registered, now, suspect=self.state is State.SUSPECT)

    def _due(self, now: float) -> list[Event]:
        # Each comparison is the very sum that `deadline` gives out: another one could round to just before it.
        if self.current is None:
            return []
        silent_since = self.live.silent_since()
        dead = self.state is State.SUSPECT and now >= silent_since + bounds.DEAD_SECONDS
        due = (
            (
                Event.DETOUR,
                not self.relayed and self._detours.due(now, self.live.heard_at, self.live.spoke_at, dead=dead),
            ),
            (Event.EXPIRED, now >= self.current.made + bounds.REJECT_SECONDS),
            (Event.IDLE, now >= self._idle_at()),
            (Event.SILENT, now >= silent_since + bounds.SUSPECT_SECONDS),
            (Event.DEAD, now >= silent_since + bounds.DEAD_SECONDS),
            (Event.REKEY, now >= self._rekey_at(self.current)),
        )
        return [event for event, is_due in due if is_due]

    def _idle_at(self) -> float:
        return FOREVER if self.keep or self.peer_keeps else self.last_payload + bounds.IDLE_CLOSE_SECONDS

    def _rekey_at(self, keys: Keys) -> float:
        """When keys in use are renewed; those of a session that will be idle by then are not."""
        at = keys.made + bounds.REKEY_SECONDS + (0 if keys.ours else RESPONDER_GRACE)
        return at if at < self._idle_at() else FOREVER

    def _talk(self, keys: Keys, now: float) -> None:
        """Confirmations, heartbeats and path MTU probes that are due."""
        if keys.confirm and now >= keys.confirm_at:
            self._confirm(keys, now)
        if now >= self._heartbeat_at():
            self._ping(now)
        ping_id = self.live.next_id()
        # What is answered by relay, too, tells nothing of sizes on the direct way.
        rtt, answered_at = self.live.rtt or 0.0, -FOREVER if self.backed_up else self.live.answered_at
        busy = now - self.last_payload < BUSY_SECONDS
        size = self.mtu.probe(now, ping_id, rtt=rtt, answered_at=answered_at, busy=busy)
        if size is not None:
            self.live.probed(ping_id, now)
            self.say(self.heartbeat(ping_id, now), size - self.outer_bytes)
            if self.mtu.missed:
                self._ping(now)

    def _heartbeat_at(self) -> float:
        if self.state is State.SUSPECT:
            return self.live.pinged_at + bounds.PROBE_SECONDS
        if self.keep or self.peer_keeps or self.live.unanswered:
            return self.live.pinged_at + self.live.pause
        return self.live.pinged_at + bounds.KEEPALIVE_SECONDS

    @property
    def deadline(self) -> float:
        times = [self.slots.deadline]
        if self.state is State.CLOSED:
            times.append(self.reopen_at if self.keep else self.closed_at + bounds.FORGET_SECONDS)
        if self.current is not None:
            patience = bounds.DEAD_SECONDS if self.state is State.SUSPECT else bounds.SUSPECT_SECONDS
            times += [
                self._heartbeat_at(),
                self._detours.retry_at if self.relayed else self._detours.doubted_until,
                self.mtu.deadline,
                self.current.made + bounds.REJECT_SECONDS,
                self.current.confirm_at if self.current.confirm else FOREVER,
                self.live.silent_since() + patience,
                self._rekey_at(self.current) if self.state is State.ESTABLISHED else FOREVER,
                self._idle_at(),
            ]
        return min(times, default=FOREVER)

    def forgettable(self, now: float) -> bool:
        """Nobody wants it, and nothing was heard of the peer for a day."""
        return self.state is State.CLOSED and not self.keep and now >= self.closed_at + bounds.FORGET_SECONDS

    # --- actions of the table ----------------------------------------------------------------------------------------
    def _rest(self, now: float) -> None:
        self.closed_at = now
        self._dials.stop_for(self.node, self.candidates, now)

    def _renew(self, now: float) -> None:
        self.reason = ""
        self._rest(now)

    def _dial(self, now: float) -> None:
        seconds = FOREVER if self.targeted and self.keep else GIVE_UP_SECONDS
        self._dial_directly(now, seconds)
        # Keys are renewed on the path in use; who is sought is sought everywhere.
        if self.relayed or (self.state is State.OPENING and self._detours.possible):
            delay = bounds.RELAY_DELAY_SECONDS if self.candidates and not self.relayed else 0.0
            relay = seam.relayed(self.node)
            self._dials.start(relay, now, target=self.node, keep=self.keep, seconds=seconds, delay=delay)

    def _dial_directly(self, now: float, seconds: float) -> None:
        # A target is whoever answers there, so that a machine set up anew is found under its old address.
        known = {self.endpoint, self.home}
        for endpoint in sorted(self.candidates):
            if seam.relay_target(endpoint):
                continue
            target = 0 if self.targeted and endpoint in known else self.node
            self._dials.start(endpoint, now, target=target, keep=self.keep, seconds=seconds)

    def _detour(self, now: float) -> None:
        """The same keys, by relay."""
        assert self.current is not None
        self._rest(now)
        self.home, self.endpoint = self.endpoint, seam.relayed(self.node)
        self._detours.begin(now)
        self._out.put(seam.Move(self.current.base, self.endpoint))
        self._back_up(now)
        self.live.opened(now, self.live.rtt or 0.0)
        self.mtu_need(now, fresh=True)
        self._ping(now)

    def _reopen(self, now: float) -> None:
        self.reason = NO_ANSWER
        if self.relayed:
            self.endpoint = self.home
        self._drop(now)
        self._dial(now)

    def _leave(self, now: float) -> None:
        self.say(wire.Close("idle"))
        self._drop(now)

    def _drop(self, now: float) -> None:
        self.closed_at, self.reopen_at = now, now + self._local.jitter(REOPEN_SECONDS, bounds.RETRY_JITTER)
        self.slots.drop(now)

    # --- what is said ------------------------------------------------------------------------------------------------
    def say(self, body: wire.ControlBody, size: int = 0, base: int | None = None) -> int:
        """Seals a control body on the keys under `base`, normally those in use; its bytes, 0 without keys."""
        if base is None:
            if self.current is None:
                return 0
            base = self.current.base
        encoded = wire.encode_control(body)
        self._out.put(seam.SendControl(base, encoded, size))
        return len(encoded)

    def bequeath(self, body: wire.ControlBody) -> None:
        """To be said if this node goes and does not come back."""
        if self.current is not None:
            self._out.put(seam.Will(self.current.base, wire.encode_control(body)))

    def say_directly(self, body: wire.ControlBody, base: int | None = None) -> None:
        """Not by relay as well, though the session is backed up: of two copies the first hides the other's way."""
        backed = self._detours.backed
        if backed:
            self._out.put(seam.Backup(backed, on=False))
        self.say(body, base=base)
        if backed:
            self._out.put(seam.Backup(backed, on=True))

    def _confirm(self, keys: Keys, now: float) -> None:
        self._out.put(seam.SendControl(keys.base, keys.confirm))
        keys.confirm_at = now + bounds.PROBE_SECONDS

    def _ping(self, now: float) -> None:
        ping_id = self.live.next_id()
        self.live.pinged(ping_id, now, self._local.jitter(bounds.HEARTBEAT_SECONDS, 0.1))
        if self.backed_up:
            self.say_directly(self.heartbeat(ping_id, now))
        self.say(self.heartbeat(ping_id, now))

    def heartbeat(self, ping_id: int, now: float) -> wire.Ping:
        hears = now < self.live.silent_since() + bounds.SUSPECT_SECONDS
        arrives = self.relayed and self.ways.fault(now) == status.ONE_WAY_OUT
        return wire.Ping(ping_id, self.keep, hears, arrives)

    def _say(self, key: str, what: str, reason: str = "") -> None:
        where = text(self.endpoint) if self.endpoint else ""
        self._out.log("info", key, f"{self}: {what}", peer=self.node, address=where, reason=reason)

    def established(self) -> None:
        """Says so."""
        self._say(f"session {self.node} up", "established")

    def __str__(self) -> str:
        where = f" at {text(self.endpoint)}" if self.endpoint else ""
        return f"{self.name or f'{self.node:016x}'}{where}"
