"""Pods, namespaces and policies as the API server sends them, and a cluster of nine pods in three namespaces.

Law: raw objects and nothing else: what reads them, the evaluator or the program, is given the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

from tests.policy.spec.cluster import Cluster, Json, addresses, parsed
from tests.policy.spec.evaluator import is_isolated

NODES: Final = {f"n{n}": (f"192.0.2.{n}", f"fd02::{n}", f"10.32.{n}.1", f"fd32::{n}:1") for n in (1, 2, 3)}
"""Its own address and that of its bridge, each in both families."""
OUTSIDE: Final = ("198.51.100.7", "203.0.113.9", "2001:db8:51::7")
NAMESPACES: Final = ("x", "y", "z")
NAMES: Final = ("a", "b", "c")
PORTS: Final = (80, 81)
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
ABSENT: Final = object()
"""A field that is left out, where None is one that is null."""


class Cell(NamedTuple):
    source: str
    destination: str
    protocol: str
    port: int


def fields(**given: Any) -> Json:
    """Without the absent ones. `from_` is `from`, which Python does not let one write."""
    return {key.rstrip("_"): value for key, value in given.items() if value is not ABSENT}


def namespace(name: str, labels: Json) -> Json:
    """With the label that the server gives every namespace."""
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


def port(name: str, number: int, protocol: Any = ABSENT) -> Json:
    return fields(name=name, containerPort=number, protocol=protocol)


def serving() -> list[Json]:
    return [port(f"serve-{number}-{name.lower()}", number, name) for number, name in product(PORTS, PROTOCOLS)]


def pod(
    key: str,
    node: str,
    at: Sequence[str],
    *,
    labels: Any = ABSENT,
    phase: str = "Running",
    created: int = 0,
    host_network: Any = ABSENT,
    deleted: Any = ABSENT,
    containers: Sequence[Json] | None = None,
    init: Any = ABSENT,
) -> Json:
    where, _, name = key.partition("/")
    status = fields(phase=phase, podIP=at[0], podIPs=[{"ip": one} for one in at]) if at else fields(phase=phase)
    containers = [{"name": "serve", "ports": serving()}] if containers is None else list(containers)
    return {
        "metadata": fields(
            namespace=where,
            name=name,
            uid=f"uid-{where}-{name}-{created}",
            labels=labels,
            creationTimestamp=f"2024-05-01T10:{created // 60:02}:{created % 60:02}Z",
            deletionTimestamp=deleted,
        ),
        "spec": fields(nodeName=node, hostNetwork=host_network, containers=containers, initContainers=init),
        "status": status,
    }


def home(key: str) -> tuple[str, tuple[str, str]]:
    """The node and the addresses of one of the nine: each node has one pod of every namespace."""
    row, column = NAMESPACES.index(key[0]), NAMES.index(key[2])
    node, last = (row + column) % 3 + 1, f"{row + 1}{column + 1}"
    return f"n{node}", (f"10.32.{node}.{last}", f"fd32::{node}:{last}")


def nine(**instead: Json) -> list[Json]:
    """The pods; `x_a` is another instead of x/a."""
    keys = [f"{where}/{name}" for where, name in product(NAMESPACES, NAMES)]
    usual = {key.replace("/", "_"): pod(key, *home(key), labels={"pod": key[2]}) for key in keys}
    return list((usual | instead).values())


def three() -> list[Json]:
    return [namespace(name, {"ns": name}) for name in NAMESPACES]


def policy(where: str, name: str = "p", **spec: Any) -> Json:
    return {"metadata": {"namespace": where, "name": name}, "spec": fields(**spec)}


def selecting(**labels: str) -> Json:
    return {"matchLabels": labels}


def expressing(key: str, operator: str, *values: str) -> Json:
    return {"matchExpressions": [fields(key=key, operator=operator, values=list(values) if values else ABSENT)]}


def addresses_of(cluster: Cluster, word: str) -> list[str]:
    """Of a pod `x/a`, of a node `n1` (all of it), or the address that the word is."""
    if word in cluster.nodes:
        return list(cluster.nodes[word])
    if "/" not in word:
        return [word]
    where, _, name = word.partition("/")
    found = [one for one in cluster.pods if (one["metadata"]["namespace"], one["metadata"]["name"]) == (where, name)]
    return [str(address) for one in found for address in addresses(one)]


def cells_stated(cluster: Cluster, statement: str) -> Iterator[Cell]:
    """`y/a > x/a TCP/80`, in every family that both have."""
    source, _, destination, what = statement.split()
    protocol, _, number = what.partition("/")
    for one, other in product(addresses_of(cluster, source), addresses_of(cluster, destination)):
        if parsed(one).version == parsed(other).version:
            yield Cell(one, other, protocol, int(number or 0))


def cells(cluster: Cluster, outside: Iterable[str] = OUTSIDE) -> Iterator[Cell]:
    """Every one: whatever has an address with whatever has one, in a family, if one of the two is a pod's."""
    of_pods = dict.fromkeys(str(address) for one in cluster.pods for address in addresses(one))
    of_nodes = [address for node in cluster.nodes.values() for address in node]
    everywhere = list(dict.fromkeys((*of_pods, *of_nodes, *outside)))
    asked = [*product(PROTOCOLS, PORTS), ("TCP", 79), ("UDP", 82), ("ICMP", 0)]
    for source, destination in product(everywhere, everywhere):
        if (source in of_pods or destination in of_pods) and parsed(source).version == parsed(destination).version:
            yield from (Cell(source, destination, *what) for what in asked)


def some_cells(cluster: Cluster, count: int, seed: int) -> list[Cell]:
    """Mostly those that the rules of one end alone decide: elsewhere what one permits the other may forbid."""
    chance = random.Random(seed)
    every = list(cells(cluster))
    outward = {one: is_isolated(cluster, one, "Egress") for one in {cell.source for cell in every}}
    inward = {one: is_isolated(cluster, one, "Ingress") for one in {cell.destination for cell in every}}
    telling = [cell for cell in every if outward[cell.source] != inward[cell.destination]]
    found = chance.sample(telling, min(len(telling), count * 3 // 4))
    return found + chance.sample(every, count - len(found))
