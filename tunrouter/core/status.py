"""The snapshot: everything the agent says of itself, built on demand; text, JSON, metrics and the doctor render it.

Law: fields are only added, and `schema` grows when one changes its meaning. Durations are seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SCHEMA = 1

MISMATCH: Final = "password"
"""A fault of a connection: the two have other secrets, or only one has any."""
ONE_WAY_OUT: Final = "one-way-out"
"""What the peer sends arrives here; what we send does not arrive there."""
ONE_WAY_IN: Final = "one-way-in"
"""The peer says that what we send arrives there; what it sends does not arrive here."""
RELAYED: Final = "relayed"
"""There is no direct way, and it is not known which direction is dead."""
SILENT: Final = "silent"
"""Nobody answers."""
CLUSTER: Final = "cluster"
"""The peer belongs to another cluster."""
VERSION: Final = "version"
"""The peer speaks another version of the protocol."""
CLONE: Final = "clone"
"""Somebody else has this node's identity."""
OURSELVES: Final = "ourselves"
"""The address is this node's own."""
BLOCKS: Final = "blocks"
"""The peer's blocks cannot be routed."""
HOLE: Final = "hole"
"""Not even the smallest datagrams that count as large arrive."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One session or attempt, in the order and with the states Weave's users know."""

    outbound: bool
    address: str
    """`192.0.2.7:6783`, `[2001:db8::7]:6783`, or the name a target was given as while it does not resolve."""
    state: str
    """`established`, `retrying` (no answer), `failed` (a mismatch) or `connecting`."""
    peer: str = ""
    """The peer's name, MAC-like; empty until it is known."""
    nickname: str = ""
    encrypted: bool = False
    protocol: int = 0
    """The version that both ends speak; 0 without a session."""
    path: str = "direct"
    mtu: int = 0
    """The largest inner packet of this path."""
    rtt: float | None = None
    loss: float | None = None
    """Share of the last hundred heartbeats, roughly, that this path did not answer; none while they were too few."""
    last_handshake: float | None = None
    """Seconds since the newest keys were made."""
    last_received: float | None = None
    via: str = ""
    """The name of the relay where a path by relay begins."""
    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    counted: float | None = None
    """Seconds since the data plane told these four; while they grow it does so once a second."""
    apart: bool = False
    """Metrics show its sums, instead of adding them to those of the others."""
    reason: str = ""
    """Why it is not established, or of the last failure."""
    retry_in: float | None = None
    fault: str = ""
    """One of `MISMATCH` to `HOLE` above: what `reason` says, for programs; empty while nothing is known to be wrong."""
    refused: int = 0
    """Handshakes from there that came to nothing, as long as they come again within a minute."""
    path_mtu: int = 0
    """The largest datagram of this path, with its IP header; 0 while there is no session."""
    path_mtu_wanted: int = 0
    """What it takes for the largest packets of pods."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Packets of pods between this node and others, since the agent started."""

    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One node: this one first."""

    name: str
    nickname: str
    id: str
    """Node id, 16 hex digits."""
    blocks: tuple[str, ...]
    connections: tuple[Connection, ...] = ()
    refused: str = ""
    """Why its blocks are not routed; empty if they are."""
    mtu: int = 0
    """Of its pods; 0 while it is not known."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a block, and how packets for it go."""

    block: str
    version: int
    """Of the register that gave it to the node; 0 for one that the operator gave."""
    peer: str
    nickname: str
    path: str
    """`local`, `direct`, `relay through X`, or `on demand` while there is no session."""
    mtu: int = 0
    """The largest inner packet, once it is known."""
    conflict: str = ""
    """Why packets do not follow this announcement; empty if they do."""


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A node that this one exchanges gossip with."""

    peer: str
    nickname: str
    reason: str
    """`target` (the operator named it), `chosen` (by chance) or `theirs` (it chose us)."""
    rtt: float | None
    queued: int
    """Records that wait for it."""
    unacknowledged: int
    """Messages under way to it."""


class Gossip(msgspec.Struct, frozen=True, kw_only=True):
    nodes: int
    """Known, this one included."""
    reachable: int
    records: int
    digest: str
    """Of all records: equal where views are equal."""
    neighbours: tuple[Neighbour, ...]
    sent_messages: int = 0
    """Of gossip, since the agent started."""
    sent_bytes: int = 0
    received_messages: int = 0
    received_bytes: int = 0


class Elector(msgspec.Struct, frozen=True, kw_only=True):
    """A node that keeps a copy of the registers; a majority of them decides whose a block is."""

    peer: str
    nickname: str
    reachable: bool
    this: bool = False
    """It is this node."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has blocks, or this one even if it has none."""

    peer: str
    nickname: str
    blocks: int
    addresses: int
    """Of all its blocks, used or not."""
    share: float
    """Of the range, 0 to 1."""
    reachable: bool
    active: int | None = None
    """Addresses in use; known of this node alone."""


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Something that waits."""

    what: str
    why: str
    container: str = ""
    """The one that waits for an address."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An address that is used here and whose block this node does not have."""

    container: str
    address: str


