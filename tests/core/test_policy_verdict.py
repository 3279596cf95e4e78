"""Explanations: the same answer as the rule set's over drawn worlds, and in words for what people meet."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import product

import pytest
from hypothesis import given, settings

from tests.core import policies as worlds
from tests.core.policies import ASKED, HERE, STRANGERS, THERE, V4, V6, World, labelled
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import (
    EVERYTHING,
    Address,
    Block,
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
from tunrouter.core.policy.verdict import End, Opening, Verdict, verdicts

EVERYBODY = (*V4, *V6, *STRANGERS)


@settings(max_examples=40)
@given(worlds.worlds)
def test_each_direction_says_what_the_rule_set_says(world: World) -> None:
    compiler = world.compiler()
    ruleset = compiler.ruleset()
    for source, destination in product(EVERYBODY, EVERYBODY):
        if source.version != destination.version or source == destination:
            continue
        ends = End(compiler.memory.owner(source), source), End(compiler.memory.owner(destination), destination)
        if ends[0].pod is not None and ends[0].pod is ends[1].pod:
            continue  # two containers of one pod, of which one is about to go
        for protocol, port in ASKED:
            found = verdicts(compiler, Opening(*ends, protocol, port))
            for verdict, address in zip(found, (source, destination), strict=True):
                if address not in ruleset.pods:
                    continue
                isolated = ruleset.pods[address].towards(verdict.direction) is not None
                permits = ruleset.permitted(verdict.direction, source, destination, protocol, port)
                assert verdict.allowed == (not isolated or permits is not None), (verdict, source, destination)
                assert verdict.policy is None or verdict.policy.key == permits


@settings(max_examples=40)
@given(worlds.worlds)
def test_both_nodes_together_permit_what_both_directions_allow(world: World) -> None:
    """Without containers that were told each node has the pods that the cluster has there."""
    world = world._replace(placed=None)
    compiler = world.compiler()
    both = [world.compiler(node).ruleset() for node in (HERE, THERE)]
    owners = {address: compiler.memory.owner(address) for address in EVERYBODY}
    for source, destination in product(EVERYBODY, EVERYBODY):
        if source.version != destination.version:
            continue
        ends = End(owners[source], source), End(owners[destination], destination)
        for protocol, port in ASKED:
            said = all(verdict.allowed for verdict in verdicts(compiler, Opening(*ends, protocol, port)))
            assert said == all(ruleset.passes(source, destination, protocol, port) for ruleset in both)


# --- in words --------------------------------------------------------------------------------------------------------
WEB = Pod("shop", "web", "u1", {"app": "web"}, (ip_address("10.32.0.2"),), (), HERE)
DB = Pod("shop", "db", "u2", {"app": "db"}, (ip_address("10.32.0.3"),), (NamedPort("sql", "TCP", 5432),), HERE)
BLOG = Pod("blog", "web", "u3", {"app": "web"}, (ip_address("10.32.0.4"),), (), THERE)
STRANGER = End(address=ip_address("192.0.2.9"))
DENY = Policy("shop", "deny", EVERYTHING, ingress=(), egress=())
PRODUCTION = Selector(
    frozenset({Requirement("env", "NotIn", frozenset({"test", "old"})), Requirement("env", "Exists")})
)
IN_PRODUCTION = "namespaces with env Exists, env NotIn (old, test)"


def known(*policies: Policy) -> Compiler:
    compiler = Compiler(HERE)
    for namespace in ("shop", "blog"):
        compiler.put_namespace(namespace, {"name": namespace})
    for pod in (WEB, DB, BLOG):
        compiler.put_pod(pod)
    for policy in policies:
        compiler.put_policy(policy)
    return compiler


def of(pod: Pod) -> End:
    return End(pod, pod.addresses[0])


def ask(compiler: Compiler, source: End, destination: End, protocol: str = "TCP", port: int = 5432) -> list[Verdict]:
    return verdicts(compiler, Opening(source, destination, protocol, port))


def to_db(*rules: Rule, faults: tuple[str, ...] = ()) -> Policy:
    return Policy("shop", "db", labelled(app="db"), ingress=rules, faults=faults)


FROM_WEB = Peers(labelled(app="web"))
ALONE = "1 policy isolates it and does not permit this"
SQL = Ports("TCP", 5432, 5432)


@pytest.mark.parametrize(
    ("policies", "source", "why"),
    [
        ((), of(WEB), "no policy isolates its ingress"),
        ((to_db(Rule((FROM_WEB,), (SQL,))),), of(WEB),
         "ingress rule 0 of shop/db permits it: from pods with app=web in its namespace, TCP 5432"),
        ((to_db(Rule((), None), Rule(None, (Ports("TCP", name="sql"),))),), STRANGER,
         "ingress rule 1 of shop/db permits it: from anywhere, TCP 'sql'"),
        ((DENY, to_db(Rule(None, None))), of(BLOG), "ingress rule 0 of shop/db permits it: from anywhere, all ports"),
        ((to_db(Rule((Block(ip_network("192.0.2.0/24"), (ip_network("192.0.2.128/25"),)),), (Ports("TCP"),))),),
         STRANGER, "ingress rule 0 of shop/db permits it: from 192.0.2.0/24 without 192.0.2.128/25, all ports of TCP"),
        ((to_db(Rule((Peers(EVERYTHING, EVERYTHING),), (Ports("TCP", 5000, 6000), SQL))),), of(BLOG),
         "ingress rule 0 of shop/db permits it: from all pods in all namespaces, TCP 5000-6000 or TCP 5432"),
        ((DENY,), End(node=True), "a pod's own node always reaches it"),
    ],
)  # fmt: skip
def test_what_is_allowed_names_its_rule(policies: tuple[Policy, ...], source: End, why: str) -> None:
    found = ask(known(*policies), source, of(DB))[1]
    assert (found.direction, found.allowed, found.why) == ("ingress", True, why)
    assert (found.policy is None) == (found.rule is None) == ("permits it" not in why)


@pytest.mark.parametrize(
    ("policies", "source", "port", "why"),
    [
        ((DENY,), of(WEB), 5432, ALONE),
        ((DENY, to_db()), of(WEB), 5432, "2 policies isolate it, none permits this"),
        ((to_db(Rule((FROM_WEB,), (SQL,))),), of(WEB), 80,
         f"{ALONE}; rule 0 of shop/db has this peer, but is for TCP 5432"),
        ((to_db(Rule((FROM_WEB,), (SQL,))),), of(BLOG), 5432,
         f"{ALONE}; rule 0 of shop/db has this port, but is from pods with app=web in its namespace"),
        ((to_db(Rule((Peers(EVERYTHING, PRODUCTION),), None)),), of(BLOG), 5432,
         f"{ALONE}; rule 0 of shop/db has this port, but is from all pods in {IN_PRODUCTION}"),
        ((to_db(Rule((), ()), faults=("spec.ingress[0] permits nothing: x",)),), of(WEB), 5432,
         f"{ALONE}; of shop/db not all is understood: spec.ingress[0] permits nothing: x"),
        ((to_db(Rule(None, (Ports("UDP", name="sql"),))),), of(WEB), 5432,
         f"{ALONE}; rule 0 of shop/db has this peer, but is for UDP 'sql'"),
    ],
)  # fmt: skip
def test_what_is_denied_names_what_came_closest(policies: tuple[Policy, ...], source: End, port: int, why: str) -> None:
    found = ask(known(*policies), source, of(DB), port=port)[1]
    assert (found.direction, found.allowed, found.why) == ("ingress", False, why)
    assert (found.policy, found.rule) == (None, None)
    assert [policy.key for policy in found.policies] == sorted(policy.key for policy in policies)


def test_an_exception_and_a_namespace_that_is_not_known_are_not_permitted() -> None:
    gap = Rule((Block(ip_network("10.32.0.0/12"), (ip_network("10.32.0.2/32"),)),), None)
    assert [ask(known(to_db(gap)), of(pod), of(DB))[1].allowed for pod in (WEB, BLOG)] == [False, True]
    compiler = known(to_db(Rule((Peers(EVERYTHING, Selector(frozenset({Requirement("x", "DoesNotExist")}))),), None)))
    assert ask(compiler, of(BLOG), of(DB))[1].allowed
    compiler.drop_namespace("blog")
    assert not ask(compiler, of(BLOG), of(DB))[1].allowed


def test_egress_is_the_sources_and_says_to() -> None:
    egress = Policy("shop", "out", EVERYTHING, egress=(Rule((FROM_WEB,), None),))
    found = ask(known(egress), of(WEB), of(DB))[0]
    assert (found.allowed, found.direction) == (False, "egress")
    assert found.why.endswith("rule 0 of shop/out has this port, but is to pods with app=web in its namespace")
    assert ask(known(egress), of(WEB), of(DB))[1].allowed


def test_who_talks_to_itself_is_not_asked() -> None:
    assert [verdict.why for verdict in ask(known(DENY), of(DB), of(DB))] == ["a pod always reaches itself"] * 2


def test_ends_that_are_no_pods_have_no_policies() -> None:
    found = ask(known(DENY), STRANGER, End(node=True))
    assert [verdict.why for verdict in found] == [
        "the source is no pod that policies can select", "the destination is no pod that policies can select"
    ]  # fmt: skip


def test_a_container_whose_pod_is_not_known_is_closed_but_to_its_node() -> None:
    compiler = known()
    nobody, of_shop = ip_address("10.32.0.8"), ip_address("10.32.0.9")
    compiler.place([Placed(nobody), Placed(of_shop, ("shop", "new"))])
    why = "is a container whose pod is not known: it is closed"
    assert [verdict[1:3] for verdict in ask(compiler, End(address=nobody), STRANGER)] == [
        (False, f"the source {why}"), (True, "the destination is no pod that policies can select")
    ]  # fmt: skip
    assert ask(compiler, STRANGER, End(address=nobody))[1].why == f"the destination {why}"
    assert ask(compiler, End(node=True), End(address=nobody))[1].why == "a pod's own node always reaches it"
    assert ask(compiler, STRANGER, End(address=of_shop))[1].allowed, "its namespace has no policies"
    compiler.put_policy(Policy("shop", "in", labelled(app="db"), ingress=()))
    assert not ask(compiler, STRANGER, End(address=of_shop))[1].allowed
    assert ask(compiler, End(address=of_shop), STRANGER)[0].allowed, "of this direction there is no policy"


def test_a_pod_without_an_address_is_in_no_block() -> None:
    rule = Rule((Block(ip_network("0.0.0.0/0")),), None)
    unborn: Address | None = None
    assert not ask(known(to_db(rule)), End(WEB, unborn), of(DB))[1].allowed
    assert ask(known(to_db(rule)), of(WEB), of(DB))[1].allowed
