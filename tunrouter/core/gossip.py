"""How records spread: news floods at once, and digests find what the flood has missed.

    a record is new ──> queued for every neighbour but who sent it ──> sent, every 50 ms at most ──> acknowledged
                                         ^                                                               │
                                         └── not within half a second: its newest version is queued <────┘

    every 30 s with one neighbour by chance, and every second with each that came up or differs, until the sums agree:

        sums of 64 groups ──> for each that differs sums of 64 leaves ──> for each that differs: Have, the versions
        of all records in the range ──> what the other side lacks is queued for it; Have comes back if it has more

Law: only the newest version of a record is queued for a neighbour, so a queue is never longer than the replica. A
neighbour's own copy of a record is as good as its acknowledgement. What is on its way to a neighbour: flight.py. What
comes is paid for by who sent it (a budget for each neighbour) and by its author (a budget for each), before the
signature is looked at. What is over budget is dropped, counted, and not acknowledged: it comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Final

from tunrouter.core import bounds, record, wire
from tunrouter.core.admission import Sources
from tunrouter.core.flight import Neighbour
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox
from tunrouter.core.record import Read, Record
from tunrouter.core.replica import LAST, Entry, Replica, Verdict, group_range, leaf_range
from tunrouter.core.timetable import NEVER, Timetable
from tunrouter.errors import ProtocolError

_SUMS: Final = Struct(">64Q")
_ENTRY: Final = Struct(">QBQQQ")
ENTRIES: Final = (bounds.MAX_CONTROL_BYTES - 40) // _ENTRY.size
"""Of one `Have`."""
ACKS_BESIDE: Final = (bounds.MAX_CONTROL_BYTES - 16 - bounds.MAX_RECORD_BYTES - 3) // 5
"""Acknowledgements beside which the largest record has room."""
ROOT: Final = 64
"""In place of a group's number: the sums are those of the groups."""
AGREED: Final = wire.Have(0, 0, b"", answer=True)
"""Answers sums that do not differ."""

Say = Callable[[int, wire.GossipBody], None]
"""Says something to a neighbour, which may not hear it."""


