"""Differences of rule sets in the kernel: what they lead to is what the whole makes, and each is one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core import policies as worlds
from tests.core.policies import HERE, V4, V6, World
from tests.npc.tables import apply, listed, namespace
from tunrouter.bench.namespaces import Namespace
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import (
    EVERYTHING,
    Key,
    NamedPort,
    Peers,
    Pod,
    Policy,
    Ports,
    Requirement,
    Rule,
    Selector,
)
from tunrouter.core.policy.nftables import AT_ONCE, Frame, difference, whole
from tunrouter.core.policy.ruleset import EMPTY, Ruleset

FRAME = Frame("weave")
MAPS = [f"map {direction}{version}" for direction in ("egress", "ingress") for version in (4, 6)]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def changed() -> Iterator[Namespace]:
    with namespace("changed") as made:
        yield made


@pytest.fixture(scope="module")
def afresh() -> Iterator[Namespace]:
    with namespace("afresh") as made:
        yield made


def edit(compiler: Compiler, world: World, gone: set[Key]) -> None:
    """What is in `world` comes or is changed; of the rest `gone` goes."""
    worlds.tell(compiler, world)
    for key in gone - {pod.key for pod in world.pods}:
        compiler.drop_pod(key)
    for policy in list(compiler.policies):
        if policy in {(namespace, "two") for namespace, _ in gone} - {policy.key for policy in world.policies}:
            compiler.drop_policy(policy)


def compare(before: World, edits: list[tuple[World, set[Key]]], changed: Namespace, afresh: Namespace) -> None:
    compiler = before.compiler()
    held = compiler.ruleset()
    apply(changed, whole(held, FRAME))
    for world, gone in edits:
        edit(compiler, world, gone)
        wanted = compiler.ruleset()
        text = difference(held, wanted, FRAME)
        assert held != wanted or not text
        if text:
            apply(changed, text)
        held = wanted
        apply(afresh, whole(wanted, FRAME))
        assert listed(changed) == listed(afresh)


series = st.lists(
    st.tuples(worlds.worlds, st.frozensets(st.sampled_from(worlds.KEYS)).map(set)), min_size=1, max_size=3
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=worlds.worlds, edits=series)
def test_a_difference_leads_to_the_whole(
    before: World, edits: list[tuple[World, set[Key]]], changed: Namespace, afresh: Namespace
) -> None:
    compare(before, edits, changed, afresh)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=worlds.worlds, edits=series)
def test_many_differences_lead_to_the_whole(
    before: World, edits: list[tuple[World, set[Key]]], changed: Namespace, afresh: Namespace
) -> None:
    compare(before, edits, changed, afresh)


def test_each_change_is_only_what_differs(changed: Namespace, afresh: Namespace) -> None:
    """Members and ports that go, verdicts that change, rules that are others: one by one, in the same table."""
    rule = Rule((Peers(worlds.labelled(app="x"), EVERYTHING),), (Ports("TCP", name="web"),))
    compiler = world(policy(rule), policy(Rule(None, None), name="two"), pods=3)
    held = compiler.ruleset()
    apply(changed, whole(held, FRAME))
    steps: list[Callable[[], object]] = [
        lambda: compiler.put_pod(pod(0, V4[0], app="y")),
        lambda: compiler.put_pod(pod(1, V4[1])._replace(ports=())),
        lambda: compiler.put_pod(pod(2, V4[4])),
        lambda: compiler.drop_pod(("shop", "p2")),
        lambda: compiler.put_policy(policy(Rule(None, (Ports("UDP", 53, 53),)), name="two")),
        lambda: compiler.put_policy(policy(rule)._replace(selector=worlds.labelled(app="y"))),
        lambda: compiler.put_policy(policy(rule)._replace(egress=())),
        lambda: compiler.drop_policy(("shop", "one")),
        lambda: compiler.drop_policy(("shop", "two")),
    ]
    for step in steps:
        step()
        wanted = compiler.ruleset()
        text = difference(held, wanted, FRAME)
        assert "delete table" not in text
        apply(changed, text)
        apply(afresh, whole(wanted, FRAME))
        assert listed(changed) == listed(afresh)
        held = wanted


# --- what must not be lost -------------------------------------------------------------------------------------------
def world(*policies: Policy, pods: int = 2, addresses: tuple[object, ...] = V4) -> Compiler:
    compiler = Compiler(HERE)
    compiler.put_namespace("shop", {})
    for number in range(pods):
        compiler.put_pod(pod(number, addresses[number]))
    for policy in policies:
        compiler.put_policy(policy)
    return compiler


def pod(number: int, *addresses: object, **labels: str) -> Pod:
    return Pod("shop", f"p{number}", f"u{number}", labels or {"app": "x"}, addresses,  # type: ignore[arg-type]
               (NamedPort("web", "TCP", 8000 + number),), HERE)  # fmt: skip


def policy(*rules: Rule, name: str = "one") -> Policy:
    return Policy("shop", name, EVERYTHING, ingress=rules)


def test_nothing_changed_is_no_text() -> None:
    compiler = world(policy(Rule((Peers(EVERYTHING),), None)))
    found = compiler.ruleset()
    compiler.put_pod(pod(0, V4[0]))
    assert difference(found, compiler.ruleset(), FRAME) == ""
    copied = Ruleset(dict(found.pods), dict(found.permits), dict(found.groups), dict(found.named))
    assert difference(found, copied, FRAME) == "", "equal values are no difference either"


def test_the_first_of_another_family_makes_the_table_anew(changed: Namespace) -> None:
    """Chains have no rules for families that nobody here has."""
    compiler = world(policy(Rule((Peers(EVERYTHING),), (Ports("TCP", 80, 80),))))
    before = compiler.ruleset()
    compiler.put_pod(pod(0, V4[0], V6[0]))
    after = compiler.ruleset()
    text = difference(before, after, FRAME)
    assert text == whole(after, FRAME)
    apply(changed, text)
    assert str(V6[0]) in str(listed(changed)["map ingress6"]["elem"])


def test_selectors_that_look_alike_are_sets_of_their_own(changed: Namespace) -> None:
    """A value of a label with a space or a line in it, which older API servers took, is no way into others' sets."""

    def lacking(*values: str) -> Rule:
        return Rule((Peers(Selector(frozenset({Requirement("app", "NotIn", frozenset(values))})), EVERYTHING),), None)

    compiler = world(policy(lacking("x", "y")), policy(lacking("x y"), name="two"))
    apply(changed, whole(compiler.ruleset(), FRAME))
    sets = [value["elem"] for name, value in listed(changed).items() if name.startswith("set group4")]
    assert sorted(map(len, sets)) == [0, 2]


