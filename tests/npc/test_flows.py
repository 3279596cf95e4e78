"""When connections are asked again: whenever a rule set may forbid what the one before permitted."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings

from tests.core import policies as worlds
from tests.core.policies import ASKED, HERE, STRANGERS, THERE, V4, V6, World
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.compiler import compile as compiled
from tunrouter.core.policy.model import EVERYTHING, NamedPort, Peers, Placed, Pod, Policy, Ports, Rule
from tunrouter.core.policy.ruleset import Ruleset
from tunrouter.edge.netlink.conntrack import Flow, Tuple
from tunrouter.npc.flows import _may_forbid, forbidden

EVERYBODY = (*V4, *V6, *STRANGERS)


def forbids(before: Ruleset, after: Ruleset) -> bool:
    return any(
        before.passes(source, destination, *asked) and not after.passes(source, destination, *asked)
        for source, destination in product(EVERYBODY, EVERYBODY)
        if source.version == destination.version
        for asked in ASKED
    )


@settings(max_examples=60)
@given(worlds.worlds, worlds.worlds)
def test_what_is_forbidden_now_is_never_missed(first: World, second: World) -> None:
    compiler = first.compiler()
    before = compiler.ruleset()
    worlds.tell(compiler, second)
    after = compiler.ruleset()
    assert _may_forbid(before, after) or not forbids(before, after)


# --- what needs no look ----------------------------------------------------------------------------------------------
WEB = Pod("shop", "web", "u1", {"app": "web"}, (V4[0],), (NamedPort("web", "TCP", 80),), HERE)
DB = Pod("shop", "db", "u2", {"app": "db"}, (V4[1],), (), HERE)
POLICY = Policy("shop", "one", EVERYTHING, ingress=(Rule((Peers(worlds.labelled(app="web")),), None),))
NAMED = POLICY._replace(name="two", ingress=(Rule(None, (Ports("TCP", name="web"),)),))


@pytest.fixture
def known() -> Compiler:
    compiler = Compiler(HERE)
    for pod in (WEB, DB):
        compiler.put_pod(pod)
    for policy in (POLICY, NAMED):
        compiler.put_policy(policy)
    return compiler


def test_what_only_permits_more_needs_no_look(known: Compiler) -> None:
    before = known.ruleset()
    known.put_pod(WEB._replace(name="more", uid="u3", addresses=(V4[2],), node=THERE))
    known.put_pod(DB._replace(name="another", namespace="free", uid="u4", addresses=(V4[3],)))
    after = known.ruleset()
    assert before != after
    assert not _may_forbid(before, after)


def test_the_address_of_a_new_pod_that_is_isolated_may_have_been_anothers(known: Compiler) -> None:
    before = known.ruleset()
    known.put_pod(DB._replace(name="another", uid="u4", addresses=(V4[3],)))
    assert _may_forbid(before, known.ruleset())


def test_a_pod_that_is_gone_needs_no_look_for_its_own_sake(known: Compiler) -> None:
    before = known.ruleset()
    known.drop_pod(DB.key)
    assert not _may_forbid(before, known.ruleset())


@pytest.mark.parametrize(
    "change",
    [
        lambda known: known.put_policy(POLICY._replace(name="three", egress=())),
        lambda known: known.put_policy(POLICY._replace(ingress=())),
        lambda known: known.drop_policy(POLICY.key),
        lambda known: known.put_pod(WEB._replace(labels={})),
        lambda known: known.drop_pod(WEB.key),
        lambda known: known.put_pod(WEB._replace(name="more", uid="u3", addresses=(V4[2],))),
        lambda known: known.put_pod(WEB._replace(ports=())),
        lambda known: known.place([Placed(V4[0], ("shop", "other"), "u9"), Placed(V4[1], DB.key)]),
    ],
    ids=["isolated", "rule gone", "policy gone", "labels", "peer gone", "new here", "port gone", "another's"],
)  # fmt: skip
def test_what_may_forbid_is_looked_at(change: object, known: Compiler) -> None:
    before = known.ruleset()
    assert callable(change)
    change(known)
    assert _may_forbid(before, known.ruleset())


def test_many_connections_to_one_port_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, asked = Ruleset.passes, list[tuple[Any, ...]]()

    def counted(ruleset: Ruleset, *opened: Any) -> bool:
        asked.append(opened)
        return passes(ruleset, *opened)

    monkeypatch.setattr(Ruleset, "passes", counted)
    source, destination = V4[0].packed, V4[1].packed
    flows = [
        Flow(6, Tuple(source, destination, client, port), Tuple(destination, source, port, client), 0, 0, b"")
        for client in range(40000, 40100)
        for port in (80, 443)
    ]
    rule = Rule(None, (Ports("TCP", 80, 80),))
    closed = compiled(HERE, [WEB], {}, [Policy("shop", "web", EVERYTHING, egress=(rule,))])
    found = list(forbidden(closed, flows, ()))
    assert {flow.reply.source_port for flow in found} == {443}
    assert len(found) == 100
    assert asked == [(V4[0], V4[1], "TCP", 80), (V4[0], V4[1], "TCP", 443)]
