"""What an agent in Kubernetes says of its cluster: the API server, its own Node object, the plugins, the settings.

Law: a pure function of the snapshot. Pods go on without the API server, so its absence is a warning; what keeps pods
from being added is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tunrouter.core.status import Kubernetes, Policy, Snapshot
from tunrouter.doctor.finding import Finding

NAME: Final = "cluster"
SILENT_SECONDS: Final = 10.0
"""So long a policy process may take that is being replaced."""


def cluster(snapshot: Snapshot) -> Iterator[Finding]:
    """Nothing outside of Kubernetes."""
    known = snapshot.kubernetes
    if known is None:
        return
    found = [*_api(known), *_node(known), *_plugins(known), *_policies(known, snapshot.policy)]
    found += [Finding(NAME, "warn", conflict.text, conflict.fix) for conflict in known.conflicts]
    yield from found or [Finding(NAME, "ok", f"the Kubernetes API is in touch, and {known.node} is a node of it")]


def _api(known: Kubernetes) -> Iterator[Finding]:
    if known.away:
        what = f"out of touch with the Kubernetes API: {known.away}; pods go on, and new blocks cannot be had"
        fix = (
            "see from this host whether the API server answers: curl -k https://ADDRESS:PORT/readyz; if it does, and "
            "its Service address does not: TUNROUTER_APISERVER=https://HOST:PORT in the ConfigMap weave-net"
        )
        yield Finding(NAME, "warn", what, fix)


def _node(known: Kubernetes) -> Iterator[Finding]:
    if known.registered is False:
        what = f"there is no Node object {known.node!r} in the cluster, so this node gets no new block of addresses"
        fix = (
            f"kubectl get node {known.node}; restart its kubelet if it was deleted by mistake; else give the agent the "
            "node's name: TUNROUTER_NAME"
        )
        yield Finding(NAME, "fail", what, fix)


def _plugins(known: Kubernetes) -> Iterator[Finding]:
    """The agent's own words, whose last part says what to do."""
    for lack in known.lacks:
        what, _, fix = lack.rpartition("; ")
        yield Finding(NAME, "fail", what or lack, fix if what else "see the agent's log")


def _policies(known: Kubernetes, policy: Policy | None) -> Iterator[Finding]:
    if policy is not None and policy.silent is not None and policy.silent >= SILENT_SECONDS:
        what = f"{policy.why}: no pod can be added to this node, and its rules of NetworkPolicies stay as they are"
        fix = (
            f"see why: kubectl logs -n kube-system POD -c weave-npc, POD being weave-net's on {known.node}; where "
            "another program enforces policies: the overlay no-npc"
        )
        yield Finding(NAME, "fail", what, fix)
