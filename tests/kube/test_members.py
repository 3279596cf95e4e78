"""Nodes as members: whom to dial, at which of their addresses, and that thousands of them cost next to nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.kube.reflecting import run
from tunrouter.agent.kubernetes.members import DIALLED, Members
from tunrouter.edge.kube import reflector as reflector_module
from tunrouter.edge.kube.objects import NODES, Address, Condition, Metadata, Node, NodeInfo, NodeSpec, NodeStatus
from tunrouter.edge.kube.reflector import Key, Reflector


def node(name: str, *addresses: str, version: int = 1, kind: str = "InternalIP", **more: Any) -> Node:
    metadata = Metadata(name=name, uid=f"uid of {name}", resource_version=str(version), annotations=more)
    return Node(metadata=metadata, status=NodeStatus(addresses=tuple(Address(type=kind, address=a) for a in addresses)))


def listed(*nodes: Node) -> dict[Key, Node]:
    return {("", each.metadata.name): each for each in nodes}


def crowd(size: int, version: int = 1) -> dict[Key, Node]:
    return listed(*(node(f"n{i}", f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", version=version) for i in range(size)))


def in_loop(scenario: Callable[[Members, list[str]], Any]) -> None:
    """With members that note each telling."""

    async def whole() -> None:
        members, told = Members("n0"), list[str]()
        members.changed_at_all = lambda: told.append(" ".join(members.peers))
        await scenario(members, told)

    run(whole())


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_matters_is_told_once_a_turn_and_health_is_not() -> None:
    async def scenario(members: Members, told: list[str]) -> None:
        members.replaced(crowd(10))
        await turn()
        assert len(told) == 1
        unwell = Condition(type="Ready", status="False")
        for each in crowd(10, 2).values():
            members.changed(
                Node(metadata=each.metadata, status=NodeStatus(addresses=each.status.addresses, conditions=(unwell,)))
            )
        await turn()
        assert len(told) == 1
        assert members.own is not None
        assert members.own.status.conditions == (unwell,)
        members.changed(node("n0", "10.0.0.0", x="y"))
        members.changed(node("n1", "10.9.9.9"))
        members.gone(node("n2", "10.0.0.2"))
        await turn()
        assert len(told) == 2
        assert "10.9.9.9" in members.peers
        assert "10.0.0.2" not in members.peers
        assert members.news.all == frozenset(f"uid of n{i}" for i in range(10) if i != 2)
        members.gone(node("n0"))
        await turn()
        assert (members.news.own, len(told)) == ("", 3)

    in_loop(scenario)


def test_an_object_made_anew_is_another_member() -> None:
    async def scenario(members: Members, told: list[str]) -> None:
        members.replaced(crowd(3))
        again = node("n1", "10.0.0.1")
        again = Node(metadata=Metadata(name="n1", uid="another", resource_version="9"), status=again.status)
        members.gone(node("n1", "10.0.0.1"))
        members.changed(again)
        await turn()
        assert members.news.all == {"uid of n0", "another", "uid of n2"}
        assert len(members.peers) == 2

    in_loop(scenario)


def test_the_order_is_a_nodes_own_and_goes_round() -> None:
    async def scenario(members: Members, told: list[str]) -> None:
        members.replaced(crowd(40))
        first = members.peers
        assert len(set(first)) == DIALLED
        again = Members("n0")
        again.replaced(dict(reversed(crowd(40).items())))
        assert again.peers == first
        other = Members("n1")
        other.replaced(crowd(40))
        assert other.peers != first
        seen = set(first)
        for _ in range(2):
            members.dial_others()
            assert not set(members.peers) <= seen
            seen |= set(members.peers)
        assert seen == {f"10.0.0.{i}" for i in range(1, 40)}

    in_loop(scenario)


@pytest.mark.parametrize(
    ("own", "address", "peer"),
    [
        (("2001:db8::1", "192.0.2.1"), "192.0.2.1", "192.0.2.2"),
        (("192.0.2.1", "2001:db8::1"), "192.0.2.1", "192.0.2.2"),
        (("2001:db8::1",), "2001:db8::1", "2001:db8::2"),
        (("no address", "192.0.2.1"), "192.0.2.1", "192.0.2.2"),
        ((), "", "192.0.2.2"),
    ],
)
def test_peers_are_dialled_at_their_address_of_our_family(own: tuple[str, ...], address: str, peer: str) -> None:
    async def scenario(members: Members, told: list[str]) -> None:
        both = node("n1", "2001:db8::2", "192.0.2.2")
        members.replaced(listed(node("n0", *own), both))
        assert members.address == address
        assert members.peers == (peer,)

    in_loop(scenario)


def test_a_peer_of_the_other_family_alone_is_dialled_all_the_same() -> None:
    async def scenario(members: Members, told: list[str]) -> None:
        members.replaced(
            listed(node("n0", "192.0.2.1"), node("n1", "2001:db8::2"), node("n2"), node("n3", "192.0.2.1"))
        )
        assert members.peers == ("2001:db8::2",)
        members.changed(node("n2", "198.51.100.2", kind="ExternalIP"))
        assert set(members.peers) == {"2001:db8::2", "198.51.100.2"}

    in_loop(scenario)


def test_where_nodes_have_podcidrs() -> None:
    async def scenario(members: Members, told: list[str]) -> None:
        members.changed(Node(metadata=Metadata(name="n1", uid="1"), spec=NodeSpec(pod_cidr="10.244.0.0/24")))
        assert members.pod_cidrs == {"n1": "10.244.0.0/24"}

    in_loop(scenario)


def test_thousands_tell_all_at_once_and_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new list of 5,000 Nodes that all tell of their health took half a minute in one piece."""

    async def scenario(members: Members, told: list[str]) -> None:
        reflector: Reflector[Node] = Reflector(None, NODES, members)  # type: ignore[arg-type]
        await reflector._compare(crowd(5000))
        await turn()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        began = time.thread_time()
        await reflector._compare(crowd(5000, 2))
        assert time.thread_time() - began < 1
        counting.cancel()
        assert turns >= 5000 // reflector_module.TURN
        assert len(told) == 1

    in_loop(scenario)


def test_an_object_of_our_name_that_was_booted_while_we_live_is_another_machines() -> None:
    async def scenario(members: Members, told: list[str]) -> None:
        def ours(uid: str, boot: str) -> Node:
            info = NodeInfo(boot_id=boot)
            return Node(metadata=Metadata(name="n0", uid=uid), status=NodeStatus(node_info=info))

        members.replaced(listed(ours("first", "a")))
        assert members.news.own == "first"
        members.changed(ours("again", "a"))
        assert members.news.own == "again", "made anew under its pods"
        members.changed(ours("other", "b"))
        assert members.news.own == ""
        assert "other" in members.news.all
        members.changed(ours("back", "a"))
        assert members.news.own == "back"

    in_loop(scenario)
