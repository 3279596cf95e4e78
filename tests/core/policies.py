"""Worlds of pods, namespaces, policies and containers for Hypothesis: small, so that much of it meets."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import NamedTuple

from hypothesis import strategies as st

from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import (
    Address,
    Block,
    Key,
    NamedPort,
    Peers,
    Placed,
    Pod,
    Policy,
    Ports,
    Requirement,
    Rule,
    Selector,
)

HERE, THERE = "node-a", "node-b"
NAMESPACES = ("shop", "blog")
V4 = tuple(ip_address(f"10.32.0.{last}") for last in range(1, 7))
V6 = tuple(ip_address(f"fd00::{last}") for last in range(1, 4))
STRANGERS: tuple[Address, ...] = (ip_address("192.0.2.9"), ip_address("2001:db8::9"))
ASKED = (("TCP", 80), ("TCP", 81), ("UDP", 53), ("SCTP", 80), ("ICMP", 0))
KEYS: tuple[Key, ...] = tuple((namespace, f"pod-{number}") for namespace in NAMESPACES for number in range(3))


def labelled(**labels: str) -> Selector:
    """As matchLabels."""
    return Selector(frozenset(Requirement(key, "In", frozenset({value})) for key, value in labels.items()))


labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("x", "y")))
values = st.frozensets(st.sampled_from(("x", "y")), min_size=1)
requirements = st.builds(
    Requirement, st.sampled_from(("app", "tier")), st.sampled_from(("In", "NotIn")), values
) | st.builds(Requirement, st.sampled_from(("app", "tier")), st.sampled_from(("Exists", "DoesNotExist")))
selectors = st.builds(Selector, st.frozensets(requirements, max_size=2))
named = st.sampled_from(
    (NamedPort("web", "TCP", 80), NamedPort("web", "TCP", 81), NamedPort("web", "UDP", 53), NamedPort("dns", "UDP", 53))
)
addresses = st.tuples(
    st.none() | st.sampled_from(V4), st.none() | st.sampled_from(V6)
).map(lambda pair: tuple(one for one in pair if one is not None))  # fmt: skip
blocks = st.sampled_from(
    (
        Block(ip_network("0.0.0.0/0")),
        Block(ip_network("::/0")),
        Block(ip_network("10.32.0.0/29"), (ip_network("10.32.0.2/31"), ip_network("10.32.0.2/32"))),
        Block(ip_network("10.32.0.4/32")),
        Block(ip_network("0.0.0.0/0"), (ip_network("10.32.0.0/12"),)),
        Block(ip_network("fd00::/64"), (ip_network("fd00::2/128"),)),
    )
)
peers = st.builds(Peers, selectors, st.none() | selectors)
ports = st.sampled_from(
    (
        Ports("TCP", 80, 80),
        Ports("TCP", 81, 90),
        Ports("TCP"),
        Ports("UDP", 53, 53),
        Ports("SCTP"),
        Ports("TCP", name="web"),
        Ports("UDP", name="dns"),
    )
)
rules = st.builds(
    Rule,
    st.none() | st.lists(peers | blocks, max_size=2).map(tuple),
    st.none() | st.lists(ports, max_size=2).map(tuple),
)
directed = st.none() | st.lists(rules, max_size=2).map(tuple)
policies = st.builds(
    Policy, st.sampled_from(NAMESPACES), st.sampled_from(("one", "two", "three")), selectors, directed, directed
)
pods = st.builds(
    lambda key, uid, labels, addresses, ports, node, host, ended, born: Pod(
        key[0], key[1], f"{key[1]}-{uid}", labels, addresses, tuple(ports), node, host, ended, born
    ),
    st.sampled_from(KEYS),
    st.integers(0, 1),
    labels,
    addresses,
    st.lists(named, max_size=2, unique=True),
    st.sampled_from((HERE, HERE, THERE)),
    st.sampled_from((False, False, False, True)),
    st.sampled_from((False, False, False, True)),
    st.sampled_from((1.0, 2.0)),
)
placed = st.builds(
    lambda address, key, uid, policed: Placed(
        address, key if policed else None, f"{key[1]}-{uid}" if key and policed and uid is not None else "", policed
    ),
    st.sampled_from((*V4, *V6)),
    st.none() | st.sampled_from(KEYS),
    st.none() | st.integers(0, 1),
    st.sampled_from((True, True, True, False)),
)
containers = st.lists(placed, max_size=4, unique_by=lambda one: one.address)
namespaces = st.dictionaries(st.sampled_from(NAMESPACES), labels)


class World(NamedTuple):
    pods: tuple[Pod, ...]
    namespaces: dict[str, dict[str, str]]
    policies: tuple[Policy, ...]
    placed: tuple[Placed, ...] | None

    def compiler(self, node: str = HERE) -> Compiler:
        made = Compiler(node)
        tell(made, self)
        return made


def tell(compiler: Compiler, world: World) -> None:
    for name, found in world.namespaces.items():
        compiler.put_namespace(name, found)
    for pod in world.pods:
        compiler.put_pod(pod)
    for policy in world.policies:
        compiler.put_policy(policy)
    if world.placed is not None:
        compiler.place(world.placed)


worlds = st.builds(
    World,
    st.lists(pods, max_size=6, unique_by=lambda pod: pod.key).map(tuple),
    namespaces,
    st.lists(policies, max_size=4, unique_by=lambda policy: policy.key).map(tuple),
    st.none() | containers.map(tuple),
)
