"""One data plane out of several workers: what each is told of control's messages, and what control hears of theirs.

    control ── Install, Use … ──> split ──> worker 0, worker 1 …        a session's lane n belongs to worker n mod N
    control <── Used, Counters ── merge <── worker 0, worker 1 …

Law: a lane is given to its worker once and never again, for its counter would begin anew under the same key. So a
worker that is lost takes its lanes with it: the newborn is told routes, path MTUs and known addresses, never keys, and
control hears which sessions are maimed and renews them. Of a worker that has served another control only those things
are taken back that this one does not say itself. Totals and counters never go backwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec

from tunrouter.core import bounds, seam
from tunrouter.core.seam import ToWorker

Told = list[tuple[int, ToWorker]]
"""Messages in their order, each with the worker that it is for."""
UNCARRIED: Final = "worker_missing"
"""Counts what no living worker could carry."""
REFUSED: Final = "seam_refused"
"""Counts keys that are installed already, and those for which there is no room; the workers use it, too."""


class _Session:
    """Who has lanes of one session, and what each of them has reported."""

    def __init__(self, install: seam.Install, shares: dict[int, tuple[seam.Lane, ...]], live: set[int]) -> None:
        self.node = install.node
        self.relayed = False
        """Control said that it goes by relay."""
        self.moved(install.endpoint)
        self.holders = sorted(shares.keys() & live)
        self.maimed = len(self.holders) < len(shares)
        """Some of its lanes are with nobody."""
        self.used: dict[int, seam.Used | seam.Retired] = {}
        self.spoken = -1
        """The worker that the peer's control spoke to last."""

    def moved(self, endpoint: seam.Endpoint) -> None:
        self.relayed = seam.relay_target(endpoint) != 0

    def total(self, session: int) -> seam.Used:
        """While all of them have it."""
        reports = [used for used in self.used.values() if isinstance(used, seam.Used)]
        last_sent = max(used.last_sent for used in reports)
        return seam.Used(session, *self._sums(), last_sent, max(used.last_received for used in reports))

    def last(self, session: int) -> seam.Retired:
        return seam.Retired(session, *self._sums())

    def _sums(self) -> tuple[int, int, int, int]:
        reports = self.used.values()
        return (
            sum(used.sent_packets for used in reports),
            sum(used.sent_bytes for used in reports),
            sum(used.received_packets for used in reports),
            sum(used.received_bytes for used in reports),
        )


