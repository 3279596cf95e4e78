"""The snapshot as metrics: a table of all of them, with Weave's names where the meaning is Weave's.

Law: a metric is a pure view of one snapshot. No label has values without end: they come from closed sets, from this
node's workers, or from those neighbours that have series of their own (`core/tally.py`). A counter only grows while the
agent lives, and is there from the start, at zero, but for answers that never came. docs/metrics.md has the same table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network
from typing import Final, Literal, NamedTuple

from tunrouter.agent import counted
from tunrouter.core.status import LAG_SECONDS, Connection, Ipam, Snapshot, Traffic
from tunrouter.edge.metrics import Distribution, Family, Sample

OTHERS: Final = "others"
"""In place of a peer's name: all whose traffic is not told apart."""
STATES: Final = ("established", "retrying", "failed", "connecting")
OVERLAY: Final = "tun"
Kind = Literal["counter", "gauge", "histogram"]
Samples = Callable[[Snapshot], Iterable[Sample]]


class Metric(NamedTuple):
    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    samples: Samples


def families(snapshot: Snapshot) -> Iterator[Family]:
    for metric in TABLE:
        yield Family(metric.name, metric.kind, metric.labels, metric.meaning, metric.samples(snapshot))


# --- sessions --------------------------------------------------------------------------------------------------------
def _connections(snapshot: Snapshot) -> Iterator[Sample]:
    """Every state is there, also with nobody in it."""
    found = Counter({_labels(state, encrypted=snapshot.encryption): 0 for state in STATES})
    found.update(_labels(row.state, encrypted=row.encrypted) for row in snapshot.connections)
    yield from found.items()


def _labels(state: str, *, encrypted: bool) -> tuple[str, str, str]:
    """What does not stand has neither type nor encryption, as with Weave."""
    return (state, OVERLAY, "yes" if encrypted else "") if state == "established" else (state, "", "")


def _sessions(snapshot: Snapshot) -> Iterator[Sample]:
    paths = [row.path == "direct" for row in snapshot.connections if row.state == "established"]
    yield ("direct",), paths.count(True)
    yield ("relay",), paths.count(False)


