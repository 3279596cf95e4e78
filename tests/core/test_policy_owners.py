"""Whose a container of this node is when pods come and go under its pod's name."""

from __future__ import annotations

from ipaddress import ip_address

from tunrouter.core.policy.compiler import Compiler, compile
from tunrouter.core.policy.model import Placed, Pod
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


def test_a_container_whose_name_is_anothers_by_now_is_closed_at_once_and_not_at_the_next_change() -> None:
    placed, another = Placed(HERE, NAME, "first"), pod("second", THERE)
    compiler = known(placed)
    assert compiler.ruleset().pods == {HERE: OPEN}, "its namespace has no policies"
    compiler.put_pod(another)
    after = compiler.ruleset()
    assert after.pods == {HERE: CLOSED}
    assert after == compile("here", [another], {"shop": {}}, [], [placed])
    compiler.drop_pod(NAME)
    assert compiler.ruleset() == compile("here", [], {"shop": {}}, [], [placed])


def test_a_container_without_a_uid_is_the_pods_that_says_it_has_its_address() -> None:
    compiler = known()
    compiler.put_pod(pod("first", HERE, role="old"))
    compiler.place([Placed(THERE, NAME)])  # the API still tells of its predecessor
    compiler.drop_pod(NAME)
    compiler.put_pod(pod("second", role="new"))
    owner = compiler.memory.owner(THERE)
    assert owner is not None and owner.uid == "first", "nobody said otherwise yet"
    compiler.put_pod(pod("second", THERE, role="new"))
    owner = compiler.memory.owner(THERE)
    assert owner is not None and owner.labels == {"role": "new"}


def test_a_container_with_a_uid_stays_its_pods_whatever_another_of_its_name_says() -> None:
    compiler = known(Placed(HERE, NAME, "first"))
    compiler.put_pod(pod("first", HERE, role="old"))
    compiler.drop_pod(NAME)
    compiler.put_pod(pod("second", HERE, role="new"))
    owner = compiler.memory.owner(HERE)
    assert owner is not None and owner.labels == {"role": "old"}
