"""The compiler after any series of changes, beside the one that is told the end alone."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core import policies as worlds
from tests.core.policies import HERE, KEYS, NAMESPACES, V4, labelled
from tunrouter.core.policy import compiler
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import EVERYTHING, Key, NamedPort, Peers, Placed, Pod, Policy, Ports, Rule
from tunrouter.core.policy.ruleset import Group, Ruleset

KEPT = 3
"""Rule sets of before."""


STANDING = tuple(
    Policy(
        namespace, "standing", EVERYTHING,
        ingress=(Rule((Peers(labelled(app="x"), EVERYTHING),), None), Rule((), (Ports("TCP", name="web"),))),
        egress=(Rule((Peers(EVERYTHING, labelled(app="x")),), (Ports("TCP", name="web"),)),),
    )
    for namespace in NAMESPACES
)  # fmt: skip
"""So that most changes of a pod are changes of a group."""


class Changes(RuleBasedStateMachine):
    """Containers of a pod go before it does: what outlives its pod is a matter of memory, not of the end."""

    def __init__(self) -> None:
        super().__init__()
        self.compiler = Compiler(HERE)
        self.pods: dict[Key, Pod] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        self.policies: dict[Key, Policy] = {}
        self.placed: tuple[Placed, ...] | None = None
        self.earlier: list[tuple[Ruleset, Any]] = []

    @initialize(world=worlds.worlds)
    def begin(self, world: worlds.World) -> None:
        self.pods = {pod.key: pod for pod in world.pods}
        self.namespaces = dict(world.namespaces)
        world = world._replace(policies=(*world.policies, *STANDING))
        self.policies = {policy.key: policy for policy in world.policies}
        self.placed = world.placed
        worlds.tell(self.compiler, world)

    @rule(pod=worlds.pods)
    def put_pod(self, pod: Pod) -> None:
        known = self.pods.get(pod.key)
        if known is not None and known.uid != pod.uid:
            self._end(pod.key)
        self.pods[pod.key] = pod
        self.compiler.put_pod(pod)

    @rule(key=st.sampled_from(KEYS), labels=worlds.labels)
    def relabel(self, key: Key, labels: dict[str, str]) -> None:
        if key in self.pods:
            self.put_pod(self.pods[key]._replace(labels=labels))

    @rule(key=st.sampled_from(KEYS))
    def drop_pod(self, key: Key) -> None:
        self._end(key)
        self.pods.pop(key, None)
        self.compiler.drop_pod(key)

    def _end(self, key: Key) -> None:
        if any(one.pod == key for one in self.placed or ()):
            self.place([one for one in self.placed or () if one.pod != key])

    @rule(name=st.sampled_from(NAMESPACES), labels=worlds.labels)
    def put_namespace(self, name: str, labels: dict[str, str]) -> None:
        self.namespaces[name] = labels
        self.compiler.put_namespace(name, labels)

    @rule(name=st.sampled_from(NAMESPACES))
    def drop_namespace(self, name: str) -> None:
        self.namespaces.pop(name, None)
        self.compiler.drop_namespace(name)

    @rule(policy=worlds.policies)
    def put_policy(self, policy: Policy) -> None:
        self.policies[policy.key] = policy
        self.compiler.put_policy(policy)

    @precondition(lambda self: self.policies)
    @rule(data=st.data())
    def drop_policy(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.policies)))
        del self.policies[key]
        self.compiler.drop_policy(key)

    @rule(containers=worlds.containers)
    def place(self, containers: list[Placed]) -> None:
        self.placed = tuple(containers)
        self.compiler.place(self.placed)

    @rule(one=worlds.placed)
    def place_one_more(self, one: Placed) -> None:
        self.place([*(other for other in self.placed or () if other.address != one.address), one])

    @rule()
    def look(self) -> None:
        """Changes in between are one change for the rule set."""
        found = self.compiler.ruleset()
        assert found == compiler.compile(HERE, self.pods.values(), self.namespaces, self.policies.values(), self.placed)
        self.earlier = [*self.earlier, (found, _copy(found))][-KEPT:]

    @invariant()
    def what_was_a_rule_set_stays_it(self) -> None:
        assert all(_copy(found) == was for found, was in self.earlier)

    def teardown(self) -> None:
        self.look()


class EachChange(Changes):
    """The rule set is made after every one of them."""

    @invariant()
    def it_is_as_from_the_end(self) -> None:
        self.look()


def _copy(ruleset: Ruleset) -> tuple[Any, ...]:
    return tuple(dict(part) for part in ruleset)


# --- one by one ------------------------------------------------------------------------------------------------------
WEB = Pod("shop", "web", "u1", {"app": "x"}, (V4[0],), (NamedPort("web", "TCP", 80),), HERE)
DB = Pod("shop", "db", "u2", {"app": "y"}, (V4[1],), (), HERE)
GROUP = Group(labelled(app="x"), EVERYTHING, "")


def told(*pods: Pod) -> Compiler:
    found = Compiler(HERE)
    found.put_namespace("shop", {})
    for pod in pods:
        found.put_pod(pod)
    for policy in STANDING:
        found.put_policy(policy)
    return found


def test_who_is_not_selected_any_more_leaves_the_group() -> None:
    found = told(WEB, DB)
    assert found.ruleset().groups[GROUP] == {V4[0]}
    found.put_pod(WEB._replace(labels={"app": "y"}))
    assert found.ruleset().groups[GROUP] == frozenset()
    found.put_pod(WEB)
    assert found.ruleset().groups[GROUP] == {V4[0]}
    found.drop_pod(WEB.key)
    assert found.ruleset().groups[GROUP] == frozenset()


def test_a_container_that_the_cluster_does_not_know_yet_is_in_a_group_that_is_new() -> None:
    found = Compiler(HERE)
    found.put_namespace("shop", {})
    for pod in (WEB._replace(addresses=()), DB):
        found.put_pod(pod)
    found.place([Placed(V4[0], WEB.key, WEB.uid), Placed(V4[1], DB.key)])
    assert found.ruleset().groups == {}
    for policy in STANDING:
        found.put_policy(policy)
    assert found.ruleset().groups[GROUP] == {V4[0]}


TestManyChanges = Changes.TestCase
TestManyChanges.settings = settings(max_examples=60, stateful_step_count=25)
TestEachChange = EachChange.TestCase
TestEachChange.settings = settings(max_examples=60, stateful_step_count=25)