class Ipam(msgspec.Struct, frozen=True, kw_only=True):
    """Whose addresses are whose, as far as this node knows."""

    mode: Literal["static", "registers", "leases"]
    """Blocks are given by the operator, or decided by the electors, or by the Kubernetes API."""
    status: str
    """One of `JOINING` to `UNREACHABLE` below, `awaiting_consensus` or `no_quorum`."""
    cluster: str = ""
    """Its random id; empty until there is one."""
    epoch: int = 0
    """Of the electors: it grows whenever they change."""
    electors: tuple[Elector, ...] = ()
    range: str
    block_size: int
    """Length of each block's prefix."""
    blocks_total: int
    blocks_owned: int
    blocks_free: int
    blocks_own: int
    """Of this node."""
    used: int
    """Addresses in this node's blocks that somebody has; the next two are of those blocks, too."""
    free: int
    resting: int
    """Released so lately that nobody gets them yet."""
    pending: tuple[Pending, ...] = ()
    pending_allocates: int = 0
    """Containers that wait for an address."""
    pending_claims: int = 0
    """How many `claims` there are."""
    claims: tuple[Claimed, ...] = ()
    quorum: int = 0
    """How many electors must agree, or how many nodes to found the cluster; 0 where blocks are given by hand."""
    known: int = 0
    """How many of those are there."""
    owners: tuple[Owner, ...]
    """This node first, then by name."""
    fenced: tuple[str, ...] = ()
    """Pods of this node, with their addresses, whose block is another's now: their traffic is dropped."""


JOINING = "joining"
READY = "ready"
WAITING = "waiting for IP(s) to become available"
UNREACHABLE = "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"


def awaiting_consensus(quorum: int, known: int) -> str:
    """The founding waits for `quorum` nodes, of which it knows `known`."""
    return f"awaiting consensus (quorum: {quorum}, known: {known})"


def no_quorum(reachable: int, electors: int) -> str:
    """Nobody gets a new block; addresses inside blocks are given all the same."""
    return f"no quorum: {reachable} of {electors} electors reachable"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What was set up on this machine."""

    bridge: str = ""
    bridge_address: str = ""
    bridge_mode: str = ""
    """`isolated` (bridge-nf-call-iptables=0) or `hairpin` (1)."""
    tun: str = ""
    tun_offloads: tuple[str, ...] = ()
    underlay: str = ""
    """The one address that the tunnel uses; empty: all."""
    underlay_device: str = ""
    """Which has it."""
    underlay_wish: str = ""
    """Who chose it, and how; empty if nobody did."""
    underlay_mtu: int = 0
    attachments: int = 0
    firewall: tuple[str, ...] = ()
    """Foreign chains that would drop our traffic, each with what was done about it."""
    fenced: tuple[str, ...] = ()
    """Pods whose traffic is dropped because this node lost their block, each with its address."""
    strangers: tuple[str, ...] = ()
    """Devices of other networks in our range or on our bridge, each with what takes it away."""
    repairs: int = 0
    """Things that somebody changed and the agent put back, since it started."""
    repaired: tuple[str, ...] = ()
    """The last of these, the newest first."""


REPAIRS: Final = "host_repairs"
"""`Host.repairs`, among what was counted lately."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What a process has used, as the kernel says."""

    cpu_seconds: float = 0.0
    resident_bytes: int = 0
    virtual_bytes: int = 0
    open_files: int = 0
    max_files: int = 0


