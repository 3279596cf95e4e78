"""Whose a container of this node is when pods come and go under its pod's name."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.compiler import compile as compiled
from tunrouter.core.policy.model import (
    EVERYTHING,
    Address,
    Key,
    Peers,
    Placed,
    Pod,
    Policy,
    Requirement,
    Rule,
    Selector,
)
from tunrouter.core.policy.ruleset import CLOSED, OPEN

HERE, THERE = ip_address("10.32.0.1"), ip_address("10.32.0.2")
NAME = ("shop", "db-0")


def pod(uid: str, *addresses: object, **labels: str) -> Pod:
    return Pod(*NAME, uid, labels, tuple(ip_address(str(one)) for one in addresses), node="here")


def known(*containers: Placed) -> Compiler:
    compiler = Compiler("here")
    compiler.put_namespace("shop", {})
    compiler.place(containers)
    return compiler


def labels(compiler: Compiler, address: Address) -> Mapping[str, str] | None:
    """Of the pod that has it."""
    owner = compiler.memory.owner(address)
    return owner.labels if owner is not None else None


def test_a_container_whose_name_is_anothers_by_now_is_closed_at_once_and_not_at_the_next_change() -> None:
    placed, another = Placed(HERE, NAME, "first"), pod("second", THERE)
    compiler = known(placed)
    assert compiler.ruleset().pods == {HERE: OPEN}, "its namespace has no policies"
    compiler.put_pod(another)
    after = compiler.ruleset()
    assert after.pods == {HERE: CLOSED}
    assert after == compiled("here", [another], {"shop": {}}, [], [placed])
    compiler.drop_pod(NAME)
    assert compiler.ruleset() == compiled("here", [], {"shop": {}}, [], [placed])


def test_a_container_without_a_uid_is_the_pods_that_says_it_has_its_address() -> None:
    compiler = known()
    compiler.put_pod(pod("first", HERE, role="old"))
    compiler.place([Placed(THERE, NAME)])  # the API still tells of its predecessor
    compiler.drop_pod(NAME)
    compiler.put_pod(pod("second", role="new"))
    assert labels(compiler, THERE) == {"role": "old"}, "nobody said otherwise yet"
    compiler.put_pod(pod("second", THERE, role="new"))
    assert labels(compiler, THERE) == {"role": "new"}


def test_a_container_with_a_uid_stays_its_pods_whatever_another_of_its_name_says() -> None:
    compiler = known(Placed(HERE, NAME, "first"))
    compiler.put_pod(pod("first", HERE, role="old"))
    compiler.drop_pod(NAME)
    compiler.put_pod(pod("second", HERE, role="new"))
    assert labels(compiler, HERE) == {"role": "old"}


def test_namespaces_that_come_and_go_leave_nothing() -> None:
    compiler = known(Placed(HERE, ("gone-0", "p"), "uid"))
    for number in range(10):
        name = f"gone-{number}"
        compiler.place([Placed(HERE, (name, "p"), "uid")])
        compiler.put_namespace(name, {})
        compiler.put_policy(Policy(name, "closed", EVERYTHING, ()))
        compiler.ruleset()
        compiler.drop_policy((name, "closed"))
        compiler.drop_namespace(name)
        compiler.ruleset()
    assert not compiler._in_namespace


def test_pods_of_other_namespaces_are_not_looked_at_for_a_group_of_a_few() -> None:
    class Counted(dict[Key, Pod]):
        looked = 0

        def __getitem__(self, key: Key) -> Pod:
            self.looked += 1
            return super().__getitem__(key)

    compiler = known(Placed(HERE, NAME, "db"))
    compiler.put_pod(pod("db", HERE))
    for number in range(1000):
        compiler.put_namespace(f"team-{number}", {"team": f"{number}"})
        compiler.put_pod(Pod(f"team-{number}", "web", f"{number}", {}, (THERE + number,), node="there"))
    compiler.memory.pods = pods = Counted(compiler.memory.pods)
    teams = [Selector(frozenset({Requirement("team", "In", frozenset({f"{number}"}))})) for number in range(100)]
    compiler.put_policy(
        Policy("shop", "teams", EVERYTHING, tuple(Rule((Peers(EVERYTHING, each),), None) for each in teams))
    )
    groups = compiler.ruleset().groups
    assert {group.namespaces: members for group, members in groups.items()} == {
        each: frozenset({THERE + number}) for number, each in enumerate(teams)
    }
    assert pods.looked < 5000, "a few times each of the hundred that are meant, and once each of the thousand"