class Gossip:
    """Give it what neighbours say; `say` is called with what is to be said to them."""

    def __init__(self, local: Local, out: Outbox, say: Say, now: float, read: Read = record.read) -> None:
        self.replica = Replica()
        self.neighbours: dict[int, Neighbour] = {}
        self._local = local
        self._out = out
        self._say = say
        self._read = read
        self._authors = Sources(bounds.AUTHOR_RECORDS_PER_SECOND, bounds.AUTHOR_RECORDS_BURST, bounds.MAX_PEERS)
        self._sequence = 0
        self._round_at = now
        self._timetable = Timetable()
        self.usurper = 0
        """The newest incarnation in which another node signs with our key."""
        self.outlived: dict[int, int] = {}
        """Lives that others have given up, since the owner of this emptied it."""

    # --- neighbours --------------------------------------------------------------------------------------------------
    def up(self, node: int, now: float) -> None:
        """A neighbour is there, or there again: it gets what is new from now on, and a round at once."""
        if node in self.neighbours:
            return
        neighbour = self.neighbours[node] = Neighbour(now, self._local.random_id() & 0xFFFF_FFFF)
        for own in self.replica.of(self._local.id):
            neighbour.queue[own.key] = own
        if self._local.id < node:
            neighbour.differs(now)
        self._timetable.set(node, neighbour.deadline)

    def down(self, node: int) -> None:
        self.neighbours.pop(node, None)
        self._timetable.set(node, NEVER)

    # --- our own records ---------------------------------------------------------------------------------------------
    def announce(self, body: record.Body) -> Record | None:
        """Says something new of this node; None if it is what we said last."""
        kind = record.kind_of(body)
        if self.replica.body(self._local.id, kind) == body:
            return None
        self._sequence += 1
        own = record.write(self._local.identity, self._local.incarnation, self._sequence, body)
        self.replica.put(own)
        self._spread(own, None)
        return own

    def say_again(self) -> None:
        """All of ours, in the incarnation that this node has now."""
        for own in list(self.replica.of(self._local.id)):
            if own.body is not None:
                self._sequence += 1
                again = record.write(self._local.identity, self._local.incarnation, self._sequence, own.body)
                self.replica.put(again)
                self._spread(again, None)

    def recall(self, own: Record) -> None:
        """One of ours was said before, with a sequence that is not to be used again."""
        self._sequence = max(self._sequence, own.sequence)

    # --- what neighbours say -----------------------------------------------------------------------------------------
    def own_word(self, node: int, data: bytes) -> list[Record]:
        """A record that its author brings along in a handshake, which has budgets of its own."""
        if not data:
            return []  # it answered before it had written one
        try:
            given = self._read(data)
        except ProtocolError:
            self._out.count("gossip_malformed")
            return []
        if given.node != node or self.replica.merge(given) is not Verdict.NEW:
            return []
        self._spread(given, node)
        return [given]

    def hear(self, node: int, body: wire.GossipBody, now: float) -> list[Record]:
        """What is new of it, in order."""
        neighbour = self.neighbours.get(node)
        if neighbour is None:
            self._out.count("gossip_of_no_neighbour")
            return []
        news = self._hear(node, neighbour, body, now)
        self._timetable.set(node, neighbour.deadline)
        return news

    def _hear(self, node: int, neighbour: Neighbour, body: wire.GossipBody, now: float) -> list[Record]:
        match body:
            case wire.Records():
                return self._on_records(node, neighbour, body, now)
            case _ if neighbour.questions.empty(now):
                self._out.count("gossip_over_budget")
            case wire.Sums(group, sums):
                neighbour.questions.take(now)
                self._on_sums(node, group, sums, now)
            case wire.Outlived():
                neighbour.questions.take(now)
                self.outlived[body.node] = body.incarnation
            case wire.Have() if body == AGREED:
                neighbour.agrees()
            case wire.Have(first, last, entries, answer):
                if not neighbour.rounds:
                    neighbour.differs(now + self._pause(bounds.GOSSIP_NEXT_SECONDS))
                cost = self._on_have(node, neighbour, (first, last), entries, now, answer=answer)
                neighbour.questions.take(now, cost)
        return []

    def _on_records(self, node: int, neighbour: Neighbour, body: wire.Records, now: float) -> list[Record]:
        for number in body.acks:
            neighbour.acknowledged(number, now)
        news, missing, owed = [], False, False
        for data in body.records:
            verdict, given = self._on_record(node, neighbour, data, now)
            missing |= verdict is None
            owed |= not (verdict is Verdict.SAME and given is not None and neighbour.crossed(given))
            if verdict is Verdict.NEW and given is not None:
                news.append(given)
        if body.number and owed and not missing and len(neighbour.acks) < bounds.GOSSIP_ACKS:
            neighbour.acks.append(body.number)
        return news

    def _on_record(
        self, node: int, neighbour: Neighbour, data: bytes, now: float
    ) -> tuple[Verdict | None, Record | None]:
        """None for a verdict if it was over somebody's budget."""
        try:
            given = self._read(data)
        except ProtocolError as error:
            self._out.count("gossip_malformed")
            said = f"a record that {node:016x} passes on: {error}"
            self._out.log("warning", f"record {node}", said, peer=node, reason=str(error))
            return Verdict.FORGED, None
        verdict = self.replica.judge(given)
        if verdict is Verdict.NEW:
            if given.node == self._local.id:
                return self._on_own(given), None
            if neighbour.budget.empty(now):
                self._out.count("gossip_over_budget")
                return None, None
            neighbour.budget.take(now)
            author = str(given.node)
            if self._authors.empty(author, now):
                self._out.count("gossip_author_over_budget")
                return None, None
            verdict = self.replica.merge(given)
            if verdict is Verdict.NEW:
                self._authors.take(author, now)
                self._spread(given, node)
        elif verdict is Verdict.OLD:
            newer = self.replica.newest(given.key)
            assert newer is not None
            neighbour.queue[newer.key] = newer
        elif verdict is Verdict.BURIED:
            self._reply(node, wire.Outlived(given.node, given.incarnation), now)
        if verdict in (Verdict.NEW, Verdict.SAME):
            neighbour.arrived(given)
        elif verdict is not Verdict.OLD:
            self._out.count(f"gossip_{verdict.value}")
        return verdict, given

    def _on_own(self, given: Record) -> Verdict:
        """A record of ours that we do not know: of a life whose memory was lost, or of a clone of this node."""
        if not record.genuine(given):
            self._out.count("gossip_forged")
            return Verdict.FORGED
        self._out.count("gossip_own_from_elsewhere")
        if given.incarnation > self._local.incarnation:
            self.usurper = max(self.usurper, given.incarnation)
        else:
            self._sequence = max(self._sequence, given.sequence)
        return Verdict.BURIED

    def _spread(self, news: Record, source: int | None) -> None:
        for node, neighbour in self.neighbours.items():
            if node != source:
                neighbour.queue[news.key] = news
                self._timetable.set(node, neighbour.deadline)

    # --- rounds of digests -------------------------------------------------------------------------------------------
    def _on_sums(self, node: int, group: int, sums: bytes, now: float) -> None:
        theirs = _SUMS.unpack(sums)
        ours = self.replica.groups() if group == ROOT else self.replica.leaves(group)
        differ = [at for at in range(64) if theirs[at] != ours[at]]
        if group == ROOT and not differ:
            self._say(node, AGREED)
        elif group == ROOT and len(self.replica) <= ENTRIES:
            self._have(node, 0, LAST, now, answer=False)
        else:
            # By chance, so that what there is no budget for has its turn in another round.
            start = self._local.random_id() % 64
            for at in sorted(differ, key=lambda at: (at - start) % 64):
                if group == ROOT:
                    self._descend(node, at, now)
                else:
                    self._have(node, *leaf_range(group, at), now, answer=False)

    def _descend(self, node: int, group: int, now: float) -> None:
        first, last = group_range(group)
        if sum(1 for _ in self.replica.within(first, last)) <= 2 * ENTRIES:
            self._have(node, first, last, now, answer=False)
        else:
            self._reply(node, wire.Sums(group, _SUMS.pack(*self.replica.leaves(group))), now)

    def _have(self, node: int, first: int, last: int, now: float, *, answer: bool) -> None:
        """Tells all we have in the range, in as many parts as it takes."""
        entries = list(self.replica.entries(first, last))
        while len(entries) > ENTRIES:
            # A node's entries stay together: who has none of them in a range has none.
            end = _node_of(entries[ENTRIES])
            part = [entry for entry in entries[:ENTRIES] if _node_of(entry) < end]
            self._reply(node, wire.Have(first, end - 1, _pack(part), answer), now)
            entries, first = entries[len(part) :], end
        self._reply(node, wire.Have(first, last, _pack(entries), answer), now)

    def _reply(self, node: int, body: wire.GossipBody, now: float) -> None:
        replies = self.neighbours[node].replies
        if not replies.empty(now):
            replies.take(now)
            self._say(node, body)

    def _on_have(
        self, node: int, neighbour: Neighbour, span: tuple[int, int], packed: bytes, now: float, *, answer: bool
    ) -> int:
        """How many questions' work it was: a wide range costs more than a leaf."""
        try:
            theirs = _unpack(packed)
        except ProtocolError:
            self._out.count("gossip_malformed")
            return 1
        newer, behind, seen = self.replica.compare(*span, theirs)
        for ours in newer:
            neighbour.queue[ours.key] = ours
        if behind and not answer:
            self._have(node, *span, now, answer=True)
        return 1 + seen // 16

    # --- what is due -------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> float:
        round_at = self._round_at if self.neighbours else NEVER
        return min(round_at, self._timetable.next)

    def tick(self, now: float) -> None:
        for node in self._timetable.due(now):
            neighbour = self.neighbours[node]
            self._retry(neighbour, now)
            if now >= neighbour.next_at and (neighbour.acks or (neighbour.queue and neighbour.room > 0)):
                self._flush(node, neighbour, now)
            if now >= neighbour.round_at:
                neighbour.began_round(now + self._pause(bounds.GOSSIP_NEXT_SECONDS))
                self._begin_round(node)
            self._timetable.set(node, neighbour.deadline)
        if self.neighbours and now >= self._round_at:
            self._round_at = now + self._pause(bounds.GOSSIP_ROUND_SECONDS)
            self._begin_round(list(self.neighbours)[self._local.random_id() % len(self.neighbours)])

    def _retry(self, neighbour: Neighbour, now: float) -> None:
        for records in neighbour.overdue(now):
            for lost in records:
                newest = self.replica.newest(lost.key)
                if newest is not None:
                    neighbour.queue[newest.key] = newest
            self._out.count("gossip_retried")

    def _flush(self, node: int, neighbour: Neighbour, now: float) -> None:
        neighbour.next_at = now + bounds.GOSSIP_PAUSE_SECONDS
        acks, neighbour.acks = tuple(neighbour.acks), []
        if len(acks) > ACKS_BESIDE:
            self._say(node, wire.Records(acks, 0, ()))
            acks = ()
        while neighbour.queue and neighbour.room > 0:
            self._send(node, neighbour, acks, now)
            acks = ()
        if acks:
            self._say(node, wire.Records(acks, 0, ()))

    def _send(self, node: int, neighbour: Neighbour, acks: tuple[int, ...], now: float) -> None:
        space = bounds.MAX_CONTROL_BYTES - 16 - 5 * len(acks)
        records: list[Record] = []
        for key, waiting in list(neighbour.queue.items()):
            space -= len(waiting.data) + 3
            if space < 0 and records:
                break
            records.append(waiting)
            del neighbour.queue[key]
        number = neighbour.leave(records, now)
        self._say(node, wire.Records(acks, number, tuple(r.data for r in records)))

    def _pause(self, seconds: float) -> float:
        return self._local.jitter(seconds, bounds.RETRY_JITTER)

    def _begin_round(self, node: int) -> None:
        self._say(node, wire.Sums(ROOT, _SUMS.pack(*self.replica.groups())))


def _node_of(entry: Entry) -> int:
    return entry.key // record.KINDS


def _pack(entries: Iterable[Entry]) -> bytes:
    return b"".join(_ENTRY.pack(*divmod(e.key, record.KINDS), e.incarnation, e.sequence, e.digest) for e in entries)


def _unpack(packed: bytes) -> list[Entry]:
    if len(packed) % _ENTRY.size:
        raise ProtocolError("entries")
    return [
        Entry(record.record_key(node, kind), incarnation, sequence, digest)
        for node, kind, incarnation, sequence, digest in _ENTRY.iter_unpack(packed)
    ]
