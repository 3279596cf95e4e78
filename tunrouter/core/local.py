"""What this node brings into every handshake: its identity, secrets, worker count, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable

from tunrouter.core import bounds, keys, seam, wire
from tunrouter.core.handshake import Suite, prologue
from tunrouter.core.indices import Indices
from tunrouter.core.routes import Announced


class Local:
    """One life of one node. `random` gives n cryptographically random bytes."""

    def __init__(
        self,
        *,
        identity: keys.Identity,
        incarnation: int,
        ring: keys.KeyRing,
        network: str,
        name: str,
        blocks: tuple[Announced, ...],
        block_length: int,
        pod_mtu: int,
        random: Callable[[int], bytes],
        workers: int = 1,
        silent: bool = False,
        endpoints: tuple[seam.Endpoint, ...] = (),
        discovery: bool = True,
        cluster: int = 0,
    ) -> None:
        """`endpoints` are those the node knows of itself; others are found out by what peers see.

        `blocks` are its own at first (`Routes.own` has those of now); every block of the network has `block_length`.
        Without `discovery` the operator's targets are its only neighbours.
        """
        self.identity = identity
        self.id = identity.node_id
        self.incarnation = incarnation
        self.network = network
        self.name = name
        self.blocks = blocks
        self.block_length = block_length
        self.pod_mtu = pod_mtu
        self.random = random
        self.workers = workers
        self.silent = silent
        self.endpoints = endpoints
        self.discovery = discovery
        self.cluster = cluster
        """The id of the cluster whose registers give blocks to this node; 0 if none does, or it is not known yet."""
        self.blocks_record = b""
        """What gossip says of its own blocks, signed."""
        self.uid = ""
        """Of this node's object in the cluster's API; empty while there is none."""
        self.indices = Indices(workers, random)
        self._sequence = 0
        self.use_secrets(ring)

    def use_secrets(self, ring: keys.KeyRing) -> None:
        """All of `ring` are accepted from now on; sessions that stand are not touched."""
        self.sealed = len(ring) > 0
        start = prologue(self.sealed, self.network)
        psks: tuple[bytes | None, ...] = ring.handshake_psks if self.sealed else (None,)
        self.suites = tuple(Suite(start, psk) for psk in psks)

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def introduction(self, *, keep: bool, seen: seam.Endpoint) -> wire.Introduction:
        """`seen` is where the one it is meant for is."""
        return wire.Introduction(self.name, self.blocks_record, keep, seen if seen[1] else None)

    def jitter(self, seconds: float, share: float) -> float:
        """`seconds` varied by up to `share` of itself in both directions."""
        unit = int.from_bytes(self.random(2), "big") / 0xFFFF
        return seconds * (1 + share * (2 * unit - 1))

    def pause(self, pauses: tuple[float, ...], tries: int) -> float:
        """Seconds after so many tries, varied by `RETRY_JITTER`; the last of `pauses` repeats."""
        return self.jitter(pauses[min(tries, len(pauses) - 1)], bounds.RETRY_JITTER)

    def random_id(self) -> int:
        return int.from_bytes(self.random(8), "big")