LAG_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How much later than planned the agent's loop looked at its clock, since the agent started."""

    looks: int
    seconds: float
    """Of all of them together."""
    within: tuple[int, ...]
    """Looks that came within each of `LAG_SECONDS`."""


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """How the wall clock was set while the agent ran."""

    jumps: int = 0
    last: float = 0.0
    """The last jump in seconds, forward or, if negative, back."""
    ago: float | None = None
    """Seconds since that; none while there was no jump."""


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the data plane."""

    number: int
    pid: int
    """0 while it is being replaced."""
    uptime: float
    restarts: int
    """How often it was replaced since the agent started."""
    cpu_seconds: float = 0.0
    """Of the process that is there now; so are the next."""
    resident_bytes: int = 0


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """What the API server was asked, since the agent started."""

    verb: str
    resource: str
    code: str
    """Of the answer; `unreachable` without one."""
    count: int


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """What in the cluster's own settings works against this network."""

    text: str
    fix: str


class Kubernetes(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster that this node belongs to."""

    node: str
    """Name of its Node object."""
    registered: bool | None = None
    """There is one; none while it is not known."""
    away: str = ""
    """Why the API is out of touch; empty if it is not."""
    lacks: tuple[str, ...] = ()
    """What of the CNI network could not be installed, each with why."""
    conflicts: tuple[Conflict, ...] = ()
    requests: tuple[Requests, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Who sees to NetworkPolicies on this node of a cluster, as its agent knows."""

    expected: bool
    """The policy process; otherwise it is another program's affair."""
    silent: float | None = None
    """For so many seconds it does not answer; none while it does."""
    why: str = ""
    """What happened when it was asked; empty if it answered."""
    amiss: str = ""
    """What it answered: why the kernel has the rules of before, and not all that policies ask for now."""
    hindrance: str = ""
    """Why no pod can be added, once that lasts; empty if one can."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = SCHEMA
    version: str
    name: str
    nickname: str
    id: str
    incarnation: int
    network: str
    port: int
    encryption: bool
    secrets: int
    kernel: str
    """`reference` (Python) or `c`."""
    range: str
    block: str
    mtu: int
    """What pods are born with."""
    uptime: float
    targets: tuple[str, ...]
    connections: tuple[Connection, ...]
    peers: tuple[Peer, ...]
    host: Host
    counters: dict[str, int]
    warnings: tuple[str, ...] = ()
    workers: tuple[Worker, ...] = ()
    discovery: bool = True
    """Neighbours are chosen among all nodes; otherwise only targets are."""
    routes: tuple[Route, ...] = ()
    gossip: Gossip | None = None
    ipam: Ipam | None = None
    started: float = 0.0
    """When the agent did, in seconds since 1970."""
    unready: str = ""
    """Why no pod can be given its network now; empty if one can."""
    traffic: Traffic = Traffic()
    traffic_others: Traffic = Traffic()
    """Of it, what is of no connection that is `apart`."""
    process: Process = Process()
    """The agent's own."""
    lag: Lag | None = None
    lately: dict[str, int] = {}
    """What was counted in the last minute or two, of `counters` and of `REPAIRS`; without what was not."""
    clock: Clock | None = None
    endpoints: tuple[str, ...] = ()
    """Where others see this node, or it was told that it is."""
    kubernetes: Kubernetes | None = None
    """Only of an agent that runs with `kubernetes`."""
    policy: Policy | None = None
    """The same."""


def peer_name(node: int) -> str:
    """A node id as the MAC-like name Weave's users know: its first six bytes."""
    return ":".join(f"{byte:02x}" for byte in node.to_bytes(8, "big")[:6])
