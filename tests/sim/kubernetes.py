"""The API server of a cluster, as far as Leases and Nodes go, on a parliament's virtual clock.

Law: a name is made once; a delete may name the object that is meant; what a watch tells comes late and in order; the
collector deletes, a while later, every Lease whose owner is not there any more, also one that is made so.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from tunrouter.core.leases import Away, Gone, Lease, Made, Members, News, Settled, Synced
from tunrouter.core.outbox import CreateLease, DeleteLease, TakeLease

if TYPE_CHECKING:
    from tests.sim.parliament import Parliament, Seat

CLUSTER = 0xC1
COLLECTED_SECONDS = 1.0
TIMEOUT_SECONDS = 3.0


class Api:
    def __init__(self, parliament: Parliament) -> None:
        self._parliament = parliament
        self.up = True
        self.slow = 0.02
        """Seconds that a request, its answer or a watch's event takes at most."""
        self.nodes: dict[int, str] = {}
        """UIDs of the Node objects, by the machine's number."""
        self.served: set[int] = set()
        """Machines whose Node objects say that the network is there."""
        self.leases: dict[int, Lease] = {}
        self.writes: dict[int, int] = {}
        """By the machine's number."""
        self.refused: dict[int, int] = {}
        """Creations of what was there already."""
        self.lost_blocks: list[int] = []
        """Places whose Lease was collected."""
        self.members_late = 0.0
        """Seconds by which a node hears of Nodes after it heard of Leases."""
        self.collects = True
        """The collector of abandoned Leases works."""
        self._uids = count(1)
        self._last: dict[int, float] = {}
        """When the last event of each watch arrives: they keep their order."""

    # --- operators and the cluster's own controllers -----------------------------------------------------------------
    def add_node(self, number: int) -> None:
        self.nodes[number] = f"node-{next(self._uids)}"
        self._tell_members()

    def delete_node(self, number: int) -> None:
        if self.nodes.pop(number, None) is not None:
            self._tell_members()
            self._parliament.at(COLLECTED_SECONDS, self._collect)

    def _collect(self) -> None:
        owners = set(self.nodes.values())
        if not self.collects:
            return
        for place, lease in list(self.leases.items()):
            if lease.owner not in owners:
                self.lost_blocks.append(place)
                self._remove(place)

    def go_down(self) -> None:
        self.up = False
        for seat in self._parliament.all:
            self._event(seat, Away("connection refused"))

    def come_up(self) -> None:
        self.up = True
        for seat in self._parliament.all:
            self.sync(seat)

    # --- watches -----------------------------------------------------------------------------------------------------
    def sync(self, seat: Seat) -> None:
        """A node begins to watch, or lists again."""
        if not self.up:
            self._event(seat, Away("connection refused"))
            return
        if not self.members_late:
            self._tell_members_to(seat)
        self._event(seat, Synced(CLUSTER, tuple(self.leases.values()), next(self._uids)))

        if self.members_late:
            self._parliament.at(self.members_late, self._tell_members_to, seat)

    def _tell_members_to(self, seat: Seat) -> None:
        served = frozenset(uid for number, uid in self.nodes.items() if number in self.served)
        self._event(seat, Members(self.nodes.get(seat.machine, ""), frozenset(self.nodes.values()), served))

    def _tell_members(self) -> None:
        for seat in self._watching:
            self._tell_members_to(seat)

    @property
    def _watching(self) -> list[Seat]:
        return [*self._parliament.all, *self._parliament.copies]

    def _tell(self, news: Made | Gone) -> None:
        for seat in self._watching:
            self._event(seat, news)

    def _event(self, seat: Seat, news: News) -> None:
        if not self.up and not isinstance(news, Away):
            return
        parliament = self._parliament
        at = max(parliament.now + parliament.rng.uniform(0.0, self.slow), self._last.get(seat.machine, 0.0))
        self._last[seat.machine] = at
        parliament.at(at - parliament.now, self._arrive, seat, seat.life, news)

    def _arrive(self, seat: Seat, life: int, news: News) -> None:
        if seat.stopped:
            self._parliament.at(seat.stopped_until - self._parliament.now, self._arrive, seat, life, news)
        elif seat.alive and seat.life == life:
            seat.hear_api(news)

    # --- requests ----------------------------------------------------------------------------------------------------
    def request(self, seat: Seat, effect: CreateLease | TakeLease | DeleteLease) -> None:
        parliament = self._parliament
        work: Callable[..., None] = self._delete
        if not isinstance(effect, DeleteLease):
            work = self._create if isinstance(effect, CreateLease) else self._take
        parliament.at(parliament.rng.uniform(0.001, self.slow), work, seat, seat.life, effect)

    def _create(self, seat: Seat, life: int, effect: CreateLease) -> None:
        if not self._serves(seat, life, effect.number):
            return
        owner = seat.local.uid  # as the node knows it, which may be an old one
        there = self.leases.get(effect.place)
        if there is None:
            number = next(self._uids)
            there = Lease(effect.place, seat.id, number, f"lease-{number}", owner)
            self.leases[effect.place] = there
            self.served.add(seat.machine)
            self._tell(Made(there))
            if owner not in self.nodes.values():
                self._parliament.at(COLLECTED_SECONDS, self._collect)
        else:
            self.refused[seat.number] = self.refused.get(seat.number, 0) + 1
        self._answer(seat, life, Settled(effect.number, there))

    def _take(self, seat: Seat, life: int, effect: TakeLease) -> None:
        if not self._serves(seat, life, effect.number):
            return
        there = self.leases.get(effect.place)
        if there is not None and there.uid == effect.uid:
            there = self.leases[effect.place] = there._replace(holder=seat.id, version=next(self._uids))
            self._tell(Made(there))
        self._answer(seat, life, Settled(effect.number, there))

    def _delete(self, seat: Seat, life: int, effect: DeleteLease) -> None:
        if not self._serves(seat, life, effect.number):
            return
        there = self.leases.get(effect.place)
        if there is not None and there.uid == effect.uid:
            self._remove(effect.place)
            there = None
        self._answer(seat, life, Settled(effect.number, there))

    refuses = False
    """Every change, as where a right is missing."""

    def _serves(self, seat: Seat, life: int, number: int) -> bool:
        self.writes[seat.number] = self.writes.get(seat.number, 0) + 1
        if self.refuses:
            self._answer(seat, life, Settled(number, None, "forbidden"))
            return False
        if not self.up:
            self._answer(seat, life, Settled(number, None, "connection refused"), TIMEOUT_SECONDS)
        return self.up

    def _answer(self, seat: Seat, life: int, settled: Settled, seconds: float = 0.0) -> None:
        """It may be lost on the way, though the request was done."""
        parliament = self._parliament
        if parliament.rng.random() < parliament.loss:
            settled, seconds = Settled(settled.number, None, "timed out"), TIMEOUT_SECONDS
        parliament.at(seconds + parliament.rng.uniform(0.0, self.slow), self._arrive, seat, life, settled)

    def _remove(self, place: int) -> None:
        self._tell(Gone(place, self.leases.pop(place).uid))
