"""The program's answers about a cluster: what its nodes' rule sets let pass, and what it says of why.

Law: it is given the same objects as the evaluator, as the bytes that a server sends, and every pod is once a local one:
a packet passes if each node that has one of its ends lets it. What a node itself sends to its pods is not filtered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple

from tests.policy.objects import Cell
from tests.policy.spec.cluster import Cluster, Json, addresses, parsed, pod_at
from tests.policy.spec.evaluator import allowed
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import Address, Placed
from tunrouter.core.policy.ruleset import Ruleset
from tunrouter.core.policy.verdict import End, Opening, verdicts
from tunrouter.edge.kube.objects import NAMESPACES, NETWORK_POLICIES, PODS
from tunrouter.npc import translation


class Judged(NamedTuple):
    compilers: Mapping[str, Compiler]
    rulesets: Mapping[str, Ruleset]
    homes: Mapping[Address, str]
    """The node of each pod's address."""
    nodes: Mapping[str, frozenset[Address]]

    def passes(self, cell: Cell) -> bool:
        source, destination = ip_address(cell.source), ip_address(cell.destination)
        return all(
            self.rulesets[node].passes(source, destination, cell.protocol, cell.port)
            for node in dict.fromkeys((self.homes.get(source), self.homes.get(destination)))
            if node is not None and source not in self.nodes[node]
        )

    def explained(self, cell: Cell) -> bool:
        source, destination = ip_address(cell.source), ip_address(cell.destination)
        known = next(iter(self.compilers.values()))
        own = self.nodes.get(self.homes.get(destination, ""), frozenset())
        ends = [End(known.memory.owner(address), address) for address in (source, destination)]
        opening = Opening(ends[0]._replace(node=source in own), ends[1], cell.protocol, cell.port)
        return all(verdict.allowed for verdict in verdicts(known, opening))


ORDERS: Final = (
    ("namespaces", "pods", "policies"),
    ("policies", "pods", "placed", "namespaces"),
    ("placed", "namespaces", "pods", "policies"),
    ("pods", "policies", "namespaces", "placed"),
    ("policies", "placed", "namespaces", "pods"),
)
"""In which the program may come to know what there is; without `placed` nobody says which containers a node has."""


def owners(cluster: Cluster) -> dict[str, Json]:
    """Of each address that is a pod's."""
    every = dict.fromkeys(str(address) for pod in cluster.pods for address in addresses(pod))
    return {address: pod for address in every if (pod := pod_at(cluster, address)) is not None}


def containers(cluster: Cluster, node: str) -> list[Placed]:
    """What the node has, as who attached them tells it."""
    here = ((one, pod["metadata"]) for one, pod in owners(cluster).items() if pod["spec"]["nodeName"] == node)
    return [Placed(parsed(one), (told["namespace"], told["name"]), told["uid"]) for one, told in here]


def judged(cluster: Cluster, order: Sequence[str] = ORDERS[0]) -> Judged:
    homes = {parsed(address): str(pod["spec"]["nodeName"]) for address, pod in owners(cluster).items()}
    compilers, rulesets = {}, {}
    for node in cluster.nodes:
        compilers[node] = Compiler(node)
        for step in order:
            tell(compilers[node], step, cluster, containers(cluster, node))
            rulesets[node] = compilers[node].ruleset()
    here = {address: node for node, ruleset in rulesets.items() for address in ruleset.pods}
    assert here == homes, "each node has its pods, and nobody else's"
    own = {node: frozenset(map(parsed, texts)) for node, texts in cluster.nodes.items()}
    return Judged(compilers, rulesets, homes, own)


def tell(compiler: Compiler, step: str, cluster: Cluster, placed: list[Placed]) -> None:
    match step:
        case "namespaces":
            for raw in cluster.namespaces:
                metadata = NAMESPACES.decode(json.dumps(raw).encode()).metadata
                compiler.put_namespace(metadata.name, metadata.labels)
        case "pods":
            for raw in cluster.pods:
                compiler.put_pod(translation.pod(PODS.decode(json.dumps(raw).encode())))
        case "policies":
            for raw in cluster.policies:
                compiler.put_policy(translation.policy(NETWORK_POLICIES.decode(json.dumps(raw).encode())))
        case _:
            compiler.place(placed)


def wrong(
    cluster: Cluster, asked: Iterable[Cell], order: Sequence[str] = ORDERS[0]
) -> tuple[int, list[tuple[Cell, bool]]]:
    """How many cells were compared, and those in which the program errs, with what would be right."""
    program, count, found = judged(cluster, order), 0, []
    for cell in asked:
        count += 1
        right = allowed(cluster, *cell)
        if program.passes(cell) is not right or program.explained(cell) is not right:
            found.append((cell, right))
    return count, found
