"""The agent's API: one JSON line asked, one JSON line answered, on a unix socket that only root and its group may open.

Law: every request has a version, a bounded size and a bounded time; a request that changes something needs uid 0, which
the kernel vouches for (SO_PEERCRED). An answer is `{"version":1,"result":…}` or `{"version":1,"error":{…}}`.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

VERSION = 1
T = TypeVar("T")


class StatusCall(msgspec.Struct, frozen=True, tag="status"):
    """Answers with the snapshot; without `cluster` it leaves out what there is to tell of every other node."""

    cluster: bool = True


class ConnectCall(msgspec.Struct, frozen=True, tag="connect"):
    """Adds targets (`host`, `host:port`, `[v6]:port`), or with `replace` makes them the only ones."""

    peers: tuple[str, ...]
    replace: bool = False


class ForgetCall(msgspec.Struct, frozen=True, tag="forget"):
    peers: tuple[str, ...]


class AttachCall(msgspec.Struct, frozen=True, tag="attach"):
    """Joins a network namespace (a path) to the bridge; answers with an `Attachment`. Idempotent."""

    netns: str
    name: str
    """What the user called it (a pid or a namespace's name)."""
    address: str | None = None
    interface: str = "eth0"


class DetachCall(msgspec.Struct, frozen=True, tag="detach"):
    netns: str
    name: str
    interface: str = "eth0"


class CniCall(msgspec.Struct, frozen=True, tag="cni"):
    """One invocation of the CNI plugin, as it came; answers with a `CniReply`, whatever is wrong with it."""

    environment: dict[str, str]
    """Of the variables CNI_*."""
    config: msgspec.Raw
    """The network configuration, any JSON."""
    again: bool = False
    """The plugin has asked this before and had no answer, so perhaps it is done already."""


class CniReply(msgspec.Struct, frozen=True):
    """What the plugin prints, null for nothing, and whether it says by its exit code that it failed."""

    output: msgspec.Raw
    failed: bool = False


class ReserveCall(msgspec.Struct, frozen=True, tag="reserve"):
    """An address of this node without a device, for who brings his own; answers with its `Lease`, whose interface is
    empty. Idempotent; it holds until it is released by name, also beyond the agent's life, but not beyond the loss of
    the database or of the block: no device is there to tell of it.
    """

    name: str
    address: str | None = None


class ReleaseCall(msgspec.Struct, frozen=True, tag="release"):
    """What was reserved under this name is free again."""

    name: str


class ExposeCall(msgspec.Struct, frozen=True, tag="expose"):
    """Gives this host addresses in the pods' network, without any one that is free; answers with `Exposed`. Idempotent.

    They are this host's until they are hidden, over restarts of agent and machine.
    """

    addresses: tuple[str, ...] = ()


class Exposed(msgspec.Struct, frozen=True):
    """In the order asked for, without lengths."""

    addresses: tuple[str, ...]


class HideCall(msgspec.Struct, frozen=True, tag="hide"):
    """These addresses, or without any all that are exposed, are free again."""

    addresses: tuple[str, ...] = ()


class BenchCall(msgspec.Struct, frozen=True, tag="bench"):
    """Has the agent of a connected peer start its responder; answers with a `BenchOffer`."""

    peer: str
    """Name, nickname, id or address, as `status` shows them, or a target as it was given."""


class BenchOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Where the peer's responder listens for some seconds, and what lies between."""

    peer: str
    nickname: str
    id: str
    address: str
    tcp: int
    udp: int
    token: str
    """In hex; it opens every connection to the responder."""
    kernel: str
    """The peer's, as are its workers."""
    workers: int
    endpoint: str
    path: str
    mtu: int
    """The largest inner packet of this path."""
    encrypted: bool


class PingCall(msgspec.Struct, frozen=True, tag="ping"):
    """Sends one heartbeat to another node and answers with a `Pinged`, in `seconds` at the latest."""

    peer: str
    """Name, nickname, id or address of the node, or an address in its blocks."""
    seconds: float = 1.0


class Pinged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a heartbeat, and the path that it took."""

    peer: str
    nickname: str
    id: str
    address: str
    """Where the node is reached directly, or was at last; empty if it never was."""
    path: str
    """`direct` or `relay`; empty without a session."""
    via: tuple[NodeName, ...] = ()
    """The relays, in order, as far as this node knows them."""
    mtu: int
    """The largest inner packet of this path; 0 without a session."""
    encrypted: bool
    rtt: float | None
    """Seconds there and back; none without an answer."""
    reason: str
    """Why there is none."""


class Attachment(msgspec.Struct, frozen=True):
    name: str
    address: str
    """With prefix length: `10.32.1.2/32`."""
    interface: str
    mtu: int


class PsCall(msgspec.Struct, frozen=True, tag="ps"):
    """Answers with the `Leases` of this node, or with `all` of every node that answers the agent in time."""

    all: bool = False


class Lease(msgspec.Struct, frozen=True):
    """An address and who has it."""

    address: str
    """Without a length: a pod's is /32."""
    container: str
    interface: str
    node: str
    """Whose block it lies in, by its MAC-like name."""
    nickname: str


class NodeName(msgspec.Struct, frozen=True):
    node: str
    nickname: str


class Leases(msgspec.Struct, frozen=True):
    """In order of address; those of `missing` nodes, which did not answer, are not among them."""

    leases: tuple[Lease, ...]
    missing: tuple[NodeName, ...] = ()


class WhoisCall(msgspec.Struct, frozen=True, tag="whois"):
    """Answers with a `Whois`, for an address on any node."""

    address: str


class Whois(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    state: Literal["held", "bridge", "resting", "free", "silent", "unowned", "outside"]
    """`held` by `lease`; the address of the owner's `bridge`; `resting` after its release; `free`; of an owner that is
    `silent`, so that nobody knows; in an `unowned` block; `outside` of the range."""
    block: str = ""
    """In which it lies, if somebody has that."""
    owner: NodeName | None = None
    lease: Lease | None = None


class RmpeerCall(msgspec.Struct, frozen=True, tag="rmpeer"):
    """Frees the blocks of dead nodes; answers with a tuple of `Removed`, in order of `peers`.

    A node that is known to live is refused, without `force`. With `dry_run` nothing is changed.
    """

    peers: tuple[str, ...]
    """Names, nicknames or ids, as `status ipam` shows them."""
    force: bool = False
    dry_run: bool = False


class Removed(msgspec.Struct, frozen=True):
    node: str
    nickname: str
    addresses: int
    """Of all of its blocks, used or not."""


class LeaveCall(msgspec.Struct, frozen=True, tag="leave"):
    """Hands this node's blocks back; answers with `Left`. Refused while containers have addresses, without `force`."""

    force: bool = False


class Left(msgspec.Struct, frozen=True):
    blocks: int
    addresses: int
    """Of all of them, used or not."""


class SetElectorsCall(msgspec.Struct, frozen=True, tag="set-electors"):
    """Makes these 1, 3 or 5 nodes the electors; the snapshot has them afterwards."""

    peers: tuple[str, ...]


DECIDING = ReserveCall | ReleaseCall | RmpeerCall | SetElectorsCall
"""About addresses and blocks."""
HOSTS = ExposeCall | HideCall
"""About this host's own addresses."""
MEASURING = BenchCall | PingCall
"""What lies between this node and another: that costs both something."""
CHANGING = ConnectCall | ForgetCall | AttachCall | DetachCall | CniCall | LeaveCall | MEASURING | HOSTS | DECIDING
"""Only root may ask for these."""
AddressCall = PsCall | WhoisCall | DECIDING
Call = StatusCall | AddressCall | CHANGING


class Request(msgspec.Struct, Generic[T], frozen=True):
    call: T
    version: int = VERSION


class Failure(msgspec.Struct, frozen=True):
    what: str
    fix: str = ""
    exit_code: int = 1


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    version: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None
