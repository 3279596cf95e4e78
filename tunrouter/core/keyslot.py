"""The keys of one session: those that it seals with, and the ones before, which it still opens with for ten seconds.

Keys come in three slots, the third being the next ones, which only exist here once their owner's identity is proved. Of
two handshakes that crossed on the way, both ends seal with the one whose initiator has the lower node id. The data
plane has the keys themselves; these are what their session thinks of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final, Generic, TypeVar

from tunrouter.core import bounds, seam
from tunrouter.core.dial import Opened
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox

FOREVER: Final = float("inf")
OLD_KEYS_SECONDS: Final = 10.0
"""How long keys that are not sealed with any more are still opened with."""
Owner = TypeVar("Owner")


class Keys:
    """One completed handshake: the lanes that the data plane has under `base`."""

    def __init__(self, opened: Opened, now: float) -> None:
        self.base = opened.base
        self.remote = opened.remote
        self.lanes = len(opened.lanes)
        self.version = opened.version
        self.maimed = False
        """Lanes of them were lost with a worker."""
        self.ours = opened.initiator
        self.made = now
        self.superseded = FOREVER
        self.heard = not opened.initiator
        """The peer is known to have them."""
        self.heard_at = now
        self.confirm = opened.confirm
        self.confirm_at = now
        self.sent_bytes = self.received_bytes = self.sent_packets = self.received_packets = 0

    def traffic(self) -> tuple[int, int, int, int]:
        return self.sent_packets, self.sent_bytes, self.received_packets, self.received_bytes


class Registry(dict[int, Owner], Generic[Owner]):
    """Tells for every receiver index base whose keys are known under it.

    Of keys that were retired the data plane has still to say how much was sent and received on them in all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._retired: OrderedDict[int, tuple[Owner, Keys]] = OrderedDict()

    def retire(self, keys: Keys) -> None:
        owner = self.pop(keys.base, None)
        if owner is not None:
            self._retired[keys.base] = owner, keys
        if len(self._retired) > bounds.MAX_RETIRED:
            self._retired.popitem(last=False)  # it was with nobody

    def last(self, base: int) -> tuple[Owner, Keys] | None:
        """Whose retired keys are known under `base`; asked once."""
        return self._retired.pop(base, None)


class Slots(Generic[Owner]):
    def __init__(self, node: int, local: Local, outbox: Outbox, registry: Registry[Owner]) -> None:
        self.current: Keys | None = None
        self.older: list[Keys] = []
        self._totals = [0, 0, 0, 0]
        """Packets and bytes sent, packets and bytes received, of keys that are gone."""
        self._node = node
        self._local = local
        self._out = outbox
        self._registry = registry

    @property
    def registered(self) -> Collection[int]:
        """Bases of all sessions' keys."""
        return self._registry.keys()

    @property
    def lanes(self) -> int:
        """How many the data plane has of them."""
        return sum(keys.lanes for keys in self._all())

    @property
    def deadline(self) -> float:
        return min((keys.superseded + OLD_KEYS_SECONDS for keys in self.older), default=FOREVER)

    def of(self, base: int) -> Keys | None:
        if self.current is not None and self.current.base == base:
            return self.current
        return next((keys for keys in self.older if keys.base == base), None)

    def traffic(self) -> tuple[int, int, int, int]:
        """Packets and bytes sent, packets and bytes received, in all."""
        totals = list(self._totals)
        for keys in self._all():
            totals = [total + value for total, value in zip(totals, keys.traffic(), strict=True)]
        return totals[0], totals[1], totals[2], totals[3]

    def settle(self, keys: Keys, last: seam.Retired) -> None:
        """So much it was in the end, on keys that are gone."""
        counted, keys.sent_packets, keys.sent_bytes = keys.traffic(), last.sent_packets, last.sent_bytes
        keys.received_packets, keys.received_bytes = last.received_packets, last.received_bytes
        more = [now - then for now, then in zip(keys.traffic(), counted, strict=True)]
        self._totals = [total + value for total, value in zip(self._totals, more, strict=True)]

    # --- keys come ---------------------------------------------------------------------------------------------------
    def take(self, owner: Owner, keys: Keys, opened: Opened, now: float, *, reborn: bool) -> bool:
        """Whether these are sealed with from now on, or only opened with."""
        self._registry[keys.base] = owner
        if self._crossed(keys, opened, now) and not reborn and keys.ours != (self._local.id < self._node):
            keys.superseded = now
            self.older.append(keys)
            return False
        self._supersede(keys, now)
        return True

    def _crossed(self, keys: Keys, opened: Opened, now: float) -> bool:
        """Whether either end made its keys without knowing of the other's."""
        current = self.current
        if current is None or current.ours == keys.ours:
            return False
        knew = opened.instead == (current.remote if keys.ours else current.base)
        return not knew and now - current.made < bounds.SIMULTANEOUS_SECONDS

    def follow(self, keys: Keys, now: float) -> None:
        """The peer sealed with these: perhaps it gave up ours while we did not hear it, and goes on with newer ones."""
        current = self.current
        if current is None or keys is current or keys.made <= current.made:
            return
        if now - current.heard_at >= bounds.SUSPECT_SECONDS:
            self.older.remove(keys)
            keys.superseded = FOREVER
            self._supersede(keys, now)
            self._out.put(seam.Use(self._node, keys.base))

    def _supersede(self, keys: Keys, now: float) -> None:
        if self.current is not None:
            self.current.superseded = now
            self.older.append(self.current)
        self.current = keys

    # --- keys go -----------------------------------------------------------------------------------------------------
    def trim(self, now: float) -> None:
        for surplus in self.older[: -bounds.MAX_OLD_KEYS]:
            self.older.remove(surplus)
            self._forget(surplus, now)

    def retire_old(self, now: float) -> None:
        for keys in [k for k in self.older if now >= k.superseded + OLD_KEYS_SECONDS]:
            self.older.remove(keys)
            self._forget(keys, now)

    def drop(self, now: float) -> None:
        for keys in self._all():
            self._forget(keys, now)
        self.older, self.current = [], None

    def _all(self) -> tuple[Keys, ...]:
        return (*self.older, self.current) if self.current is not None else tuple(self.older)

    def _forget(self, keys: Keys, now: float) -> None:
        self._totals = [total + value for total, value in zip(self._totals, keys.traffic(), strict=True)]
        self._registry.retire(keys)
        self._out.put(seam.Retire(keys.base))
        self._local.indices.release(keys.base, now)
