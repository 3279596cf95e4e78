"""Whose an address is, through everything that happens to pods, and which addresses each change touches."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.core.policies import HERE, THERE, V4, labelled
from tunrouter.core.policy import compiler
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.memory import Memory
from tunrouter.core.policy.model import (
    EVERYTHING,
    Address,
    NamedPort,
    Peers,
    Placed,
    Pod,
    Policy,
    Requirement,
    Rule,
    Selector,
)
from tunrouter.core.policy.ruleset import CLOSED, OPEN, Group, Isolation

ONE, TWO, THREE = V4[:3]
POD = Pod("shop", "db-0", "uid-1", {"app": "db"}, (ONE,), (NamedPort("sql", "TCP", 5432),), HERE, born=1.0)
AGAIN = POD._replace(uid="uid-2", labels={"app": "new"}, addresses=(TWO,), born=2.0)
"""Of the same name: a StatefulSet's, made anew."""
OTHER = Pod("blog", "web", "uid-3", {"app": "web"}, (ONE,), (), THERE, born=3.0)
FOR_POD = Placed(ONE, POD.key, POD.uid)


def told(*pods: Pod, placed: Iterable[Placed] | None = None) -> Memory:
    memory = Memory(HERE)
    for pod in pods:
        memory.put(pod)
    if placed is not None:
        memory.place(placed)
    return memory


def owner(memory: Memory, address: Address = ONE) -> str:
    pod = memory.owner(address)
    return pod.uid if pod is not None else ""


# --- claims, as the cluster tells them -------------------------------------------------------------------------------
@pytest.mark.parametrize("pods", [(POD, OTHER), (OTHER, POD)])
def test_a_reused_address_is_the_youngest_pods(pods: tuple[Pod, Pod]) -> None:
    memory = told(*pods)
    assert owner(memory) == OTHER.uid
    assert memory.drop(OTHER.key) == {ONE}
    assert owner(memory) == POD.uid
    assert memory.drop(POD.key) == {ONE}
    assert owner(memory) == ""


def test_of_equal_age_one_has_it_whatever_came_first() -> None:
    twin = OTHER._replace(born=POD.born)
    assert owner(told(POD, twin)) == owner(told(twin, POD)) == twin.uid


@pytest.mark.parametrize("gone", [{"ended": True}, {"host_network": True}, {"addresses": ()}])
def test_who_has_ended_or_has_its_nodes_address_owns_nothing(gone: dict[str, object]) -> None:
    memory = told(POD, POD._replace(uid="", name="older", born=0.5))
    assert owner(memory) == POD.uid
    assert memory.put(POD._replace(**gone)) == {ONE}  # type: ignore[arg-type]
    assert owner(memory) == ""
    memory.drop(("shop", "older"))
    assert memory.owner(ONE) is None


def test_an_address_that_changes_is_told_with_the_one_before() -> None:
    memory = told(POD)
    assert memory.put(POD._replace(addresses=(TWO,))) == {ONE, TWO}
    assert (owner(memory, ONE), owner(memory, TWO)) == ("", POD.uid)
    assert memory.drop(("shop", "nobody")) == set()


def test_until_containers_are_told_the_nodes_pods_are_the_clusters() -> None:
    memory = told(
        POD, OTHER._replace(addresses=(TWO,)), POD._replace(name="away", uid="u", node="", addresses=(THREE,))
    )
    assert set(memory.local()) == {ONE}
    memory.put(OTHER)
    assert set(memory.local()) == set(), "a younger pod elsewhere has it now"


# --- containers, as their node tells them ----------------------------------------------------------------------------
def test_what_is_placed_beats_what_the_cluster_claims() -> None:
    memory = told(POD, OTHER, placed=[FOR_POD])
    assert owner(memory) == POD.uid, "the container is here, whatever a younger pod claims elsewhere"
    assert memory.place([]) == {ONE}
    assert owner(memory) == OTHER.uid