def test_policies_that_look_alike_are_chains_of_their_own() -> None:
    one = Policy("shop", "a", EVERYTHING, ingress=())
    compiler = world(one, one._replace(name="a\0shop\0a"))
    assert whole(compiler.ruleset(), FRAME).count("add chain inet tunrouter-policy ingress-policy-") == 2


def test_more_elements_than_fit_one_command(changed: Namespace) -> None:
    compiler = Compiler(HERE)
    compiler.put_namespace("shop", {})
    compiler.put_policy(policy(Rule((Peers(EVERYTHING),), None)))
    for number in range(AT_ONCE + 3):
        compiler.put_pod(pod(number, V4[0] + number))
    apply(changed, whole(compiler.ruleset(), FRAME))
    (group,) = (value for name, value in listed(changed).items() if name.startswith("set group4"))
    assert len(group["elem"]) == AT_ONCE + 3


def test_a_transaction_that_fails_changes_nothing(changed: Namespace) -> None:
    compiler = world(policy(Rule(None, None)))
    apply(changed, whole(compiler.ruleset(), FRAME))
    before = listed(changed)
    compiler.drop_policy(("shop", "one"))
    text = difference(world(policy(Rule(None, None))).ruleset(), compiler.ruleset(), FRAME)
    assert changed.run(
        "nft", "-f", "-", stdin=f"{text}delete chain inet tunrouter-policy nobody\n", check=False
    ).returncode
    assert listed(changed) == before


def test_policies_with_long_and_odd_names(changed: Namespace) -> None:
    names = ["a" * 253, "b.c-d", 'quo"te', "new\nline"]
    compiler = world(*(policy(Rule(None, None), name=name) for name in names))
    apply(changed, whole(compiler.ruleset(), FRAME))
    shown = changed.run("nft", "list", "table", "inet", "tunrouter-policy").stdout
    assert all(f'comment "shop/{name}"' in shown for name in ("b.c-d", "quote", "newline", "a" * 115))


def test_without_a_kernel_that_can_tell_it_is_dropped_all_the_same(changed: Namespace) -> None:
    apply(changed, whole(EMPTY, Frame("weave", log=False)))
    quiet = listed(changed)["chain dropped-ingress"]["rules"]
    apply(changed, whole(EMPTY, FRAME))
    told = listed(changed)["chain dropped-ingress"]["rules"]
    assert (len(quiet), len(told)) == (1, 2)
    assert quiet[-1] == told[-1]


def test_who_has_no_policy_is_in_the_maps_all_the_same(changed: Namespace) -> None:
    """Else it would be closed, as what nobody knows is."""
    compiler = world(pods=1)
    compiler.put_pod(pod(0, V4[0], V6[0]))
    apply(changed, whole(compiler.ruleset(), FRAME))
    found = listed(changed)
    assert [len(found[name]["elem"]) for name in MAPS] == [1, 1, 1, 1]
    assert all("accept" in found[name]["elem"][0] for name in MAPS)