def _peers(value: Callable[[Connection], float | None]) -> Samples:
    """Of each neighbour that has series of its own, what is known of it."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        apart = {(row.peer, row.nickname): value(row) for row in snapshot.connections if row.apart}
        yield from ((labels, found) for labels, found in apart.items() if found is not None)

    return samples


def _traffic(value: Callable[[Connection | Traffic], int]) -> Samples:
    """Of each such neighbour, and of all others together."""
    of_peers = _peers(value)

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        yield from of_peers(snapshot)
        yield (OTHERS, ""), value(snapshot.traffic_others)

    return samples


# --- addresses -------------------------------------------------------------------------------------------------------
def _ipam(value: Callable[[Ipam], Iterable[tuple[str, float]]]) -> Samples:
    """By state."""
    return lambda snapshot: [((state,), found) for state, found in value(snapshot.ipam)] if snapshot.ipam else []


def _ipam_one(value: Callable[[Ipam], float]) -> Samples:
    return lambda snapshot: [((), value(snapshot.ipam))] if snapshot.ipam else []


def _blocks(ipam: Ipam) -> Iterator[tuple[str, float]]:
    yield "own", ipam.blocks_own
    yield "others", ipam.blocks_owned - ipam.blocks_own
    yield "free", ipam.blocks_free


def _electors(ipam: Ipam) -> Iterator[tuple[str, float]]:
    reachable = [elector.reachable for elector in ipam.electors]
    yield "reachable", reachable.count(True)
    yield "unreachable", reachable.count(False)


def _unreachable_share(ipam: Ipam) -> float:
    return 100 * sum(owner.share for owner in ipam.owners if not owner.reachable)


# --- the node itself -------------------------------------------------------------------------------------------------
def _one(value: Callable[[Snapshot], float]) -> Samples:
    return lambda snapshot: [((), value(snapshot))]


def _nodes(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.gossip is not None:
        yield ("known",), snapshot.gossip.nodes
        yield ("reachable",), snapshot.gossip.reachable


def _gossip(field: str) -> Samples:
    return lambda snapshot: [((), getattr(snapshot.gossip, field))] if snapshot.gossip else []


def _requests(snapshot: Snapshot) -> Iterator[Sample]:
    asked = snapshot.kubernetes.requests if snapshot.kubernetes is not None else ()
    yield from (((each.verb, each.resource, each.code), each.count) for each in asked)


def _in_touch(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.kubernetes is not None:
        yield (), not snapshot.kubernetes.away


def _policy_in_touch(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.policy is not None and snapshot.policy.expected:
        yield (), snapshot.policy.silent is None


def _workers(field: str) -> Samples:
    return lambda snapshot: [((str(worker.number),), getattr(worker, field)) for worker in snapshot.workers]


def _lag(snapshot: Snapshot) -> Iterator[Sample]:
    if (lag := snapshot.lag) is not None:
        yield (), Distribution(tuple(zip(LAG_SECONDS, lag.within, strict=True)), lag.looks, lag.seconds)


def _counted(names: Iterable[str], prefix: str = "") -> Samples:
    return lambda snapshot: counted.values(names, snapshot.counters, prefix)


def _counter(name: str) -> Samples:
    return _one(lambda snapshot: snapshot.counters.get(name, 0))


def _single(counter: str, meaning: str) -> Metric:
    return Metric(counted.SINGLE[counter], "counter", (), meaning, _counter(counter))


PEER: Final = ("peer", "nickname")
_WEAVE: Final = (
    Metric("weave_connections", "gauge", ("state", "type", "encryption"),
           "Connections with peers: established, retrying (no answer), failed (a mismatch) or connecting",
           _connections),
    _single("sessions_ended", "Connections that stood and do not any more"),
    Metric("weave_ips", "gauge", ("state",), "Addresses that pods of this node have (local-used)",
           _ipam(lambda ipam: [("local-used", ipam.used)])),
    Metric("weave_max_ips", "gauge", (), "Addresses of the whole range",
           _ipam_one(lambda ipam: IPv4Network(ipam.range).num_addresses)),
    Metric("weave_ipam_unreachable_count", "gauge", (), "Nodes that have blocks and cannot be reached",
           _ipam_one(lambda ipam: sum(not owner.reachable for owner in ipam.owners))),
    Metric("weave_ipam_unreachable_percentage", "gauge", (),
           "How much of the range belongs to nodes that cannot be reached, in percent", _ipam_one(_unreachable_share)),
    Metric("weave_ipam_pending_allocates", "gauge", (), "Containers that wait for an address",
           _ipam_one(lambda ipam: ipam.pending_allocates)),
    Metric("weave_ipam_pending_claims", "gauge", (), "Addresses used here that wait until their block is this node's",
           _ipam_one(lambda ipam: ipam.pending_claims)),
)  # fmt: skip
_PAYLOAD: Final = (
    Metric("tunrouter_tx_packets_total", "counter", (), "Packets of pods that were sent to other nodes",
           _one(lambda snapshot: snapshot.traffic.sent_packets)),
    Metric("tunrouter_tx_bytes_total", "counter", (), "Bytes of these packets, without what the tunnel adds",
           _one(lambda snapshot: snapshot.traffic.sent_bytes)),
    Metric("tunrouter_rx_packets_total", "counter", (), "Packets that came from other nodes for pods",
           _one(lambda snapshot: snapshot.traffic.received_packets)),
    Metric("tunrouter_rx_bytes_total", "counter", (), "Bytes of these packets, without what the tunnel adds",
           _one(lambda snapshot: snapshot.traffic.received_bytes)),
    _single("datagrams_out", "Datagrams that were sent, control's and relayed ones too"),
    _single("frames_in", "Frames that were written to the TUN device, each of one packet or several joined ones"),
    Metric("tunrouter_dropped_packets_total", "counter", ("reason",), "Packets and datagrams that were dropped",
           _counted(counted.DROPPED, "drop_")),
    Metric("tunrouter_relayed_datagrams_total", "counter", ("action",),
           "Datagrams sent by way of another node, forwarded for others, or delivered from a relay",
           _counted(counted.RELAYED, "relay_")),
)  # fmt: skip
_PEERS: Final = (
    Metric("tunrouter_peer_tx_packets_total", "counter", PEER, "Packets of pods that were sent to this neighbour",
           _traffic(lambda row: row.sent_packets)),
    Metric("tunrouter_peer_tx_bytes_total", "counter", PEER, "Bytes of packets that were sent to this neighbour",
           _traffic(lambda row: row.sent_bytes)),
    Metric("tunrouter_peer_rx_packets_total", "counter", PEER, "Packets that came from this neighbour for pods",
           _traffic(lambda row: row.received_packets)),
    Metric("tunrouter_peer_rx_bytes_total", "counter", PEER, "Bytes of packets that came from this neighbour",
           _traffic(lambda row: row.received_bytes)),
    Metric("tunrouter_peer_rtt_seconds", "gauge", PEER, "Smoothed round trip of heartbeats",
           _peers(lambda row: row.rtt)),
    Metric("tunrouter_peer_loss_ratio", "gauge", PEER,
           "Share of the last hundred heartbeats that was not answered; known after ten", _peers(lambda row: row.loss)),
    Metric("tunrouter_peer_path_mtu_bytes", "gauge", PEER, "The largest packet of a pod that the path carries",
           _peers(lambda row: row.mtu or None)),
)  # fmt: skip
_MESH: Final = (
    Metric("tunrouter_sessions", "gauge", ("path",), "Sessions that stand, direct or by relay", _sessions),
    _single("sessions_opened", "Sessions that were opened"),
    _single("rekeys", "New keys of sessions that stood already"),
    Metric("tunrouter_refused_handshakes_total", "counter", ("reason",), "Handshakes that came to nothing",
           _counted(counted.REFUSED)),
    Metric("tunrouter_nodes", "gauge", ("state",), "Nodes of the network, this one included: known, and reachable",
           _nodes),
    Metric("tunrouter_neighbours", "gauge", (), "Nodes that this one exchanges gossip with",
           lambda snapshot: [((), len(snapshot.gossip.neighbours))] if snapshot.gossip else []),
    Metric("tunrouter_gossip_tx_messages_total", "counter", (), "Messages of gossip that were sent",
           _gossip("sent_messages")),
    Metric("tunrouter_gossip_tx_bytes_total", "counter", (), "Bytes of gossip that were sent", _gossip("sent_bytes")),
    Metric("tunrouter_gossip_rx_messages_total", "counter", (), "Messages of gossip that came",
           _gossip("received_messages")),
    Metric("tunrouter_gossip_rx_bytes_total", "counter", (), "Bytes of gossip that came", _gossip("received_bytes")),
)  # fmt: skip
_ADDRESSES: Final = (
    Metric("tunrouter_addresses", "gauge", ("state",), "Addresses of this node's blocks: used, free or resting",
           _ipam(lambda ipam: [("used", ipam.used), ("free", ipam.free), ("resting", ipam.resting)])),
    Metric("tunrouter_blocks", "gauge", ("state",), "Blocks of the range: this node's own, others' or free",
           _ipam(_blocks)),
    Metric("tunrouter_electors", "gauge", ("state",), "Electors that are reachable or unreachable from this node",
           _ipam(_electors)),
    Metric("tunrouter_fenced_pods", "gauge", (), "Pods that are cut off because their block is another node's now",
           _one(lambda snapshot: len(snapshot.host.fenced))),
    Metric("tunrouter_attached_pods", "gauge", (), "Interfaces of pods on the bridge",
           _one(lambda snapshot: snapshot.host.attachments)),
)  # fmt: skip
_KUBERNETES: Final = (
    Metric("tunrouter_kubernetes_in_touch", "gauge", (),
           "1 while the API server tells this node what changes; not there without Kubernetes", _in_touch),
    Metric("tunrouter_kubernetes_requests_total", "counter", ("verb", "resource", "code"),
           "Requests to the API server, by the status code of its answer", _requests),
    Metric("tunrouter_kubernetes_policy_in_touch", "gauge", (),
           "1 while weave-npc answers this agent; not there where none is expected", _policy_in_touch),
)  # fmt: skip
_NODE: Final = (
    Metric("tunrouter_build_info", "gauge", ("version", "kernel"),
           "Always 1: what runs, and whether packets are moved by the compiled kernel or its reference in Python",
           lambda snapshot: [((snapshot.version, snapshot.kernel), 1)]),
    Metric("tunrouter_ready", "gauge", (), "1 if pods can be given their network; /readyz says why not",
           _one(lambda snapshot: not snapshot.unready)),
    Metric("tunrouter_warnings", "gauge", (), "Warnings of `tunrouter status`",
           _one(lambda snapshot: len(snapshot.warnings))),
    Metric("tunrouter_host_repairs_total", "counter", (),
           "Things of this host that somebody changed and the agent put back", _one(lambda s: s.host.repairs)),
    Metric("tunrouter_event_loop_lag_seconds", "histogram", (),
           "How late the agent's loop is, looked at four times a second", _lag),
    Metric("tunrouter_bounds_hit_total", "counter", ("bound",),
           "Limits that were hit; each is counted by one of the other metrics, too", _counted(counted.BOUNDS)),
    Metric("tunrouter_faults_total", "counter", ("fault",), "All else that should not happen, or only now and then",
           _counted(counted.FAULTS)),
    Metric("tunrouter_events_total", "counter", ("event",), "What happens in an ordinary life",
           _counted(counted.EVENTS)),
    _single("worker_restarts", "Workers that were replaced"),
    Metric("tunrouter_worker_cpu_seconds_total", "counter", ("worker",), "Processor time of each worker",
           _workers("cpu_seconds")),
    Metric("tunrouter_worker_resident_memory_bytes", "gauge", ("worker",), "Resident memory of each worker",
           _workers("resident_bytes")),
    Metric("process_cpu_seconds_total", "counter", (), "Processor time of the agent, without its workers",
           _one(lambda snapshot: snapshot.process.cpu_seconds)),
    Metric("process_resident_memory_bytes", "gauge", (), "Resident memory of the agent, without its workers",
           _one(lambda snapshot: snapshot.process.resident_bytes)),
    Metric("process_virtual_memory_bytes", "gauge", (), "Virtual memory of the agent",
           _one(lambda snapshot: snapshot.process.virtual_bytes)),
    Metric("process_open_fds", "gauge", (), "Descriptors that the agent has open",
           _one(lambda snapshot: snapshot.process.open_files)),
    Metric("process_max_fds", "gauge", (), "Descriptors that the agent may have",
           _one(lambda snapshot: snapshot.process.max_files)),
    Metric("process_start_time_seconds", "gauge", (), "When the agent started, in seconds since 1970",
           _one(lambda snapshot: snapshot.started)),
)  # fmt: skip
TABLE: Final = (*_WEAVE, *_PAYLOAD, *_PEERS, *_MESH, *_ADDRESSES, *_KUBERNETES, *_NODE)
