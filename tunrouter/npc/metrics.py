"""What Prometheus is told of this process: one table of metrics, and the values of each from one look.

Law: no label has values without end. docs/metrics.md has the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from tunrouter.edge.metrics import Family, Sample
from tunrouter.edge.processes import Files, Used
from tunrouter.npc.notice import State


class Look(NamedTuple):
    """All that is told, at one moment."""

    state: State
    ready: bool
    transactions: int
    seconds: float
    repairs: int
    refusals: int
    cut: int
    blocked: Mapping[tuple[str, str], int]
    """By protocol and destination port."""
    unread: int
    lists: int
    skipped: int
    requests: Mapping[tuple[str, str, str], int]
    """By verb, resource and outcome."""
    used: Used
    files: Files
    started: float


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    meaning: str
    samples: Callable[[Look], Iterable[Sample]]


def families(look: Look) -> Iterator[Family]:
    for name, kind, labels, meaning, samples in TABLE:
        yield Family(name, kind, labels, meaning, samples(look))


def _one(value: Callable[[Look], float]) -> Callable[[Look], Iterable[Sample]]:
    return lambda look: [((), value(look))]


TABLE: Final = (
    Metric("tunrouter_npc_policies", "gauge", (), "NetworkPolicies in the cluster",
           _one(lambda look: look.state.known.policies)),
    Metric("tunrouter_npc_policy_namespaces", "gauge", (), "Namespaces that have NetworkPolicies",
           _one(lambda look: look.state.known.namespaces)),
    Metric("tunrouter_npc_faulty_policies", "gauge", (),
           "Policies that are not understood wholly: the rest permits nothing",
           _one(lambda look: len(look.state.known.faulty))),
    Metric("tunrouter_npc_cluster_pods", "gauge", (), "Pods of the cluster that are known",
           _one(lambda look: look.state.known.pods)),
    Metric("tunrouter_npc_pods", "gauge", (), "Containers of this node",
           _one(lambda look: look.state.pods)),
    Metric("tunrouter_npc_isolated_pods", "gauge", (), "Those of them that policies isolate in any direction",
           _one(lambda look: look.state.isolated)),
    Metric("tunrouter_npc_in_force", "gauge", (), "1 while the kernel has the rules that it should have",
           _one(lambda look: not look.state.why)),
    Metric("tunrouter_npc_transactions_total", "counter", (), "Changes of the kernel's rules",
           _one(lambda look: look.transactions)),
    Metric("tunrouter_npc_transaction_seconds_total", "counter", (), "What they took, nft's start included",
           _one(lambda look: look.seconds)),
    Metric("tunrouter_npc_repairs_total", "counter", (), "Rules that others changed, and that were written anew",
           _one(lambda look: look.repairs)),
    Metric("tunrouter_npc_refused_transactions_total", "counter", (), "Changes that the kernel refused",
           _one(lambda look: look.refusals)),
    Metric("tunrouter_npc_cut_flows_total", "counter", (), "Connections ended because policies forbid them now",
           _one(lambda look: look.cut)),
    Metric("weavenpc_blocked_connections_total", "counter", ("protocol", "dport"),
           "Packets of connections that policies refused, up to 200 a second; port other: beyond the first 100 ports",
           lambda look: list(look.blocked.items())),
    Metric("tunrouter_npc_unread_drops_total", "counter", (),
           "Refused packets that came too fast or were not understood",
           _one(lambda look: look.unread)),
    Metric("tunrouter_npc_skipped_objects_total", "counter", (), "Objects that came and were not understood at all",
           _one(lambda look: look.skipped)),
    Metric("tunrouter_npc_ready", "gauge", (), "1 if /readyz says so",
           _one(lambda look: look.ready)),
    Metric("tunrouter_npc_in_touch", "gauge", (), "1 while the Kubernetes API tells of changes",
           _one(lambda look: look.state.known.listed and not look.state.known.why)),
    Metric("tunrouter_npc_lists_total", "counter", (), "Lists of pods, namespaces, policies: three, more after outages",
           _one(lambda look: look.lists)),
    Metric("tunrouter_npc_api_requests_total", "counter", ("verb", "resource", "outcome"),
           "Requests to the Kubernetes API: the answer's status code, or unreachable",
           lambda look: list(look.requests.items())),
    Metric("process_cpu_seconds_total", "counter", (), "Processor time",
           _one(lambda look: look.used.cpu_seconds)),
    Metric("process_resident_memory_bytes", "gauge", (), "Resident memory",
           _one(lambda look: look.used.resident_bytes)),
    Metric("process_virtual_memory_bytes", "gauge", (), "Virtual memory",
           _one(lambda look: look.used.virtual_bytes)),
    Metric("process_open_fds", "gauge", (), "Descriptors that are open",
           _one(lambda look: look.files.open)),
    Metric("process_max_fds", "gauge", (), "Descriptors that may be open",
           _one(lambda look: look.files.most)),
    Metric("process_start_time_seconds", "gauge", (), "When it started, in seconds since 1970",
           _one(lambda look: look.started)),
)  # fmt: skip
