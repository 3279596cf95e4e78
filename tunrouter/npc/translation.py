"""Objects of the Kubernetes API as what the compiler knows.

Law: nothing raises. Of a policy each rule is understood by itself; one that is not permits nothing, and is told. If it
is not understood which pods a policy is for it is for all of its namespace, and permits nothing: better closed and said
than open and silent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Final, TypeVar

import msgspec

from tunrouter.core.policy.model import (
    EVERYTHING,
    LAST_PORT,
    Address,
    Block,
    Direction,
    NamedPort,
    Network,
    Peers,
    Pod,
    Policy,
    Ports,
    Requirement,
    Rule,
    Selector,
)
from tunrouter.edge.kube import objects
from tunrouter.edge.kube.policies import (
    EgressRule,
    IngressRule,
    IPBlock,
    LabelSelector,
    PolicyPeer,
    PolicyPort,
    SelectorRequirement,
    part,
)

ENDED: Final = frozenset({"Succeeded", "Failed"})
SIDECAR: Final = "Always"
TYPES: Final[dict[str, Direction]] = {"Ingress": "ingress", "Egress": "egress"}
FIELDS: Final = frozenset({"podSelector", "policyTypes", "ingress", "egress"})
CIDR: Final = re.compile(r"[0-9a-fA-F.:]+/[0-9]{1,3}")
PORT_NAME: Final = re.compile(r"(?=.*[a-z])(?!.*--)(?!-)[-a-z0-9]{1,15}(?<!-)")
MOST_PAIRS: Final = 50_000
"""Of a peer and a port in one direction of a policy: the product of two lists, and a rule each in the kernel."""
SHORT: Final = 200
"""Characters of what is told of one fault."""
T = TypeVar("T")


# --- pods ------------------------------------------------------------------------------------------------------------
def pod(found: objects.Pod) -> Pod:
    metadata, spec, status = found.metadata, found.spec, found.status
    return Pod(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.annotations.mirror or metadata.uid,
        labels=metadata.labels,
        addresses=tuple(dict.fromkeys(_addresses(status))),
        ports=tuple(dict.fromkeys(_named_ports(spec))),
        node=spec.node_name,
        host_network=spec.host_network,
        ended=status.phase in ENDED,
        born=metadata.creation_timestamp.timestamp() if metadata.creation_timestamp else 0.0,
    )


def _addresses(status: objects.PodStatus) -> Iterator[Address]:
    for text in (status.pod_ip, *(one.ip for one in status.pod_ips)):
        try:
            found = ip_address(text)
        except ValueError:
            continue  # "" until the pod has one
        if "%" not in text:  # behind it, a zone, there may be anything
            yield found


def _named_ports(spec: objects.PodSpec) -> Iterator[NamedPort]:
    sidecars = (one for one in spec.init_containers if one.restart_policy == SIDECAR)
    for container in (*spec.containers, *sidecars):
        for port in container.ports:
            protocol = port.protocol or "TCP"
            if port.name and protocol in ("TCP", "UDP", "SCTP"):
                yield NamedPort(port.name, protocol, port.container_port)  # type: ignore[arg-type]


# --- policies --------------------------------------------------------------------------------------------------------
def policy(found: objects.NetworkPolicy) -> Policy:
    """Whatever its spec is."""
    namespace, name = found.metadata.namespace, found.metadata.name
    spec = found.spec if found.spec is not None else {}
    faults: list[str] = []
    if not isinstance(spec, dict):
        return Policy(namespace, name, EVERYTHING, (), (), ("spec is no object, so nothing is permitted",))
    # What a new field means nobody knows here, so it may be what restricts the rules.
    unknown = sorted(str(field) for field, value in spec.items() if field not in FIELDS and value is not None)
    if unknown:
        faults.append(_short(f"spec.{unknown[0]} is not known to this version, so nothing is permitted"))
    selector = _tried(faults, "spec.podSelector", lambda: _selector(spec.get("podSelector")), EVERYTHING)
    understood = not faults
    directions = _directions(spec, faults)
    rules: dict[Direction, tuple[Rule, ...]] = {}
    for direction in directions:
        given = _rules(spec, direction, faults)
        rules[direction] = given if understood else ()
    return Policy(namespace, name, selector, rules.get("ingress"), rules.get("egress"), tuple(faults))


def _directions(spec: dict[str, Any], faults: list[str]) -> set[Direction]:
    """By the API's default: ingress always, and egress where there are rules for it."""
    given = spec.get("policyTypes")
    if not given and isinstance(given, list | None):
        return {"ingress", "egress"} if spec.get("egress") else {"ingress"}
    if not isinstance(given, list) or not all(isinstance(one, str) and one in TYPES for one in given):
        faults.append(_short(f"spec.policyTypes: {given!r} is not known, so both directions are isolated"))
        return {"ingress", "egress"}
    return {TYPES[one] for one in given}