def test_a_container_is_known_before_the_cluster_has_its_address() -> None:
    memory = told(POD._replace(addresses=()), placed=[FOR_POD])
    assert owner(memory) == POD.uid
    assert set(memory.local()) == {ONE}
    early = told(placed=[FOR_POD])
    assert owner(early) == ""
    assert early.put(POD._replace(addresses=())) == {ONE}, "and its pod may come later"
    assert owner(early) == POD.uid


def test_a_pod_that_is_deleted_by_force_keeps_its_container_until_that_is_gone() -> None:
    memory = told(POD, placed=[FOR_POD])
    memory.drop(POD.key)
    assert owner(memory) == POD.uid
    assert [(address, pod.uid) for address, pod in memory.bound()] == [(ONE, POD.uid)]
    assert memory.place([]) == {ONE}
    assert owner(memory) == ""
    assert list(memory.bound()) == []


def test_a_pod_made_anew_under_the_same_name_has_not_the_container_of_the_former() -> None:
    memory = told(POD, placed=[FOR_POD])
    memory.drop(POD.key)
    memory.put(AGAIN)
    assert owner(memory) == POD.uid, "its labels are still those of the former"
    assert memory.place([FOR_POD, Placed(TWO, AGAIN.key, AGAIN.uid)]) == {TWO}
    assert (owner(memory, ONE), owner(memory, TWO)) == (POD.uid, AGAIN.uid)
    assert TWO in memory.put(AGAIN._replace(labels={"app": "third"}))
    pod = memory.owner(TWO)
    assert pod is not None
    assert pod.labels == {"app": "third"}


def test_replaced_without_a_word_of_its_deletion_it_is_the_same() -> None:
    """As after an outage: the next list has the new pod at once."""
    memory = told(POD, placed=[FOR_POD])
    memory.put(AGAIN)
    assert owner(memory) == POD.uid
    late = told(AGAIN, placed=[FOR_POD])
    assert owner(late) == "", "whose container it was is not known any more: it is nobody's, and not the new pod's"


def test_without_a_uid_from_the_runtime_the_first_of_the_name_has_it() -> None:
    memory = told(POD, placed=[Placed(ONE, POD.key)])
    memory.put(AGAIN)
    assert owner(memory) == POD.uid
    memory.put(POD._replace(labels={"app": "x"}))
    pod = memory.owner(ONE)
    assert pod is not None
    assert pod.labels == {"app": "x"}


def test_labels_follow_the_pod_into_its_container() -> None:
    memory = told(POD, placed=[FOR_POD])
    assert memory.put(POD._replace(labels={"app": "x"})) == {ONE}
    pod = memory.owner(ONE)
    assert pod is not None
    assert pod.labels == {"app": "x"}


@pytest.mark.parametrize("gone", [{"ended": True}, {"host_network": True}])
def test_a_container_whose_pod_has_ended_is_nobodys(gone: dict[str, object]) -> None:
    memory = told(POD._replace(**gone), OTHER, placed=[FOR_POD])  # type: ignore[arg-type]
    assert memory.owner(ONE) is None


def test_an_unnamed_container_is_known_by_its_address_and_what_is_no_pod_is_nobodys() -> None:
    memory = told(POD, placed=[Placed(ONE)])
    assert owner(memory) == POD.uid
    assert memory.place([Placed(ONE, policed=False)]) == {ONE}
    assert owner(memory) == ""


def test_the_same_list_again_touches_nothing() -> None:
    memory = told(POD, placed=[FOR_POD])
    assert memory.place([FOR_POD]) == set()
    assert memory.place([FOR_POD._replace(uid="uid-9")]) == {ONE}
    assert told(POD).place([FOR_POD]) == {ONE}, "the first list is news, even of what the cluster said"
    assert told(POD).place([]) == {ONE}


# --- what that makes of it -------------------------------------------------------------------------------------------
DENY = Policy("shop", "deny", EVERYTHING, ingress=())


