"""Opening sessions: first messages that we send, and what comes back for them.

Law: one dial an endpoint. The same first message is repeated (0.25, 0.5, 1, 2 … s) until it is five seconds old, so
that a slow answer to any copy counts; then a new one is made. An answer counts only if its index and attempt id are
those of the current message and its box opens; a reject counts as much as an unauthenticated word can: it is shown,
until a whole message later got none.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final, NamedTuple

from tunrouter.core import bounds, keys, seam, status, versions, wire
from tunrouter.core.handshake import INITIATOR_SIGNS, RESPONDER_SIGNS, Initiator
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox
from tunrouter.errors import ProtocolError

ATTEMPT_SECONDS: Final = bounds.HALF_OPEN_SECONDS
FOREVER: Final = float("inf")
ENDPOINT_REASONS: Final = {
    wire.NEED_PASSWORD: "peer requires a password",
    wire.HAVE_NONE: "peer has no password",
    wire.TAG_FAILED: "wrong password",
    wire.OTHER_VERSION: f"peer speaks another version of the protocol; this node speaks {versions.SPOKEN}",
}
FAULTS: Final = dict.fromkeys(ENDPOINT_REASONS, status.MISMATCH) | {wire.OTHER_VERSION: status.VERSION}
OURSELVES: Final = "cannot connect to ourself"
NO_ANSWER: Final = "no answer"


Carry = Callable[[seam.Endpoint, bytes], bool]
"""Sends a first message inside the session that stands with this endpoint; False if there is none or it is in doubt."""
Replaced = Callable[[int], int]
"""The peer's index base of the keys in use with a node, 0 if there are none."""


class Opened(NamedTuple):
    """A handshake that came to its end, on either side of it."""

    node: int
    initiator: bool
    """We began it."""
    incarnation: int
    """The peer's."""
    introduction: wire.Introduction
    base: int
    remote: int
    lanes: tuple[seam.Lane, ...]
    endpoint: seam.Endpoint
    version: int
    """Of the protocol, that both speak."""
    confirm: bytes
    """The initiator's confirming body; empty on the responder's side."""
    rtt: float
    sequence: int = -1
    """Of the first message, when it was theirs."""
    instead: int = 0
    """Index base, at the responder, of the keys that the initiator knew and replaces by these; 0 if it knew none."""
    until: float = 0.0
    """When the initiator would have given up."""

    def install(self, now: float, *, sealed: bool) -> seam.Install:
        expires = now + bounds.REJECT_SECONDS
        return seam.Install(self.base, self.node, self.remote, self.lanes, self.endpoint, expires, sealed)