def _rules(spec: dict[str, Any], direction: Direction, faults: list[str]) -> tuple[Rule, ...]:
    given = spec.get(direction)
    if given is None:
        return ()
    if not isinstance(given, list):
        faults.append(f"spec.{direction} is no list, so nothing is permitted")
        return ()
    read = _ingress if direction == "ingress" else _egress
    found = (_tried(faults, f"spec.{direction}[{at}]", lambda one=one: read(one), None) for at, one in enumerate(given))  # type: ignore[misc]
    rules = tuple(rule for rule in found if rule is not None)
    if (pairs := sum(map(_pairs, rules))) > MOST_PAIRS:
        faults.append(
            f"spec.{direction} pairs peers and ports {pairs} times, more than {MOST_PAIRS}: it permits nothing"
        )
        return ()
    return rules


def _pairs(rule: Rule) -> int:
    """How many matches it becomes; blocks are one, as are a protocol's numbers."""
    peers = {one if isinstance(one, Peers) else None for one in rule.peers or (None,)}
    ports = {(one.protocol, one.name) for one in rule.ports or ()}
    return len(peers) * max(len(ports), 1)


def _tried(faults: list[str], where: str, read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except (msgspec.ValidationError, ValueError) as error:
        faults.append(_short(f"{where} permits nothing: {error}"))
        return otherwise


def _ingress(given: Any) -> Rule:
    rule = part(given, IngressRule)
    return Rule(_peers(rule.from_), _ports(rule.ports))


def _egress(given: Any) -> Rule:
    rule = part(given, EgressRule)
    return Rule(_peers(rule.to), _ports(rule.ports))


def _peers(given: Sequence[PolicyPeer] | None) -> tuple[Peers | Block, ...] | None:
    """Empty and absent mean the same: everybody."""
    return tuple(_peer(one) for one in given) if given else None


def _peer(given: PolicyPeer) -> Peers | Block:
    pods, namespaces, block = given.pod_selector, given.namespace_selector, given.ip_block
    if block is not None:
        if pods is not None or namespaces is not None:
            raise ValueError("a peer is an ipBlock or has selectors, not both")
        return _block(block)
    if pods is None and namespaces is None:
        raise ValueError("a peer has neither a selector nor an ipBlock")
    return Peers(_labels(pods), _labels(namespaces) if namespaces is not None else None)


def _block(given: IPBlock) -> Block:
    network = _network(given.cidr)
    return Block(network, tuple(_exception(network, one) for one in given.except_ or ()))


def _exception(network: Network, text: str) -> Network:
    found = _network(text)
    if found.version != network.version or not found.subnet_of(network):  # type: ignore[arg-type]
        raise ValueError(f"{text} is no part of {network}, so it cannot be an exception of it")
    return found


def _network(text: str) -> Network:
    """A lone address is none, and a mask or a zone is not the API's."""
    if not CIDR.fullmatch(text):
        raise ValueError(f"{text!r} is no CIDR")
    return ip_network(text, strict=False)


def _selector(given: Any) -> Selector:
    return _labels(part(given, LabelSelector)) if given is not None else EVERYTHING


def _labels(given: LabelSelector | None) -> Selector:
    if given is None:
        return EVERYTHING
    lines = [Requirement(key, "In", frozenset({value})) for key, value in (given.match_labels or {}).items()]
    return Selector(frozenset([*lines, *map(_requirement, given.match_expressions or ())]))


def _requirement(given: SelectorRequirement) -> Requirement:
    values = frozenset(given.values or ())
    if not given.key:
        raise ValueError(f"{given.operator} has no key")
    if bool(values) != (given.operator in ("In", "NotIn")):
        raise ValueError(f"{given.operator} of {given.key!r} has {'no' if not values else 'needless'} values")
    return Requirement(given.key, given.operator, values)


def _ports(given: Sequence[PolicyPort] | None) -> tuple[Ports, ...] | None:
    """Empty and absent mean the same: everything, other protocols included."""
    return tuple(_port(one) for one in given) if given else None


def _port(given: PolicyPort) -> Ports:
    protocol, port, end = given.protocol or "TCP", given.port, given.end_port
    if isinstance(port, str):
        if end is not None:
            raise ValueError(f"endPort {end} cannot follow the name {port!r}")
        if not PORT_NAME.fullmatch(port):
            raise ValueError(f"{port!r} is no name of a port")
        return Ports(protocol, name=port)
    if port is None:
        if end is not None:
            raise ValueError(f"endPort {end} has no port before it")
        return Ports(protocol)
    last = port if end is None else end
    if not 0 < port <= last <= LAST_PORT:
        raise ValueError(f"ports from {port} to {last} are none")
    return Ports(protocol, port, last)


def _short(text: str) -> str:
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"
