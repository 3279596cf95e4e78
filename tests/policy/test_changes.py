"""From one drawn cluster to another, change by change: what the compiler has then is what it makes of the end alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.policy.drawing import clusters
from tests.policy.judged import containers, tell
from tests.policy.objects import NAMESPACES, NODES, expressing, namespace, nine, policy, selecting, three
from tests.policy.spec.cluster import Cluster, Json
from tunrouter.core.policy.compiler import Compiler

KINDS = ("namespaces", "pods", "policies")
Change = Callable[[Compiler], None]


def key(thing: Json) -> tuple[str, str]:
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def of(cluster: Cluster, kind: str) -> Sequence[Json]:
    return {"namespaces": cluster.namespaces, "pods": cluster.pods, "policies": cluster.policies}[kind]


def with_these(cluster: Cluster, kind: str, things: Sequence[Json]) -> Cluster:
    known = {one: of(cluster, one) for one in KINDS} | {kind: things}
    return Cluster(nodes=cluster.nodes, **known)


def changes(before: Cluster, after: Cluster, node: str) -> Iterator[Change]:
    """Each by itself: objects that are new or otherwise, objects that are gone, and the containers."""
    for kind in KINDS:
        for thing in of(after, kind):
            if thing not in of(before, kind):
                yield partial(tell, step=kind, cluster=with_these(Cluster((), (), (), {}), kind, [thing]), placed=[])
        for gone in {key(thing) for thing in of(before, kind)} - {key(thing) for thing in of(after, kind)}:
            yield partial(_drop, kind=kind, gone=gone)
    yield partial(tell, step="placed", cluster=after, placed=containers(after, node))


def _drop(compiler: Compiler, kind: str, gone: tuple[str, str]) -> None:
    match kind:
        case "namespaces":
            compiler.drop_namespace(gone[1])
        case "pods":
            compiler.drop_pod(gone)
        case _:
            compiler.drop_policy(gone)


def made(cluster: Cluster, node: str) -> Compiler:
    compiler = Compiler(node)
    for step in (*KINDS, "placed"):
        tell(compiler, step, cluster, containers(cluster, node))
    return compiler


def compare(before: Cluster, other: Cluster, kinds: tuple[str, ...], seed: int) -> None:
    """To a cluster which has these kinds of objects from the other."""
    after = before
    for kind in kinds:
        after = with_these(after, kind, of(other, kind))
    for node in NODES:
        compare_on(node, before, after, seed)


def compare_on(node: str, before: Cluster, after: Cluster, seed: int) -> None:
    """There and back, and there again: what is remembered of a former state must not come back with it."""
    compiler, chance = made(before, node), random.Random(seed)
    first = compiler.ruleset()
    kept = copy.deepcopy(first)
    for one, other in ((before, after), (after, before), (before, after)):
        every = list(changes(one, other, node))
        chance.shuffle(every)
        for change in every:
            change(compiler)
            compiler.ruleset()
        assert compiler.ruleset() == made(other, node).ruleset()
    assert first == kept, "a value that was given stays as it was"


def test_namespaces_that_are_labelled_anew() -> None:
    peers = [{"namespaceSelector": selecting(ns="y")}, {"namespaceSelector": expressing("ns", "NotIn", "y", "z")}]
    asked = [policy(where, podSelector={}, ingress=[{"from": [peer]}]) for where, peer in zip("xz", peers, strict=True)]
    before = Cluster(nine(), three(), asked, NODES)
    swapped = [namespace(name, {"ns": other}) for name, other in zip(NAMESPACES, "zxy", strict=True)]
    compare(before, before._replace(namespaces=swapped), ("namespaces",), 0)


def run(examples: int) -> None:
    few = settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    kinds = st.sampled_from((("namespaces",), ("pods",), ("policies",), ("namespaces", "pods"), KINDS))
    drawn = given(clusters(), clusters(), kinds, st.integers(0, 1 << 32))
    few(drawn(compare))()


def test_any_series_of_changes_ends_where_its_end_alone_does() -> None:
    run(60)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_series_of_changes() -> None:
    run(1000)
