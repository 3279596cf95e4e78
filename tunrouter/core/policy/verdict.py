"""Why something may pass, or may not: which policies, which rule, in words.

    source's egress ──> destination's ingress      each: isolated by which? permitted by which? what came closest?

Law: asked of the policies themselves and of the whole cluster's pods, not of one node's rule set: two ways to the same
answer, which are compared in the tests. An answer names no cause that it did not find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import (
    DIRECTIONS,
    LAST_PORT,
    Address,
    Block,
    Direction,
    Peers,
    Pod,
    Policy,
    Ports,
    Rule,
    Selector,
)


class End(NamedTuple):
    """One side of a connection."""

    pod: Pod | None = None
    """None: no pod that policies know; those of the host network are none either."""
    address: Address | None = None
    """None: a pod has none yet, or the node has many."""
    node: bool = False
    """The node on which the other end is."""


class Opening(NamedTuple):
    """What somebody wants to begin."""

    source: End
    destination: End
    protocol: str
    port: int


class Verdict(NamedTuple):
    """What one direction says."""

    direction: Direction
    allowed: bool
    why: str
    policies: tuple[Policy, ...] = ()
    """All that isolate that end."""
    policy: Policy | None = None
    rule: int | None = None


def verdicts(known: Compiler, asked: Opening) -> list[Verdict]:
    """Egress of the source, then ingress of the destination. Both must allow it."""
    source, destination = asked.source, asked.destination
    if source.pod is not None and destination.pod is not None and source.pod.key == destination.pod.key:
        return [Verdict(direction, True, "a pod always reaches itself") for direction in DIRECTIONS]
    return [_verdict(known, direction, asked) for direction in DIRECTIONS]


def _verdict(known: Compiler, direction: Direction, asked: Opening) -> Verdict:
    end = asked.destination if direction == "ingress" else asked.source
    closed = end.pod is None and end.address is not None and known.isolation(end.address).towards(direction) == ()
    if end.pod is None and not closed:
        return Verdict(direction, True, f"the {_end(direction)} is no pod that policies can select")
    if direction == "ingress" and asked.source.node:
        return Verdict(direction, True, "a pod's own node always reaches it")
    if end.pod is None:
        return Verdict(direction, False, f"the {_end(direction)} is a container whose pod is not known: it is closed")
    return _judged(known, direction, end.pod, asked)


def _judged(known: Compiler, direction: Direction, pod: Pod, asked: Opening) -> Verdict:
    keys = known.isolating(pod, direction)
    if keys is None:
        return Verdict(direction, True, f"no policy isolates its {direction}")
    policies = tuple(known.policies[key] for key in keys)
    for policy in policies:
        for at, rule in enumerate(policy.rules(direction) or ()):
            if _meant(known, direction, policy, rule, asked) and _ported(rule, asked):
                name = f"{policy.namespace}/{policy.name}"
                why = f"{direction} rule {at} of {name} permits it: {described(direction, rule)}"
                return Verdict(direction, True, why, policies, policy, at)
    return Verdict(direction, False, _refusal(known, direction, policies, asked), policies)


def _end(direction: Direction) -> str:
    return "destination" if direction == "ingress" else "source"


def _meant(known: Compiler, direction: Direction, policy: Policy, rule: Rule, asked: Opening) -> bool:
    end = asked.source if direction == "ingress" else asked.destination
    return rule.peers is None or any(_is_peer(known, policy, peer, end) for peer in rule.peers)


def _is_peer(known: Compiler, policy: Policy, peer: Peers | Block, end: End) -> bool:
    if isinstance(peer, Block):
        address = end.address
        return (
            address is not None
            and address.version == peer.network.version
            and address in peer.network
            and not any(address in gap for gap in peer.without)
        )
    if end.pod is None:
        return False
    if peer.namespaces is None:
        there = end.pod.namespace == policy.namespace
    else:
        labels = known.memory.namespaces.get(end.pod.namespace)
        there = labels is not None and peer.namespaces.selects(labels)
    return there and peer.pods.selects(end.pod.labels)


def _ported(rule: Rule, asked: Opening) -> bool:
    return rule.ports is None or any(_is_port(port, asked) for port in rule.ports)


def _is_port(port: Ports, asked: Opening) -> bool:
    if port.protocol != asked.protocol:
        return False
    if not port.name:
        return port.first <= asked.port <= port.last
    pod = asked.destination.pod
    wanted = (port.name, asked.protocol, asked.port)
    return pod is not None and any(wanted == (one.name, one.protocol, one.number) for one in pod.ports)


# --- in words --------------------------------------------------------------------------------------------------------
def _refusal(known: Compiler, direction: Direction, policies: tuple[Policy, ...], asked: Opening) -> str:
    count = len(policies)
    said = (
        "1 policy isolates it and does not permit this"
        if count == 1
        else f"{count} policies isolate it, none permits this"
    )
    close = next(_closest(known, direction, policies, asked), "")
    return f"{said}; {close}" if close else said


def _closest(known: Compiler, direction: Direction, policies: tuple[Policy, ...], asked: Opening) -> Iterator[str]:
    """What half of it is permitted, or was not understood."""
    for policy in policies:
        name = f"{policy.namespace}/{policy.name}"
        for at, rule in enumerate(policy.rules(direction) or ()):
            if _meant(known, direction, policy, rule, asked):
                yield f"rule {at} of {name} has this peer, but is for {_ports(rule)}"
            elif _ported(rule, asked):
                yield f"rule {at} of {name} has this port, but is {_peers(direction, rule)}"
    for policy in policies:
        if policy.faults:
            yield f"of {policy.namespace}/{policy.name} not all is understood: {policy.faults[0]}"


def described(direction: Direction, rule: Rule) -> str:
    return f"{_peers(direction, rule)}, {_ports(rule)}"


def _peers(direction: Direction, rule: Rule) -> str:
    way = "from" if direction == "ingress" else "to"
    if rule.peers is None:
        return f"{way} anywhere"
    return f"{way} {' or '.join(map(_peer, rule.peers)) or 'nobody'}"


def _peer(peer: Peers | Block) -> str:
    if isinstance(peer, Block):
        gaps = f" without {', '.join(map(str, peer.without))}" if peer.without else ""
        return f"{peer.network}{gaps}"
    where = "its namespace" if peer.namespaces is None else _selected(peer.namespaces, "all namespaces", "namespaces")
    return f"{_selected(peer.pods, 'all pods', 'pods')} in {where}"


def _selected(selector: Selector, everything: str, some: str) -> str:
    lines = sorted(_requirement(*one) for one in selector.requirements)
    return f"{some} with {', '.join(lines)}" if lines else everything


def _requirement(key: str, operator: str, values: frozenset[str]) -> str:
    if operator in ("In", "NotIn") and len(values) == 1:
        return f"{key}{'=' if operator == 'In' else '!='}{min(values)}"
    listed = f" ({', '.join(sorted(values))})" if values else ""
    return f"{key} {operator}{listed}"


def _ports(rule: Rule) -> str:
    return "all ports" if rule.ports is None else " or ".join(map(_port, rule.ports)) or "no port"


def _port(port: Ports) -> str:
    if port.name:
        return f"{port.protocol} {port.name!r}"
    if (port.first, port.last) == (0, LAST_PORT):
        return f"all ports of {port.protocol}"
    return f"{port.protocol} {port.first}" + (f"-{port.last}" if port.last != port.first else "")
