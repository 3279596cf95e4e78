"""Mistakes that are planted in the program: the drawn clusters must find each of them.

Law: what is compared is the real source with one place altered, and the clusters are the same every time. Who alters
that source so that a mistake has no place there any more plants it anew.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.policy.drawing import clusters
from tests.policy.objects import Cell, some_cells
from tests.policy.spec.cluster import Cluster
from tests.policy.spec.evaluator import allowed

CLUSTERS, CELLS = 300, 200
MODEL, MATCHES, MEMORY, COMPILER, RULESET, VERDICT = (
    f"tunrouter.core.policy.{name}" for name in ("model", "matches", "memory", "compiler", "ruleset", "verdict")
)
TRANSLATION: Final = "tunrouter.npc.translation"
JUDGED: Final = "tests.policy.judged"
ANEW: Final = (MODEL, RULESET, MATCHES, MEMORY, COMPILER, VERDICT, TRANSLATION, JUDGED)


class Mistake(NamedTuple):
    name: str
    module: str
    right: str
    wrong: str


MISTAKES: Final = (
    Mistake(
        "NotIn needs the label",
        MODEL,
        "return value not in self.values",
        "return value is not None and value not in self.values",
    ),
    Mistake("an empty label is none", MODEL, "return value is not None", "return bool(value)"),
    Mistake("exceptions are ignored", MATCHES, "[_span(gap) for gap in peer.without]", "[]"),
    Mistake("only the first exception counts", TRANSLATION, "in given.except_ or ()", "in (given.except_ or ())[:1]"),
    Mistake(
        "endPort is excluded",
        TRANSLATION,
        "return Ports(protocol, port, last)",
        "return Ports(protocol, port, max(port, last - 1))",
    ),
    Mistake(
        "endPort is ignored", TRANSLATION, "return Ports(protocol, port, last)", "return Ports(protocol, port, port)"
    ),
    Mistake("egress rules alone isolate nothing", TRANSLATION, '{"ingress", "egress"} if spec.get("egress") else', ""),
    Mistake("an empty egress isolates", TRANSLATION, 'if spec.get("egress") else', 'if "egress" in spec else'),
    Mistake(
        "a named port is of any protocol",
        COMPILER,
        "if port.name == name.name and port.protocol == name.protocol:",
        "if port.name == name.name:",
    ),
    Mistake("sidecars have no ports", TRANSLATION, "(*spec.containers, *sidecars)", "spec.containers"),
    Mistake("what ran before has ports", TRANSLATION, "if one.restart_policy == SIDECAR", ""),
    Mistake("named ports are of local pods alone", COMPILER, 'name.direction == "egress" or address', "address"),
    Mistake(
        "one of two selectors is enough",
        COMPILER,
        "if pod.namespace in spaces and group.pods.selects(pod.labels):",
        "if pod.namespace in spaces or group.pods.selects(pod.labels):",
    ),
    Mistake(
        "the podSelector beside a namespaceSelector is ignored",
        TRANSLATION,
        "return Peers(_labels(pods),",
        "return Peers(_labels(pods) if namespaces is None else EVERYTHING,",
    ),
    Mistake(
        "a podSelector is not of its own namespace",
        MATCHES,
        "Group(peer.pods, peer.namespaces,",
        "Group(peer.pods, peer.namespaces or type(peer.pods)(),",
    ),
    Mistake(
        "empty peers are nobody",
        TRANSLATION,
        "tuple(_peer(one) for one in given) if given else None",
        "tuple(_peer(one) for one in given) if given is not None else None",
    ),
    Mistake(
        "empty ports are none",
        TRANSLATION,
        "tuple(_port(one) for one in given) if given else None",
        "tuple(_port(one) for one in given) if given is not None else None",
    ),
    Mistake(
        "without a protocol it is every one",
        TRANSLATION,
        "return tuple(_port(one) for one in given) if given else None",
        "every = [PolicyPort(protocol=p, port=one.port, end_port=one.end_port)"
        ' for one in given or () for p in ([one.protocol] if one.protocol else ["TCP", "UDP", "SCTP"])]\n'
        "    return tuple(_port(one) for one in every) if given else None",
    ),
    Mistake(
        "no ports are no ICMP",
        RULESET,
        "            case None:\n                return True\n            case Numbers",
        '            case None:\n                return protocol != "ICMP"\n            case Numbers',
    ),
    Mistake(
        "without a port it is the well-known ones",
        TRANSLATION,
        "return Ports(protocol)\n",
        "return Ports(protocol, 1, 80)\n",
    ),
    Mistake(
        "ended pods are peers",
        MEMORY,
        "if pod.ended or pod.host_network else pod.addresses",
        "if pod.host_network else pod.addresses",
    ),
    Mistake(
        "pods of the host network are peers",
        MEMORY,
        "if pod.ended or pod.host_network else pod.addresses",
        "if pod.ended else pod.addresses",
    ),
    Mistake("the eldest has an address", MEMORY, "return max((self.pods[key]", "return min((self.pods[key]"),
    Mistake("a pod has one address", TRANSLATION, "dict.fromkeys(_addresses(status))", "list(_addresses(status))[:1]"),
    Mistake(
        "blocks are not about pods",
        RULESET,
        "return version == address.version and",
        "return address not in self.pods and version == address.version and",
    ),
    Mistake(
        "policies are for every namespace",
        COMPILER,
        "for key in self._in_namespace.get(pod.namespace, ())",
        "for key in self.policies",
    ),
    Mistake(
        "only the first policy permits",
        RULESET,
        "for key in self.pods[pod].towards(direction) or ():",
        "for key in (self.pods[pod].towards(direction) or ())[:1]:",
    ),
    Mistake("who isolates itself cannot reach itself", RULESET, "if source == destination:", "if False:"),
    Mistake(
        "what is not understood restricts nothing",
        TRANSLATION,
        "lambda one=one: read(one), None)",
        "lambda one=one: read(one), Rule(None, None))",
    ),
    Mistake(
        "who is not understood is nobody",
        TRANSLATION,
        'lambda: _selector(spec.get("podSelector")), EVERYTHING)',
        'lambda: _selector(spec.get("podSelector")), Selector(frozenset({Requirement("?", "Exists")})))',
    ),
    Mistake("policyTypes are ignored", TRANSLATION, "{TYPES[one] for one in given}", '{"ingress", "egress"}'),
    Mistake(
        "the explanation forgets the namespace",
        VERDICT,
        "there = end.pod.namespace == policy.namespace",
        "there = True",
    ),
    Mistake(
        "the explanation knows no own node", VERDICT, 'if direction == "ingress" and asked.source.node:', "if False:"
    ),
)


@contextmanager
def planted(mistake: Mistake | None) -> Iterator[Any]:
    """The program of `judged`, all of it loaded anew, and with the mistake."""
    before = {name: importlib.import_module(name) for name in ANEW}
    try:
        for name in ANEW:
            del sys.modules[name]
        for name in ANEW:
            _load(name, mistake if mistake is not None and mistake.module == name else None)
        yield sys.modules[JUDGED]
    finally:
        for name, module in before.items():
            _enter(name, module)


def _load(name: str, mistake: Mistake | None) -> None:
    found = find_spec(name)
    assert found is not None
    assert found.origin is not None
    with open(found.origin) as file:
        source = file.read()
    if mistake is not None:
        assert source.count(mistake.right) == 1, f"{mistake.name}: it has no place in {name}"
        source = source.replace(mistake.right, mistake.wrong)
    module = module_from_spec(found)
    _enter(name, module)
    exec(compile(source, found.origin, "exec"), module.__dict__)


def _enter(name: str, module: Any) -> None:
    sys.modules[name] = module
    package, _, last = name.rpartition(".")
    setattr(sys.modules[package], last, module)


@pytest.fixture(scope="module")
def answered() -> list[tuple[Cluster, dict[Cell, bool]]]:
    """Drawn clusters, the same ones every time, and what is right in some of their cells."""
    drawn: list[Cluster] = []

    @settings(
        max_examples=CLUSTERS,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(clusters())
    def draw(cluster: Cluster) -> None:
        drawn.append(cluster)

    draw()
    return [
        (cluster, {cell: allowed(cluster, *cell) for cell in some_cells(cluster, CELLS, seed)})
        for seed, cluster in enumerate(drawn)
    ]


def first_wrong(judged: Any, answered: list[tuple[Cluster, dict[Cell, bool]]]) -> int | None:
    """The number of the first cluster in which the program errs."""
    for number, (cluster, answers) in enumerate(answered):
        try:
            program = judged.judged(cluster, judged.ORDERS[number % len(judged.ORDERS)])
        except AssertionError:
            return number  # it has other pods here than there are
        for cell, right in answers.items():
            if program.passes(cell) is not right or program.explained(cell) is not right:
                return number
    return None


def test_without_a_mistake_there_is_no_wrong_cell(answered: list[tuple[Cluster, dict[Cell, bool]]]) -> None:
    with planted(None) as judged:
        assert first_wrong(judged, answered[:100]) is None


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_found(mistake: Mistake, answered: list[tuple[Cluster, dict[Cell, bool]]]) -> None:
    with planted(mistake) as judged:
        assert first_wrong(judged, answered) is not None
