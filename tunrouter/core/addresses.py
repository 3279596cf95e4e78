"""Which address of this node's blocks each interface of a container has.

Law: an address has one holder at a time, who keeps it until it is released, whatever restarts meanwhile: every change
is a row of the journal, and who answers a caller waits for it (`journal.then`). A released address rests before a
stranger is given it, so that whoever talked to the first holder has forgotten it (`pool.py` says in what order). Who
had it last is no stranger and gets it again at once rather than another (`keepers.py`): so containers have the
addresses that they had before the machine was booted. Nor does it rest for who asks for exactly this one.
Monotonic time starts anew with each life: who rests at the start of one rests the whole time again, in the old order. A
block that another node had rests as a whole, for everybody, which is one row: that of its network's address.

What is found in use at the start is claimed, and that is stronger than any row: pods that live are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from tunrouter.core import bounds
from tunrouter.core.journal import Journal, LeaseRow
from tunrouter.core.keepers import Keeper, Keepers
from tunrouter.core.pool import Lease, Pool
from tunrouter.core.timetable import NEVER


class Reason(Enum):
    """Why an address is not given."""

    FULL = "every address of this node's blocks is held or rests"
    TAKEN = "another interface holds it"
    HAS_ANOTHER = "the interface has another address already"
    ELSEWHERE = "it is in no block of this node"
    CLOSED = "its block gives no addresses at present"
    RESTING = "it was another node's a short while ago"
    RESERVED = "it is the network's own, the broadcast address, or a gateway"
    NAMELESS = "the container has no name"


class Refused(NamedTuple):
    reason: Reason
    address: IPv4Address | None = None
    """The one in question; of HAS_ANOTHER, the one that the interface has."""
    holder: Lease | None = None
    """Of TAKEN."""
    until: float = NEVER
    """Of RESTING and FULL: when to ask again."""


class Addresses:
    """Blocks are few (`MAX_BLOCKS_ANNOUNCED`), so each may be looked at; addresses are many."""

    def __init__(self, journal: Journal, gateway: IPv4Address | None = None) -> None:
        """`gateway` is reserved too, where it is not the first usable address of its block."""
        self._journal = journal
        self._gateway = gateway
        self._pools: dict[IPv4Network, Pool] = {}
        self._owned: dict[str, dict[str, IPv4Address]] = {}
        """What each container's interfaces have."""
        self._strays: dict[int, LeaseRow] = {}
        """Rows of blocks that are not ours, or not yet."""
        self._keepers = Keepers()
        self._released = 0
        self.changes = 0
        """Grows with all that may give somebody an address who was refused before."""

    # --- blocks ------------------------------------------------------------------------------------------------------
    def restore(self, rows: Iterable[LeaseRow], now: float) -> None:
        """What earlier lives left, once. Rows of a block that comes later wait for it."""
        ordered = sorted(rows, key=_resting_first)
        self._released = max((row.order for row in ordered), default=self._released)
        for row in ordered:
            pool = self._pool(row.address)
            if pool is None:
                self._strays[int(row.address)] = row
            else:
                self._place(pool, row, now)

    def add_block(self, network: IPv4Network, now: float, *, rested: bool) -> None:
        """A block that another had before is not `rested`. Raises ValueError if it overlaps one that is here."""
        if any(network.overlaps(other) for other in self._pools):
            raise ValueError(f"{network} overlaps a block that is here already")
        pool = self._pools[network] = Pool(network, self._gateway)
        self.changes += 1
        if not rested:
            pool.rests_until = now + bounds.REST_SECONDS
            self._journal.put(LeaseRow(network.network_address, "", "", 0))
        for row in sorted((row for number, row in self._strays.items() if number in pool), key=_resting_first):
            self._place(pool, self._strays.pop(int(row.address)), now)

    def drop_block(self, network: IPv4Network) -> tuple[Lease, ...]:
        """Not ours any more; returns who had an address in it. Rows that waited for it are forgotten as well."""
        pool = self._pools.pop(network, None) or Pool(network, None)
        for number in [number for number in self._strays if number in pool]:
            del self._strays[number]
            self._journal.forget(("lease", number))
        for number in pool.remembered():
            self._forget(number)
        for lease in pool.held.values():
            self._disown(lease)
        return tuple(pool.held.values())

    def close(self, network: IPv4Network) -> None:
        """No new address from it, but claims of those in use. Raises KeyError for a block that is not here."""
        self._pools[network].open = False

    def open(self, network: IPv4Network) -> None:
        self._pools[network].open = True
        self.changes += 1

    def _place(self, pool: Pool, row: LeaseRow, now: float) -> None:
        """What the row says, unless something newer is known."""
        number, until = int(row.address), now + bounds.REST_SECONDS
        if number == pool.first:
            pool.rests_until = until
        elif not pool.is_unused(number):
            return
        elif not row.held:
            pool.rest(number, row.order, until)
            self._remember(row)
        elif self.held_by(row.container, row.interface) is None:
            self._own(pool, _lease(row))
        else:
            self._rest(pool, _lease(row), now)

    # --- addresses ---------------------------------------------------------------------------------------------------
    def allocate(
        self, container: str, interface: str, now: float, wanted: IPv4Address | None = None, pod: str = ""
    ) -> IPv4Address | Refused:
        """The one it has or had, or a new one; it is not to be used before the journal is durable."""
        self.wake(now)
        if not container:
            return Refused(Reason.NAMELESS)
        has = self.held_by(container, interface)
        if has is not None:
            return has if wanted in (None, has) else Refused(Reason.HAS_ANOTHER, has)
        again = self._again(Keeper(pod or container, interface)) if wanted is None else self._obtain(wanted)
        found = again or self._next()
        if isinstance(found, Refused):
            return found
        pool, address = found
        self._lease(pool, Lease(address, container, interface, pod))
        return address

    def release(self, container: str, interface: str | None, now: float) -> tuple[IPv4Address, ...]:
        """Of one interface or of all; returns what they had. Those that are not known have nothing."""
        self.wake(now)
        self._release_strays(container, interface)
        has = self._owned.get(container, {})
        ended = [one for one in has if interface in (None, one)]
        return tuple(self._end(has[one], now) for one in ended)

    def claim(self, container: str, interface: str, address: IPv4Address, now: float) -> tuple[Lease, ...] | Refused:
        """The address is in use there, so it is that interface's; returns the leases that this ends."""
        self.wake(now)
        pool, number = self._pool(address), int(address)
        if not container:
            return Refused(Reason.NAMELESS)
        if pool is None:
            return Refused(Reason.ELSEWHERE, address)
        if pool.is_reserved(number):
            return Refused(Reason.RESERVED, address)
        lease, loser = Lease(address, container, interface), pool.held.get(number)
        if loser is not None and loser[:3] == lease[:3]:
            return ()
        ended = []
        if loser is not None:
            self._disown(loser)
            ended.append(loser)
        has = self.held_by(container, interface)
        if has is not None:
            ended.append(self._held(has))
            self._end(has, now)
        self._lease(pool, lease)
        return tuple(ended)

    def wake(self, now: float) -> None:
        """To be called at `deadline`: who has rested is free."""
        for pool in self._pools.values():
            if pool.deadline <= now:
                self.changes += 1
                for number in pool.wake(now):
                    self._forget(number)

    def _again(self, keeper: Keeper) -> tuple[Pool, IPv4Address] | None:
        """What it had last, of what may be given now."""
        for number in self._keepers.theirs(keeper):
            pool = self._pool(IPv4Address(number))
            if pool is not None and pool.open:
                return pool, IPv4Address(number)
        return None

    def _next(self) -> tuple[Pool, IPv4Address] | Refused:
        pools = [pool for pool in self._pools.values() if pool.open]
        for pool in pools:
            number = pool.next_unused()
            if number is not None:
                return pool, IPv4Address(number)
        rested = [(*pool.oldest_rested, pool) for pool in pools if pool.oldest_rested is not None]
        if not rested:
            return Refused(Reason.FULL, until=min((pool.deadline for pool in pools), default=NEVER))
        _, number, pool = min(rested, key=lambda one: one[0])
        return pool, IPv4Address(number)

    def _obtain(self, address: IPv4Address) -> tuple[Pool, IPv4Address] | Refused:
        """Exactly this one."""
        pool, number = self._pool(address), int(address)
        if pool is None:
            return Refused(Reason.ELSEWHERE, address)
        if number in pool.held:
            return Refused(Reason.TAKEN, address, pool.held[number])
        if pool.is_reserved(number):
            return Refused(Reason.RESERVED, address)
        if not pool.open:
            return Refused(Reason.CLOSED, address)
        until = pool.rests_until
        whole = until is not None and pool.is_unused(number)
        return (pool, address) if until is None or not whole else Refused(Reason.RESTING, address, until=until)

    def _lease(self, pool: Pool, lease: Lease) -> None:
        self._own(pool, lease)
        self._journal.put(LeaseRow.of(lease))

    def _own(self, pool: Pool, lease: Lease) -> None:
        self.changes += 1  # another ask of this interface has it, too
        self._keepers.forget(int(lease.address))
        pool.hold(lease)
        self._owned.setdefault(lease.container, {})[lease.interface] = lease.address

    def _held(self, address: IPv4Address) -> Lease:
        pool = self._pool(address)
        assert pool is not None  # who has an address has it in a block
        return pool.held[int(address)]

    def _end(self, address: IPv4Address, now: float) -> IPv4Address:
        pool, lease = self._pool(address), self._held(address)
        assert pool is not None
        self._disown(lease)
        self._rest(pool, lease, now)
        return address

    def _rest(self, pool: Pool, lease: Lease, now: float) -> None:
        self._released += 1
        row = LeaseRow.of(lease, self._released)
        pool.rest(int(lease.address), self._released, now + bounds.REST_SECONDS)
        self._remember(row)
        self._journal.put(row)

    def _remember(self, row: LeaseRow) -> None:
        if row.container:
            self._keepers.remember(int(row.address), Keeper(row.pod or row.container, row.interface), row.order)

    def _forget(self, number: int) -> None:
        self._keepers.forget(number)
        self._journal.forget(("lease", number))

    def _release_strays(self, container: str, interface: str | None) -> None:
        """Who is released has nothing when its block comes, either."""
        for number, row in sorted(self._strays.items()):
            if row.held and row.container == container and interface in (None, row.interface):
                self._released += 1
                self._strays[number] = row._replace(order=self._released)
                self._journal.put(self._strays[number])

    def _disown(self, lease: Lease) -> None:
        self.changes += 1
        interfaces = self._owned[lease.container]
        del interfaces[lease.interface]
        if not interfaces:
            del self._owned[lease.container]

    def _pool(self, address: IPv4Address) -> Pool | None:
        number = int(address)
        return next((pool for pool in self._pools.values() if number in pool), None)

    # --- what there is -----------------------------------------------------------------------------------------------
    @property
    def blocks(self) -> tuple[IPv4Network, ...]:
        return tuple(self._pools)

    def refusal(self, address: IPv4Address) -> Refused | None:
        """Why nobody gets exactly this one at present."""
        found = self._obtain(address)
        return found if isinstance(found, Refused) else None

    @property
    def open_blocks(self) -> bool:
        """Whether there is a block that gives addresses."""
        return any(pool.open for pool in self._pools.values())

    def held_by(self, container: str, interface: str) -> IPv4Address | None:
        return self._owned.get(container, {}).get(interface)

    def remembers(self, container: str, interface: str, pod: str) -> bool:
        """It had one that nobody else was given since."""
        return Keeper(pod or container, interface) in self._keepers

    def rests(self, address: IPv4Address) -> bool:
        """It was released a short while ago."""
        pool = self._pool(address)
        return pool is not None and pool.rested_at(int(address)) is not None

    def held_in(self, network: IPv4Network) -> tuple[Lease, ...]:
        pool = self._pools.get(network)
        return () if pool is None else tuple(pool.held.values())

    def leases(self) -> Iterator[Lease]:
        """A block at a time."""
        for pool in self._pools.values():
            yield from pool.held.values()

    def holders(self) -> Iterator[Lease]:
        """Also those whose block is not here: they have their address again when it comes."""
        yield from self.leases()
        yield from (_lease(row) for row in self._strays.values() if row.held)

    def free(self, now: float) -> int:
        """What `allocate` could give, one after the other."""
        return sum(pool.free(now) for pool in self._pools.values() if pool.open)

    @property
    def used(self) -> int:
        return sum(len(pool.held) for pool in self._pools.values())

    @property
    def resting(self) -> int:
        """Not free yet, of all blocks."""
        return sum(pool.resting for pool in self._pools.values())

    @property
    def deadline(self) -> float:
        """When the next address has rested."""
        return min((pool.deadline for pool in self._pools.values()), default=NEVER)


def _resting_first(row: LeaseRow) -> tuple[bool, int]:
    return row.held, row.order


def _lease(row: LeaseRow) -> Lease:
    return Lease(row.address, row.container, row.interface, row.pod)
