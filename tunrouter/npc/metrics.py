"""What Prometheus is told of this process: one table of metrics, and the values of each from one look.

Law: no label has values without end. docs/metrics.md has the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from tunrouter.edge.metrics import Family, Sample
from tunrouter.edge.processes import Files, Used
from tunrouter.npc.policies import Known


class Look(NamedTuple):
    """All that is told, at one moment."""

    known: Known
    ready: bool
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
           _one(lambda look: look.known.policies)),
    Metric("tunrouter_npc_unenforced_policies", "gauge", (), "Those that are not enforced: in this version all of them",
           _one(lambda look: look.known.policies)),
    Metric("tunrouter_npc_policy_namespaces", "gauge", (), "Namespaces that have NetworkPolicies",
           _one(lambda look: look.known.namespaces)),
    Metric("tunrouter_npc_skipped_policies_total", "counter", (), "NetworkPolicies that came and were not understood",
           _one(lambda look: look.skipped)),
    Metric("tunrouter_npc_ready", "gauge", (), "1 if /readyz says so",
           _one(lambda look: look.ready)),
    Metric("tunrouter_npc_in_touch", "gauge", (), "1 while the Kubernetes API tells of changes",
           _one(lambda look: look.known.listed and not look.known.why)),
    Metric("tunrouter_npc_lists_total", "counter", (), "Lists of all NetworkPolicies: one, and more after outages",
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
