"""Answering: first messages that others send, until the initiator has confirmed who it is.

Law: a first message proves at most that its maker once knew the secret (it can be a replay), so it changes nothing but
an entry here: endpoint, incarnation and routes are adopted with the confirmation, which only the live maker can send. A
repeated message gets the same answer without new Diffie-Hellman. The order of checks is their cost: length, mode,
repetition, tag, then Diffie-Hellman.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from tunrouter.core import bounds, keys, seam, status, versions, wire
from tunrouter.core.admission import RejectBudget
from tunrouter.core.deaf import Deaf
from tunrouter.core.dial import ENDPOINT_REASONS, Opened, text
from tunrouter.core.handshake import INITIATOR_SIGNS, RESPONDER_SIGNS, Received
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox
from tunrouter.core.refusals import Refusals
from tunrouter.errors import ProtocolError


class _HalfOpen(NamedTuple):
    first: wire.First
    version: int
    """That both speak."""
    remote: int
    datagram: bytes
    """The first message; only its exact repetition gets the answer again."""
    final_hash: bytes
    lanes: tuple[seam.Lane, ...]
    answer: bytes
    made: float
    endpoint: seam.Endpoint
    """Where the first message came from, and what the data plane was told."""
    carried: bool
    """It came inside a session."""


Stale = Callable[[int, int, int], bool]
"""Whether a first message of this sender, incarnation and sequence is older than what was confirmed."""
Reply = Callable[[bytes], None]
"""Sends an answer back the way its question came."""
Reflected = Callable[[seam.Endpoint, bytes], None]
"""Hears of our own first messages that came back."""
Unconfirmed = Callable[[int, float], bool]
"""Hears who began handshakes directly and never got our answers; whether somebody noted it."""
DEAF: Final = "it does not get our answers, though its handshakes arrive here"
SEEN_BY_US: Final = {
    wire.NEED_PASSWORD: "peer has no password",
    wire.HAVE_NONE: "peer requires a password",
    wire.TAG_FAILED: ENDPOINT_REASONS[wire.TAG_FAILED],
}


class HalfOpenTable:
    def __init__(
        self, local: Local, outbox: Outbox, stale: Stale, reflected: Reflected, unconfirmed: Unconfirmed
    ) -> None:
        self._local = local
        self._out = outbox
        self._stale = stale
        self._reflected = reflected
        self._unconfirmed = unconfirmed
        self._by_base: OrderedDict[int, _HalfOpen] = OrderedDict()
        self._by_datagram: dict[bytes, int] = {}
        self._lanes = 0
        """Of all entries."""
        self._deaf = Deaf()
        self._rejects = RejectBudget()
        self.rejected = Refusals(outbox)

    def __len__(self) -> int:
        return len(self._by_base)

    def __contains__(self, base: int) -> bool:
        return base in self._by_base

    @property
    def deadline(self) -> float:
        for entry in self._by_base.values():
            return entry.made + bounds.HALF_OPEN_SECONDS
        return float("inf")

    def tick(self, now: float) -> None:
        """Forgets what was not confirmed in time."""
        while self.deadline <= now:
            base, entry = self._by_base.popitem(last=False)
            del self._by_datagram[entry.datagram]
            self._lanes -= len(entry.lanes)
            self._out.count("half_open_expired")
            self._out.put(seam.Retire(base))
            self._local.indices.release(base, now)
            if not (entry.carried or seam.relay_target(entry.endpoint)):
                self._on_unconfirmed(entry, now)
        self.rejected.tick(now)

    def _on_unconfirmed(self, entry: _HalfOpen, now: float) -> None:
        """It reached us, and perhaps our answer did not reach it."""
        if self._deaf.gave_up(entry.first, entry.made) and not self._unconfirmed(entry.first.sender, now):
            self.rejected.remember(entry.endpoint, DEAF, status.ONE_WAY_OUT, now, "info")

    def on_first(self, source: seam.Endpoint, datagram: bytes, now: float) -> None:
        """A stranger's first message, or a peer's that came by itself."""
        self._on_first(source, datagram, lambda answer: self._out.put(seam.SendRaw(source, answer)), False, now)

    def on_carried(self, source: seam.Endpoint, datagram: bytes, reply: Reply, now: float) -> None:
        """A peer's first message that came inside its session, as the answer goes."""
        if len(datagram) == wire.FIRST_BYTES[self._local.sealed] and datagram[1] == self._local.sealed:
            self._on_first(source, datagram, reply, True, now)
        else:
            self._out.count("handshake_malformed")

    def _on_first(self, source: seam.Endpoint, datagram: bytes, reply: Reply, carried: bool, now: float) -> None:
        _, flags, reserved, _, _ = wire.HEADER.unpack_from(datagram)
        sealed = bool(flags & wire.SEALED_MODE)
        if flags & ~wire.SEALED_MODE or reserved or len(datagram) != wire.FIRST_BYTES[sealed]:
            self._out.count("handshake_malformed")
            return
        if sealed != self._local.sealed:
            self._reject(source, datagram, wire.HAVE_NONE if sealed else wire.NEED_PASSWORD, now)
            return
        known = self._by_datagram.get(datagram)
        if known is not None:
            reply(self._by_base[known].answer)
            return
        received = self._open(datagram)
        if received is None:
            self._reject(source, datagram, wire.TAG_FAILED, now)
            return
        try:
            first = self._check(received.payload, datagram, source, now)
            version = versions.common(first.version)
            if version is None:
                self._reject_version(source, datagram, first.version, now)
                return
            self._make_room(first, carried)
            answer = self._answer(received, first, version, datagram, source, carried, now)
        except ProtocolError as error:
            self._out.count("handshake_refused")
            said = f"first message of {text(source)} refused: {error}"
            self._out.log("info", f"first {source}", said, address=text(source), reason=str(error))
        else:
            reply(answer)

    def _open(self, datagram: bytes) -> Received | None:
        for suite in self._local.suites:
            try:
                return suite.read_first(datagram[wire.HEADER_BYTES :])
            except ProtocolError:
                continue
        return None

    def _check(self, payload: bytes, datagram: bytes, source: seam.Endpoint, now: float) -> wire.First:
        first = wire.decode_first(payload)
        if first.header != datagram[: wire.HEADER_BYTES]:
            raise ProtocolError("header changed on the way")
        if first.sender == self._local.id:
            if first.incarnation != self._local.incarnation:
                self._out.count("identity_cloned")
                fix = "remove the state directory of one of the two machines"
                said = f"has this node's identity: a cloned disk? {fix}"
                self.rejected.remember(source, said, status.CLONE, now, "error")
            else:
                self._reflected(source, datagram)
            raise ProtocolError("our own identity")
        if first.target not in (0, self._local.id):
            raise ProtocolError("meant for another node")
        if self._stale(first.sender, first.incarnation, first.sequence):
            raise ProtocolError("older than what was confirmed")
        return first

    def _make_room(self, first: wire.First, carried: bool) -> None:
        """Raises ProtocolError if there is none. The reserve is for what is `carried`: its lanes are few, since peers
        have the workers that they have."""
        most = bounds.MAX_HALF_OPEN if carried else bounds.MAX_HALF_OPEN - bounds.HALF_OPEN_RESERVE
        lanes = max(self._local.workers, first.workers)
        crowded = not carried and self._lanes + lanes > bounds.MAX_HALF_OPEN_LANES
        if len(self._by_base) >= most or crowded:
            self._out.count("half_open_full")
            raise ProtocolError("too many handshakes under way")

    def _answer(
        self,
        received: Received,
        first: wire.First,
        version: int,
        first_datagram: bytes,
        source: seam.Endpoint,
        carried: bool,
        now: float,
    ) -> bytes:
        """The answer's datagram; its keys are installed, so that the confirmation can be opened."""
        local = self._local
        answer = received.answer(local.random(32))
        base = local.indices.allocate(now)
        _, mode, _, remote, attempt = wire.HEADER.unpack(first.header)
        header = wire.HEADER.pack(wire.ANSWER, mode, 0, remote, attempt)
        payload = wire.Answer(
            header=header,
            version=version,
            sender=local.id,
            target=first.sender,
            incarnation=local.incarnation,
            base=base,
            workers=local.workers,
            public_key=local.identity.public_key,
            signature=local.identity.sign(RESPONDER_SIGNS + answer.hash),
            introduction=local.introduction(keep=False, seen=source),
        )
        datagram = header + answer.finish(wire.encode_answer(payload))
        theirs, ours = answer.split()
        lanes = keys.derive_lanes(theirs, ours, max(local.workers, first.workers), initiator=False, sealed=local.sealed)
        self._lanes += len(lanes)
        self._by_base[base] = _HalfOpen(
            first, version, remote, first_datagram, answer.final_hash, lanes, datagram, now, source, carried
        )
        self._by_datagram[first_datagram] = base
        expires = now + bounds.REJECT_SECONDS
        self._out.put(seam.Install(base, first.sender, remote, lanes, source, expires, local.sealed))
        return datagram

    def confirm(self, base: int, source: seam.Endpoint, body: wire.Confirm, now: float) -> Opened | None:
        """The initiator's confirming packet arrived in the box of `base`: who it is, or None if it lies."""
        entry = self._by_base.pop(base)
        del self._by_datagram[entry.datagram]
        self._lanes -= len(entry.lanes)
        genuine = keys.node_id(body.public_key) == entry.first.sender and keys.verify(
            body.public_key, INITIATOR_SIGNS + entry.final_hash, body.signature
        )
        first = entry.first
        if not genuine or self._stale(first.sender, first.incarnation, first.sequence):
            self._out.count("identity_failed" if not genuine else "handshake_refused")
            self._out.put(seam.Retire(base))
            self._local.indices.release(base, now)
            return None
        self.rejected.pop(source, None)
        if not entry.carried and not seam.relay_target(entry.endpoint):
            self._deaf.confirmed(first.sender)
        if seam.relay_target(entry.endpoint):
            source = seam.relayed(first.sender)
        elif seam.relay_target(source):
            source = entry.endpoint  # a twin: the answer found its way directly, and that is the path in use
        return Opened(
            node=first.sender,
            initiator=False,
            incarnation=first.incarnation,
            introduction=body.introduction,
            base=base,
            remote=entry.remote,
            lanes=entry.lanes,
            endpoint=source,
            version=entry.version,
            confirm=b"",
            rtt=now - entry.made,
            sequence=first.sequence,
            instead=body.instead,
        )

    def refuse(self, source: seam.Endpoint, reason: str, now: float) -> None:
        """Somebody who could be used is of another cluster."""
        self.rejected.remember(source, reason, status.CLUSTER, now)

    def _reject(self, source: seam.Endpoint, datagram: bytes, code: int, now: float) -> None:
        self._out.count("handshake_mismatch")
        self.rejected.remember(source, SEEN_BY_US[code], status.MISMATCH, now)
        self._answer_no(source, datagram, code, now)

    def _reject_version(self, source: seam.Endpoint, datagram: bytes, theirs: int, now: float) -> None:
        self._out.count("handshake_version")
        reason = f"peer speaks protocol version {theirs}, this node {versions.SPOKEN}"
        self.rejected.remember(source, reason, status.VERSION, now)
        self._answer_no(source, datagram, wire.OTHER_VERSION, now)

    def _answer_no(self, source: seam.Endpoint, datagram: bytes, code: int, now: float) -> None:
        if self._local.silent or not self._rejects.allow(source[0], now):
            return
        index, attempt = wire.HEADER.unpack_from(datagram)[3:]
        self._out.put(seam.SendRaw(source, wire.HEADER.pack(wire.REJECT, code, 0, index, attempt)))
