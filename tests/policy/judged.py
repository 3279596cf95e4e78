"""The program's answers about a cluster: what its nodes' rule sets let pass, and what it says of why.

Law: it is given the same objects as the evaluator, as the bytes that a server sends, and every pod is once a local one:
a packet passes if each node that has one of its ends lets it. What a node itself sends to its pods is not filtered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from tests.policy.objects import Cell
from tests.policy.spec.cluster import Cluster, addresses, parsed, pod_at
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


def judged(cluster: Cluster, *, told: bool = True) -> Judged:
    """`told`: who attached the containers says which there are; else they are those that the cluster has there."""
    every = dict.fromkeys(str(address) for pod in cluster.pods for address in addresses(pod))
    owners = {address: pod for address in every if (pod := pod_at(cluster, address)) is not None}
    compilers = {node: _compiler(cluster, node) for node in cluster.nodes}
    if told:
        for node, compiler in compilers.items():
            compiler.place(_placed(address, pod) for address, pod in owners.items() if pod["spec"]["nodeName"] == node)
    rulesets = {node: compiler.ruleset() for node, compiler in compilers.items()}
    homes = {parsed(address): str(pod["spec"]["nodeName"]) for address, pod in owners.items()}
    here = {address: node for node, ruleset in rulesets.items() for address in ruleset.pods}
    assert here == homes, "each node has its pods, and nobody else's"
    own = {node: frozenset(map(parsed, texts)) for node, texts in cluster.nodes.items()}
    return Judged(compilers, rulesets, homes, own)


def _placed(address: str, pod: Any) -> Placed:
    metadata = pod["metadata"]
    return Placed(parsed(address), (metadata["namespace"], metadata["name"]), metadata["uid"])


def _compiler(cluster: Cluster, node: str) -> Compiler:
    compiler = Compiler(node)
    for raw in cluster.namespaces:
        metadata = NAMESPACES.decode(json.dumps(raw).encode()).metadata
        compiler.put_namespace(metadata.name, metadata.labels)
    for raw in cluster.pods:
        compiler.put_pod(translation.pod(PODS.decode(json.dumps(raw).encode())))
    for raw in cluster.policies:
        compiler.put_policy(translation.policy(NETWORK_POLICIES.decode(json.dumps(raw).encode())))
    return compiler


def wrong(cluster: Cluster, asked: Iterable[Cell], *, told: bool = True) -> tuple[int, list[tuple[Cell, bool]]]:
    """How many cells were compared, and those in which the program errs, with what would be right."""
    program, count, found = judged(cluster, told=told), 0, []
    for cell in asked:
        count += 1
        right = allowed(cluster, *cell)
        if program.passes(cell) is not right or program.explained(cell) is not right:
            found.append((cell, right))
    return count, found