class Shares:
    """Its tables are as large as those of one worker, which bounds.py bounds."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._live: set[int] = set()
        self._ready: set[int] = set()
        """Those that have started."""
        self._sessions: dict[int, _Session] = {}
        self._retired: OrderedDict[int, _Session] = OrderedDict()
        """Those of which some worker has still to say how much passed in all; its word may be lost."""
        self._routes: dict[tuple[bytes, int], seam.Route] = {}
        self._mtus: dict[int, seam.PathMtu] = {}
        self._hops: dict[int, seam.Hop] = {}
        self._known: seam.Known | None = None
        self._counters: dict[int, dict[str, int]] = {}
        self._gone: dict[str, int] = {}
        """Counters of workers that are no more."""
        self._inherited: dict[int, list[seam.Inherited]] = {}
        """What workers were told by an earlier control."""
        self._foreign: set[int] = set()
        """The sessions among that."""

    # --- workers come and go -----------------------------------------------------------------------------------------
    def joined(self, worker: int) -> list[ToWorker]:
        """What a newborn must be told first. Of sessions it has the lanes that are installed from now on."""
        self._live.add(worker)
        told: list[ToWorker] = [*self._routes.values(), *self._mtus.values(), *self._hops.values()]
        return [*told, self._known] if self._known is not None else told

    def ready(self, worker: int) -> None:
        """It reads what it is told."""
        self._ready.add(worker)

    def lost(self, worker: int) -> list[seam.ToControl]:
        """It is dead, and with it every lane that it had; returns what control need not wait for any more."""
        self._live.discard(worker)
        self._ready.discard(worker)
        self._inherited.pop(worker, None)
        for session in self._sessions.values():
            if worker in session.holders:
                session.holders.remove(worker)
                session.maimed = True
        for name, value in self._counters.pop(worker, {}).items():
            self._gone[name] = self._gone.get(name, 0) + value
        ended = [self._said_last(worker, number) for number in list(self._retired)]
        return [last for last in ended if last is not None]

    def _said_last(self, worker: int, number: int) -> seam.Retired | None:
        """It will say no more of that session; answers with its sums if nobody will."""
        session = self._retired.get(number)
        if session is None or worker not in session.holders:
            return None
        session.holders.remove(worker)
        return None if session.holders else self._retired.pop(number).last(number)

    def maimed(self) -> list[int]:
        """Sessions of which lanes are with nobody, perhaps all that they had."""
        return [number for number, session in self._sessions.items() if session.maimed]

    def settled(self) -> dict[int, list[ToWorker]]:
        """What takes back all that an earlier control said and this one does not; once."""
        told: dict[int, list[ToWorker]] = {}
        for worker, parts in self._inherited.items():
            told[worker] = []
            for part in parts:
                told[worker] += [seam.Retire(session) for session in part.sessions if session in self._foreign]
                told[worker] += [seam.Unroute(*route) for route in part.routes if route not in self._routes]
                told[worker] += [seam.Hop(target, 0) for target in part.hops if target not in self._hops]
        self._inherited.clear()
        self._foreign.clear()
        return told

    # --- from control to the workers ---------------------------------------------------------------------------------
    def split(self, message: ToWorker) -> Told:
        match message:
            case seam.Install():
                return self._install(message)
            case seam.Move(session, endpoint):
                if found := self._sessions.get(session):
                    found.moved(endpoint)
                return self._to_holders(session, message)
            case seam.Deliver(session) | seam.Use(_, session) | seam.Backup(session):
                return self._to_holders(session, message)
            case seam.Retire(session):
                told = self._to_holders(session, message)
                ended = self._sessions.pop(session, None)
                if told and ended is not None:
                    self._retired[session] = ended
                    if len(self._retired) > bounds.MAX_RETIRED:
                        self._retired.popitem(last=False)
                return told
            case seam.SendControl(number) | seam.Will(number):
                found = self._sessions.get(number)
                return self._to_one(found.holders, message, found.spoken) if found is not None else self._drop()
            case seam.SendRaw():
                return self._to_one(sorted(self._live), message)
            case _:
                self._remember(message)
                return self._to_all(message)

    def _install(self, message: seam.Install) -> Told:
        if message.session in self._sessions or len(self._sessions) >= bounds.MAX_SESSIONS:
            return self._drop(REFUSED)  # nobody is told: a newborn, that knows less, would take it
        shares: dict[int, tuple[seam.Lane, ...]] = {}
        for lane in message.lanes:
            worker = lane.number % self.workers
            shares[worker] = (*shares.get(worker, ()), lane)
        session = self._sessions[message.session] = _Session(message, shares, self._live)
        told: Told = []
        if message.session in self._foreign:  # an earlier control had drawn the same number
            self._foreign.discard(message.session)
            told += self._to_all(seam.Retire(message.session))
        return [*told, *((worker, _with(message, shares[worker])) for worker in session.holders)]

    def _remember(self, message: ToWorker) -> None:
        """State that a newborn needs, within the bounds that a worker has for it."""
        match message:
            case seam.Route(prefix, length):
                if (prefix, length) in self._routes or len(self._routes) < bounds.MAX_ROUTES:
                    self._routes[prefix, length] = message
            case seam.Unroute(prefix, length):
                self._routes.pop((prefix, length), None)
            case seam.PathMtu(node):
                self._mtus.pop(node, None)
                self._mtus[node] = message
                if len(self._mtus) > 2 * bounds.MAX_PEERS:
                    del self._mtus[next(iter(self._mtus))]
            case seam.Hop(target, via):
                if not via:
                    self._hops.pop(target, None)
                elif target in self._hops or len(self._hops) < bounds.MAX_HOPS:
                    self._hops[target] = message
            case seam.Known():
                self._known = message

    def _to_holders(self, session: int, message: ToWorker) -> Told:
        found = self._sessions.get(session)
        return [(worker, message) for worker in found.holders] if found is not None else []

    def _to_all(self, message: ToWorker) -> Told:
        return [(worker, message) for worker in sorted(self._live)]

    def _to_one(self, workers: list[int], message: ToWorker, best: int = -1) -> Told:
        """To `best` if it is one of these; rather to one that has started than to a newborn, who reads it later."""
        able = [worker for worker in workers if worker in self._ready] or workers
        if not able:
            return self._drop()
        return [(best if best in able else able[0], message)]

    def _drop(self, counter: str = UNCARRIED) -> Told:
        self._gone[counter] = self._gone.get(counter, 0) + 1
        return []

    # --- from the workers to control ---------------------------------------------------------------------------------
    def merge(self, worker: int, message: seam.ToControl) -> seam.ToControl | None:
        """What control hears of it; None for the report of a session that is no more, and for what workers pass on."""
        match message:
            case seam.Astray():
                return None
            case seam.Inherited():
                self._inherited.setdefault(worker, []).append(message)
                self._foreign.update(message.sessions)
                return None
            case seam.Control(number):
                if session := self._sessions.get(number):
                    session.spoken = worker
                return message
            case seam.Used(number):
                session = self._sessions.get(number)
                if session is None:
                    return None
                session.used[worker] = message
                return session.total(number)
            case seam.Retired(number):
                if number in self._retired:
                    self._retired[number].used[worker] = message
                return self._said_last(worker, number)
            case seam.Counters(values):
                self._counters[worker] = values
                return seam.Counters(self.counters)
            case _:
                return message

    def follow(self, worker: int, message: seam.ToControl) -> Told:
        """What other workers hear of what one said, by itself."""
        match message:
            case seam.Moved():
                return self._moved(worker, message)
            case seam.Astray(origin, datagram):
                return self._astray(worker, origin, datagram)
            case _:
                return []

    def _astray(self, worker: int, origin: int, datagram: bytes) -> Told:
        """The one whose lane's index it bears, as the sockets' filter would have steered it."""
        other = int.from_bytes(datagram[4:8], "big") % self.workers
        return [(other, seam.Relayed(origin, datagram))] if other != worker and other in self._live else []

    def _moved(self, worker: int, message: seam.Moved) -> Told:
        """Perhaps nothing comes to the session's other workers from where its peer is now.

        The worker may have said so before it heard that the session goes by relay.
        """
        session = self._sessions.get(message.session)
        if session is None or session.relayed:
            return []
        move = seam.Move(message.session, message.endpoint)
        return [(other, move) for other in session.holders if other != worker]

    @property
    def counters(self) -> dict[str, int]:
        return _sum([self._gone, *self._counters.values()])


def _with(message: seam.Install, lanes: tuple[seam.Lane, ...]) -> seam.Install:
    return msgspec.structs.replace(message, lanes=lanes)


def _sum(tables: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for table in tables:
        for name, value in table.items():
            total[name] = total.get(name, 0) + value
    return total
