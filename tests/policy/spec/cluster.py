"""Whose an address is, and which ports a pod names.

Law: a pod is a peer and a target by the addresses that are its own. Those of a pod on its node's network are the
node's, those of an ended pod are nobody's, and of two that claim one address the younger has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

Json = dict[str, Any]
Address = IPv4Address | IPv6Address


class Cluster(NamedTuple):
    pods: Sequence[Json]
    namespaces: Sequence[Json]
    policies: Sequence[Json]
    nodes: Mapping[str, Sequence[str]]
    """All the addresses of each node, that of its bridge too."""


@cache
def parsed(address: str) -> Address:
    return ip_address(address)


def addresses(pod: Json) -> list[Address]:
    """As its status says: `podIPs`, and where a server is older than that, `podIP`."""
    status = pod.get("status") or {}
    texts = [entry.get("ip") for entry in status.get("podIPs") or []] or [status.get("podIP")]
    return [parsed(text) for text in texts if text]


def is_on_the_nodes_network(pod: Json) -> bool:
    return (pod.get("spec") or {}).get("hostNetwork") is True


def is_ended(pod: Json) -> bool:
    """One with a deletionTimestamp is not, as long as its object is there: its containers may run still."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def pod_at(cluster: Cluster, address: str) -> Json | None:
    """None: it is an address and no more, whatever has it."""
    claiming = [
        pod
        for pod in cluster.pods
        if parsed(address) in addresses(pod) and not is_on_the_nodes_network(pod) and not is_ended(pod)
    ]
    # RFC 3339 in UTC, as the server writes it, sorts as text.
    return max(claiming, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)


def labels_of_namespace(cluster: Cluster, name: str) -> Mapping[str, str] | None:
    """None: there is no such namespace."""
    for namespace in cluster.namespaces:
        if namespace["metadata"]["name"] == name:
            return namespace["metadata"].get("labels") or {}
    return None


def ports_named(pod: Json, name: str, protocol: str) -> set[int]:
    """Of all containers, and of the sidecars: initContainers that are always restarted. Others have ended."""
    spec = pod.get("spec") or {}
    sidecars = [one for one in spec.get("initContainers") or [] if one.get("restartPolicy") == "Always"]
    return {
        port["containerPort"]
        for container in [*(spec.get("containers") or []), *sidecars]
        for port in container.get("ports") or []
        if port.get("name") == name and (port.get("protocol") or "TCP") == protocol
    }