class Dial:
    """One endpoint that we try to open a session with."""

    def __init__(self, endpoint: seam.Endpoint, target: int, keep: bool, now: float, until: float) -> None:
        self.endpoint = endpoint
        self.target = target
        self.keep = keep
        self.until = until
        self.next_at = now
        self.reason = ""
        self.fault = ""
        """What `reason` says, as `status` shows it to programs."""
        self.mismatch = False
        self._told = False
        """Somebody said no to the current message, or before there was one."""
        self.base = 0
        self.tries = 0
        self.quiet = True
        self._initiator: Initiator | None = None
        self._datagram = b""
        self._header = b""
        self._made_at = self._sent_at = -FOREVER

    def tick(self, local: Local, now: float) -> bytes:
        """The datagram to send now. Sets the next time."""
        if self._initiator is None or now - self._made_at >= ATTEMPT_SECONDS:
            self.mismatch &= self._told
            self._make(local, now)
        self.next_at = now + local.pause(bounds.RETRY_SECONDS, self.tries)
        if self.tries > 1 and not self.mismatch:
            self.reason, self.fault = NO_ANSWER, status.SILENT
        self.tries += 1
        self._sent_at = now
        return self._datagram

    def _make(self, local: Local, now: float) -> None:
        self.base = local.indices.allocate(now)
        mode = wire.SEALED_MODE if local.sealed else 0
        self._header = wire.HEADER.pack(wire.FIRST, mode, 0, self.base, local.random_id())
        self._initiator = Initiator(local.suites[0], local.random(32))
        self._workers = local.workers
        sequence = local.next_sequence()
        first = wire.First(
            self._header, versions.NEWEST, local.id, self.target, local.incarnation, sequence, local.workers
        )
        self._datagram = self._header + self._initiator.write_first(wire.encode_first(first))
        self._made_at, self._told = now, False

    def ask_for_anybody(self, now: float) -> None:
        self.target, self.next_at, self._made_at, self._told = 0, now, -FOREVER, self.mismatch

    def answers(self, header: bytes) -> bool:
        """Whether the header of a type 2 or 3 datagram echoes our current message."""
        return header[4:16] == self._header[4:16]

    def read_answer(self, local: Local, datagram: bytes, replaced: Replaced, now: float) -> Opened:
        """Raises ProtocolError for an answer that is not from the node we dialled, or is no answer at all."""
        if self._initiator is None:
            raise ProtocolError("no message is out")
        payload, signed = self._initiator.read_answer(datagram[wire.HEADER_BYTES :])
        answer = wire.decode_answer(payload)
        same = answer.header == datagram[: wire.HEADER_BYTES]
        if not same or answer.target != local.id:
            raise ProtocolError("answer to somebody else")
        if not versions.OLDEST <= answer.version <= versions.NEWEST:
            raise ProtocolError(f"protocol version {answer.version}, this node speaks {versions.SPOKEN}")
        if keys.node_id(answer.public_key) != answer.sender or self.target not in (0, answer.sender):
            raise ProtocolError("another node answers here")
        if not keys.verify(answer.public_key, RESPONDER_SIGNS + signed, answer.signature):
            raise ProtocolError("signature of the answer")
        return self._opened(local, answer, replaced(answer.sender), now)

    def _opened(self, local: Local, answer: wire.Answer, instead: int, now: float) -> Opened:
        """The endpoint is the one dialled: where an answer came from is anybody's word until the peer is heard."""
        assert self._initiator is not None
        self._initiator.accept()
        confirm = wire.Confirm(
            local.identity.public_key,
            local.identity.sign(INITIATOR_SIGNS + self._initiator.hash),
            local.introduction(keep=self.keep, seen=self.endpoint),
            instead,
        )
        ours, theirs = self._initiator.split()
        lanes = keys.derive_lanes(ours, theirs, max(self._workers, answer.workers), initiator=True, sealed=local.sealed)
        self._initiator = None
        return Opened(
            node=answer.sender,
            initiator=True,
            incarnation=answer.incarnation,
            introduction=answer.introduction,
            base=self.base,
            remote=answer.base,
            lanes=lanes,
            endpoint=self.endpoint,
            version=answer.version,
            confirm=wire.encode_control(confirm),
            rtt=now - self._sent_at,
            instead=instead,
            until=self.until,
        )

    def rejected(self, code: int) -> None:
        self.refused(ENDPOINT_REASONS.get(code, "rejected"), FAULTS.get(code, ""))

    def refused(self, reason: str, fault: str) -> None:
        self.reason, self.fault = reason, fault
        self.mismatch = self._told = True