@pytest.mark.parametrize(
    ("placed", "pods", "isolation"),
    [
        (FOR_POD, (POD,), Isolation(None, (DENY.key,))),
        (FOR_POD, (), Isolation(None, ())),
        (FOR_POD._replace(pod=("blog", "web")), (), OPEN),
        (FOR_POD._replace(pod=("blog", "web")), (OTHER,), CLOSED),
        (FOR_POD._replace(pod=("unheard", "web")), (), CLOSED),
        (FOR_POD, (AGAIN,), CLOSED),
        (FOR_POD, (POD._replace(ended=True),), CLOSED),
        (Placed(ONE), (), CLOSED),
        (Placed(ONE, policed=False), (POD,), OPEN),
    ],
)
def test_what_is_not_known_is_closed(placed: Placed, pods: tuple[Pod, ...], isolation: Isolation) -> None:
    """But in a namespace that is known to have no policies, where it does not matter whose it is."""
    assert compiler.compile(HERE, pods, {"shop": {}, "blog": {}}, [DENY], [placed]).pods == {ONE: isolation}


@pytest.mark.parametrize("policies", [(), (DENY,)])
def test_a_container_of_another_of_the_name_is_closed_as_long_as_there_is_that_other(
    policies: tuple[Policy, ...],
) -> None:
    told = Compiler(HERE)
    for policy in policies:
        told.put_policy(policy)
    told.place([FOR_POD])
    assert told.ruleset().pods == {ONE: CLOSED}, "who knows of no such namespace knows nothing of its policies"
    told.put_namespace("shop", {})
    free = Isolation(None, () if policies else None)
    assert told.ruleset().pods == {ONE: free}
    told.put_pod(AGAIN)
    assert told.ruleset().pods == {ONE: CLOSED}
    told.drop_pod(AGAIN.key)
    assert told.ruleset().pods == {ONE: free}


def test_a_forgotten_pods_container_keeps_its_policies_and_stays_a_peer() -> None:
    told = Compiler(HERE)
    told.put_namespace("shop", {})
    told.put_policy(DENY._replace(ingress=(Rule((Peers(labelled(app="db")),), None),)))
    told.put_pod(POD)
    told.place([FOR_POD])
    before = told.ruleset()
    told.drop_pod(POD.key)
    assert told.ruleset() == before
    told.put_pod(AGAIN)
    group = Group(labelled(app="db"), None, "shop")
    assert told.ruleset().groups[group] == {ONE}
    told.place([])
    assert told.ruleset().groups.get(group, frozenset()) == frozenset()


def test_policies_added_while_its_pod_is_forgotten_are_its_too() -> None:
    told = Compiler(HERE)
    told.put_pod(POD)
    told.place([FOR_POD])
    told.drop_pod(POD.key)
    told.put_policy(DENY)
    assert told.ruleset().pods == {ONE: Isolation(None, (DENY.key,))}


# --- who may be selected ---------------------------------------------------------------------------------------------
def test_candidates_are_by_the_rarest_label() -> None:
    memory = told(
        *(POD._replace(name=f"p{number}", labels={"app": "db", "n": str(number)}) for number in range(9)), OTHER
    )
    assert list(memory.candidates(labelled(app="db", n="4"), "shop")) == [("shop", "p4")]
    assert set(memory.candidates(Selector(frozenset({Requirement("n", "In", frozenset({"4", "5"}))})), "")) == {
        ("shop", "p4"), ("shop", "p5")
    }  # fmt: skip
    assert len(memory.candidates(EVERYTHING, "")) == 10
    assert set(memory.candidates(EVERYTHING, "blog")) == {OTHER.key}
    assert not memory.candidates(labelled(app="nobody"), "shop")


def test_what_is_dropped_is_in_no_index() -> None:
    memory = told(POD, OTHER)
    assert set(memory.with_port("TCP", "sql")) == {POD.key}
    memory.put(POD._replace(labels={}, ports=()))
    assert not memory.candidates(labelled(app="db"), "")
    assert not memory.with_port("TCP", "sql")
    for pod in (POD, OTHER):
        memory.drop(pod.key)
    assert not memory.candidates(EVERYTHING, "")
    assert not memory.candidates(EVERYTHING, "shop")
    assert memory.owner(ONE) is None
