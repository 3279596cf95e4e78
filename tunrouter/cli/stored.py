"""What the disk has of this node while no agent runs, in the structure of the report.

Law: nothing is written or made, not even a lock; the key is read only to know whose it is, and never shown. A database
that cannot be read whole is refused, not shown in part.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tunrouter import __version__
from tunrouter.cli import weave
from tunrouter.core import electorate, keys, status
from tunrouter.core.electors import CONFIGURATION
from tunrouter.edge.store import KEY, SCHEMA, SEED_BYTES, Contents, inspect
from tunrouter.errors import HostError, ProtocolError

if TYPE_CHECKING:
    from tunrouter.config import Config

NO_AGENT: Final = "no agent runs: this is what is on disk"


class Block(msgspec.Struct, frozen=True):
    place: int
    """In the range, counted in blocks."""
    block: str
    """If the range and the size of blocks are those of the configuration here."""
    version: int
    state: str


class Lease(msgspec.Struct, frozen=True):
    address: str
    container: str
    interface: str


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the state directory."""

    state_dir: str
    database: int
    """Its schema."""
    name: str
    id: str
    incarnation: int
    """Of the last life."""
    cluster: str
    epoch: int
    electors: tuple[str, ...]
    targets: tuple[str, ...]
    """Peers that `connect` named."""
    endpoints: tuple[str, ...]
    """Where peers were."""
    blocks: tuple[Block, ...]
    leases: tuple[Lease, ...]
    resting: int
    registers: int
    """That this node keeps as an elector."""


def report(config: Config) -> weave.Tree:
    """Raises HostError."""
    disk = read(config)
    alone = weave.router(
        name=disk.name,
        nickname=config.nickname,
        port=config.port,
        encryption=bool(config.secrets),
        discovery=config.discovery,
        interface=f"{config.tun} (via TUN)",
    )
    pods = IPv4Network(config.range)
    given = [(config.block, 0)] if config.block else [(block.block, block.version) for block in disk.blocks]
    return {
        "schema": weave.SCHEMA,
        "running": False,
        "Ready": False,
        "Version": __version__,
        "VersionCheck": weave.VERSION_CHECK,
        "Router": alone | {"Targets": list(disk.targets)},
        "IPAM": {
            "Paxos": None,
            "Range": config.range,
            "RangeNumIPs": pods.num_addresses,
            "ActiveIPs": len(disk.leases),
            "DefaultSubnet": config.range,
            "Entries": [weave.entry(block, disk.name, config.name, version, known=True) for block, version in given],
            "PendingClaims": [],
            "PendingAllocates": [],
        },
        **weave.ABSENT,
        "disk": disk,
        "snapshot": None,
    }


def read(config: Config) -> Disk:
    """Raises HostError."""
    directory = Path(config.state_dir)
    contents = inspect(directory)
    if contents.schema > SCHEMA:
        what = f"the database in {directory} is of a newer tunrouter (schema {contents.schema}, this knows {SCHEMA})"
        raise HostError(what, "use that version's command")
    try:
        return _disk(config, directory, contents)
    except (KeyError, TypeError, ValueError, ProtocolError) as error:
        raise HostError(f"the database in {directory} holds what no agent wrote: {error!r}") from None


def _disk(config: Config, directory: Path, contents: Contents) -> Disk:
    number = _node_id(directory / KEY)
    lives = [row["incarnation"] for row in _rows(contents, "life")]
    cluster = {row["name"]: row["data"] for row in _rows(contents, "cluster")}
    chosen = electorate.decode(cluster[CONFIGURATION]) if CONFIGURATION in cluster else None
    leases = _rows(contents, "lease")
    held = tuple(Lease(str(IPv4Address(row["address"])), row["container"], row["interface"])
                 for row in leases if row["container"] and not row["release"])  # fmt: skip
    return Disk(
        state_dir=str(directory),
        database=contents.schema,
        name=status.peer_name(number) if number is not None else "",
        id=f"{number:016x}" if number is not None else "",
        incarnation=max(lives, default=0),
        cluster=f"{chosen.cluster:016x}" if chosen is not None else "",
        epoch=chosen.epoch if chosen is not None else 0,
        electors=tuple(status.peer_name(node) for node in sorted(chosen.nodes)) if chosen is not None else (),
        targets=tuple(row["name"] for row in _rows(contents, "target")),
        endpoints=tuple(_endpoint(row["address"], row["port"]) for row in _rows(contents, "endpoint")),
        blocks=tuple(Block(row["place"], _block(config, row["place"]), row["version"], row["state"])
                     for row in _rows(contents, "block")),
        leases=held,
        resting=len(leases) - len(held),
        registers=len(_rows(contents, "register")),
    )  # fmt: skip


def _rows(contents: Contents, table: str) -> list[dict[str, Any]]:
    """Older schemas lack some tables."""
    columns, found = contents.tables.get(table, ((), []))
    return [dict(zip(columns, row, strict=True)) for row in found]


def _block(config: Config, place: int) -> str:
    """Raises ValueError for a place outside of the range."""
    pods = IPv4Network(config.range)
    if not 0 <= place < 1 << (config.block_size - pods.prefixlen):
        raise ValueError(f"block {place} of {pods}")
    return str(IPv4Network((int(pods.network_address) + (place << (32 - config.block_size)), config.block_size)))


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _node_id(key: Path) -> int | None:
    """None for a node that never lived."""
    try:
        seed = key.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{key}: {error.strerror}", "run the command with sudo") from None
    if len(seed) != SEED_BYTES:
        raise HostError(f"{key} has {len(seed)} bytes instead of {SEED_BYTES}", "restore it")
    return keys.Identity(seed).node_id