class Dials:
    """All dials of a node, at most one an endpoint."""

    def __init__(self, local: Local, outbox: Outbox, carry: Carry, replaced: Replaced) -> None:
        self._local = local
        self._out = outbox
        self._carry = carry
        self._replaced = replaced
        self._dials: dict[seam.Endpoint, Dial] = {}
        self._by_base: dict[int, Dial] = {}

    def start(
        self,
        endpoint: seam.Endpoint,
        now: float,
        *,
        target: int = 0,
        keep: bool = False,
        seconds: float = FOREVER,
        delay: float = 0.0,
        quiet: bool = False,
    ) -> None:
        """Idempotent: a dial under way is only prolonged, and asks for anybody once two want different nodes there.

        The first datagram leaves after `delay` seconds. A `quiet` dial is nobody's wish, and not shown.
        """
        dial = self._dials.get(endpoint)
        if dial is None:
            if len(self._dials) >= bounds.MAX_PEERS:
                self._out.count("dials_full")
                return
            dial = self._dials[endpoint] = Dial(endpoint, target, keep, now + delay, now + seconds)
        dial.until = max(dial.until, now + seconds)
        dial.keep |= keep
        dial.quiet &= quiet
        if dial.target not in (0, target):
            dial.ask_for_anybody(now)

    def stop(self, endpoint: seam.Endpoint, now: float) -> None:
        dial = self._dials.pop(endpoint, None)
        if dial is not None:
            self._release(dial, now)

    def stop_for(self, node: int, endpoints: Set[seam.Endpoint | None], now: float) -> None:
        """Ends every dial that was meant for `node` or for where it is."""
        for dial in list(self._dials.values()):
            if dial.target == node or dial.endpoint in endpoints:
                self.stop(dial.endpoint, now)

    def hasten(self, endpoints: Set[seam.Endpoint | None], now: float) -> None:
        """What is dialled there is sent now, whatever pause its last copy began."""
        for endpoint in endpoints:
            dial = self._dials.get(endpoint) if endpoint is not None else None
            if dial is not None:
                dial.next_at = now

    def get(self, endpoint: seam.Endpoint) -> Dial | None:
        return self._dials.get(endpoint)

    def all(self) -> list[Dial]:
        return list(self._dials.values())

    def tick(self, now: float) -> list[seam.Endpoint]:
        """Sends what is due; gives the endpoints that are given up now."""
        expired = [dial.endpoint for dial in self._dials.values() if dial.until <= now]
        for endpoint in expired:
            self.stop(endpoint, now)
        for dial in self._dials.values():
            if dial.next_at <= now:
                self._send(dial, now)
        return expired

    def _send(self, dial: Dial, now: float) -> None:
        before = dial.base
        datagram = dial.tick(self._local, now)
        if dial.base != before:
            if before and self._by_base.pop(before, None) is not None:
                self._local.indices.release(before, now)
            self._by_base[dial.base] = dial
        carried = self._carry(dial.endpoint, datagram)
        if not carried or dial.tries > 1:
            self._out.put(seam.SendRaw(dial.endpoint, datagram))

    @property
    def deadline(self) -> float:
        return min((min(dial.next_at, dial.until) for dial in self._dials.values()), default=FOREVER)

    def on_answer(self, datagram: bytes, now: float) -> Opened | None:
        dial = self._matching(datagram)
        if dial is None:
            return None
        try:
            opened = dial.read_answer(self._local, datagram, self._replaced, now)
        except ProtocolError as error:
            self._out.count("handshake_bad_answer")
            where = text(dial.endpoint)
            said = f"answer of {where}: {error}"
            self._out.log("warning", f"answer {dial.endpoint}", said, address=where, reason=str(error))
            return None
        self._by_base.pop(opened.base, None)
        self._dials.pop(dial.endpoint, None)
        return opened

    def refuse(self, opened: Opened, reason: str, now: float) -> None:
        """Whoever answered there is not wanted: tried again as long as was meant, for others may come there."""
        pause = bounds.RETRY_SECONDS[-1]
        if now + pause < opened.until:
            self.start(opened.endpoint, now, seconds=opened.until - now, delay=pause)
        dial = self._dials.get(opened.endpoint)
        if dial is not None:
            dial.refused(reason, status.CLUSTER)
        where = text(opened.endpoint)
        said = f"{where}: {reason}"
        self._out.log("warning", f"refused {opened.endpoint}", said, peer=opened.node, address=where, reason=reason)

    def on_reject(self, source: seam.Endpoint, datagram: bytes) -> None:
        dial = self._matching(datagram)
        if dial is None or dial.endpoint != source or len(datagram) != wire.HEADER_BYTES:
            return
        before = dial.reason
        dial.rejected(datagram[1])
        if dial.reason != before:
            where, reason = text(source), dial.reason
            self._out.log("warning", f"reject {source}", f"{where}: {reason}", address=where, reason=reason)

    def on_reflected(self, source: seam.Endpoint, datagram: bytes) -> None:
        """Our own first message came back to us. It may be an attacker's doing, so the dial goes on."""
        dial = self._by_base.get(int.from_bytes(datagram[4:8], "big"))
        if dial is not None and dial.endpoint == source and dial.answers(datagram):
            dial.refused(OURSELVES, status.OURSELVES)

    def _matching(self, datagram: bytes) -> Dial | None:
        dial = self._by_base.get(int.from_bytes(datagram[4:8], "big"))
        if dial is None or not dial.answers(datagram):
            self._out.count("handshake_unexpected")
            return None
        return dial

    def _release(self, dial: Dial, now: float) -> None:
        if self._by_base.pop(dial.base, None) is not None:
            self._local.indices.release(dial.base, now)


def text(endpoint: seam.Endpoint) -> str:
    """`192.0.2.7:6783` or `[2001:db8::7]:6783`."""
    if node := seam.relay_target(endpoint):
        return f"relay to {node:016x}"
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
