"""What the disk has of this node's earlier lives, and what follows from it for the new one.

Law: a node that is older than its database has forgotten what it promised: it founds no cluster. A disk that was last
used in another boot of the machine may be a copy of one that is in use elsewhere.
"""

from __future__ import annotations

import logging
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, NamedTuple

from nacl.utils import random

from tunrouter.agent import rows
from tunrouter.config import Config
from tunrouter.core import holdings, keys, seam
from tunrouter.core.clones import INCARNATION
from tunrouter.core.electorate import Founding
from tunrouter.core.journal import BlockRow, ClusterRow, Persist, Row
from tunrouter.edge.store import AMNESIA, Store
from tunrouter.errors import ConfigError

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
BOOT: Final = "boot"
"""Name of the row that says which boot of the machine the last life was in."""
log = logging.getLogger("tunrouter")


class Kept(NamedTuple):
    identity: keys.Identity
    incarnation: int
    """Of this life."""
    endpoints: tuple[seam.Endpoint, ...]
    targets: tuple[str, ...]
    rows: tuple[Row, ...]
    """Of addresses and registers."""
    forgetful: bool
    """The node is older than its database."""
    moved: ClusterRow | None
    """The machine was booted since the last life, or it is another one: says that it is known, once it is."""


def recall(store: Store) -> Kept:
    """Blocks. A new life begins with it: its incarnation is durable when this returns."""
    if store.aside is not None:
        log.error("the state database was damaged and is kept as %s; a new one was begun", store.aside)
    kept = rows.recall(store.rows())
    cluster = {row.name: row.data for row in kept if isinstance(row, ClusterRow)}
    asserted = int.from_bytes(cluster.get(INCARNATION, b""), "big")
    boot = ClusterRow(BOOT, BOOT_ID.read_bytes().strip())
    moved = cluster.get(BOOT, boot.data) != boot.data and any(isinstance(row, BlockRow) for row in kept)
    if not moved:
        store.write(rows.changes(Persist(0, {boot.key: boot})))
    return Kept(
        identity=keys.Identity(store.identity(random(32))),
        incarnation=store.next_incarnation(max(int(time.time()), asserted + 1)),
        endpoints=store.endpoints(),
        targets=store.targets(),
        rows=tuple(kept),
        forgetful=AMNESIA in cluster,
        moved=boot if moved else None,
    )


def blocks(kept: Kept, network: IPv4Network, length: int) -> tuple[IPv4Network, ...]:
    """What this node had when its last life ended, and has until the electors say something else.

    Raises ConfigError where that was of another range or in other blocks. Older agents did not say.
    """
    rows = [row for row in kept.rows if isinstance(row, BlockRow)]
    known = next((row for row in kept.rows if isinstance(row, ClusterRow) and row.name == holdings.CUT), None)
    if rows and known is not None and known != holdings.cut(network, length):
        before, its_length = known.data.decode().split()
        raise ConfigError(
            f"this node has blocks of /{its_length} out of {before}, not of /{length} out of {network}",
            f"start it with --range {before} --block-size {its_length}; "
            "to give them up: tunrouter leave, or tunrouter reset --purge",
        )
    here = [row for row in rows if row.state != holdings.CLOSING]
    return tuple(holdings.block_at(network, length, row.place) for row in holdings.kept(here, network, length))


def founding(config: Config, kept: Kept) -> Founding | None:
    """With whom this node founds a cluster, if there is none."""
    if config.block or config.observer or config.kubernetes or kept.forgetful:
        return None
    if config.seed:
        return Founding(seed=config.seed)
    if config.init_peers:
        return Founding(config.init_peers)
    return None if config.peers or kept.targets else Founding(1)
