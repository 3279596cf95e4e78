"""The answer: may a packet that begins a connection go from one address to another?

Law: it may leave and it may enter. A pod is isolated in a direction as soon as one policy of its namespace that is for
this direction selects it, and then only that passes which a rule of one such policy permits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from tests.policy.spec.cluster import Cluster, Json, labels_of_namespace, parsed, pod_at, ports_named
from tests.policy.spec.understood import network, rule_is_understood, selector_is_understood

Direction = Literal["Ingress", "Egress"]
RULES: Final = {"Ingress": "ingress", "Egress": "egress"}
PEERS: Final = {"Ingress": "from", "Egress": "to"}


def allowed(cluster: Cluster, source: str, destination: str, protocol: str, port: int) -> bool:
    """A protocol without ports, as ICMP, is asked for with any port."""
    sender, receiver = pod_at(cluster, source), pod_at(cluster, destination)
    if sender is not None and sender is receiver:
        return True  # a pod cannot cut itself off from itself
    return leaves(cluster, source, destination, protocol, port) and enters(cluster, source, destination, protocol, port)


def leaves(cluster: Cluster, source: str, destination: str, protocol: str, port: int) -> bool:
    """Whether the source's policies let it go, were it not the destination itself; also to its own node."""
    pod = pod_at(cluster, source)
    return pod is None or _passes(cluster, pod, "Egress", destination, destination, protocol, port)


def enters(cluster: Cluster, source: str, destination: str, protocol: str, port: int) -> bool:
    """Whether the destination's policies let it in; a pod's own node is always let in, any other is but an address."""
    pod = pod_at(cluster, destination)
    if pod is None:
        return True
    own_node = (pod.get("spec") or {}).get("nodeName") or ""
    if parsed(source) in [parsed(address) for address in cluster.nodes.get(own_node, ())]:
        return True
    return _passes(cluster, pod, "Ingress", source, destination, protocol, port)


def is_isolated(cluster: Cluster, address: str, direction: Direction) -> bool:
    pod = pod_at(cluster, address)
    return pod is not None and any(_isolates(policy, pod, direction) for policy in cluster.policies)


def _passes(
    cluster: Cluster, pod: Json, direction: Direction, peer: str, destination: str, protocol: str, port: int
) -> bool:
    isolating = [policy for policy in cluster.policies if _isolates(policy, pod, direction)]
    if not isolating:
        return True
    for policy in isolating:
        if not selector_is_understood(_pod_selector(policy)):
            continue  # nobody knows whom it would permit what
        for rule in (policy.get("spec") or {}).get(RULES[direction]) or []:
            if (
                rule_is_understood(rule, PEERS[direction])
                and _is_a_peer(cluster, policy, rule.get(PEERS[direction]), peer)
                and _is_a_port(cluster, rule.get("ports"), destination, protocol, port)
            ):
                return True
    return False


def _pod_selector(policy: Json) -> Any:
    """The field is optional: absent, it selects all."""
    selector = (policy.get("spec") or {}).get("podSelector")
    return {} if selector is None else selector


def _isolates(policy: Json, pod: Json, direction: Direction) -> bool:
    if policy["metadata"]["namespace"] != pod["metadata"]["namespace"] or direction not in _types(policy):
        return False
    selector = _pod_selector(policy)
    return not selector_is_understood(selector) or _selects(selector, pod["metadata"].get("labels") or {})


def _types(policy: Json) -> list[str]:
    """Without any it is for ingress, and for egress if it has a rule for it."""
    spec = policy.get("spec") or {}
    if spec.get("policyTypes"):
        return list(spec["policyTypes"])
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _selects(selector: Json, labels: Mapping[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        if operator == "In" and (key not in labels or labels[key] not in values):
            return False
        if operator == "NotIn" and (key in labels and labels[key] in values):
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def _is_a_peer(cluster: Cluster, policy: Json, peers: list[Json] | None, address: str) -> bool:
    if not peers:
        return True
    return any(_is_this_peer(cluster, policy, peer, address) for peer in peers)


def _is_this_peer(cluster: Cluster, policy: Json, peer: Json, address: str) -> bool:
    if peer.get("ipBlock") is not None:
        return _is_in_block(peer["ipBlock"], address)
    pod = pod_at(cluster, address)
    if pod is None:
        return False
    namespace = pod["metadata"]["namespace"]
    if peer.get("namespaceSelector") is None:
        if namespace != policy["metadata"]["namespace"]:
            return False
    else:
        labels = labels_of_namespace(cluster, namespace)
        if labels is None or not _selects(peer["namespaceSelector"], labels):
            return False
    return peer.get("podSelector") is None or _selects(peer["podSelector"], pod["metadata"].get("labels") or {})


def _is_in_block(block: Json, address: str) -> bool:
    """Whether a pod has the address or not."""
    whole, excepted = network(block["cidr"]), [network(text) for text in block.get("except") or []]
    assert whole is not None
    return parsed(address) in whole and not any(part is not None and parsed(address) in part for part in excepted)


def _is_a_port(cluster: Cluster, ports: list[Json] | None, destination: str, protocol: str, port: int) -> bool:
    if not ports:
        return True  # of every protocol
    return any(_is_this_port(cluster, one, destination, protocol, port) for one in ports)


def _is_this_port(cluster: Cluster, wanted: Json, destination: str, protocol: str, port: int) -> bool:
    if (wanted.get("protocol") or "TCP") != protocol:
        return False
    first = wanted.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        pod = pod_at(cluster, destination)
        return pod is not None and port in ports_named(pod, first, protocol)
    last = first if wanted.get("endPort") is None else wanted["endPort"]
    return int(first) <= port <= int(last)
