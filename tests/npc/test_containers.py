"""Containers that the agent tells and waits for, on a real kernel and a real API: what is in force when it is said."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tests.kube.apiserver import Served
from tests.kube.reflecting import run, until
from tests.npc.scene import DENY, Parts, container, key, namespace, parts, pod, policy, served
from tunrouter.bench.namespaces import Namespace
from tunrouter.core.policy.ruleset import CLOSED, OPEN, Isolation
from tunrouter.edge.api.policing import Container
from tunrouter.edge.netlink import nft
from tunrouter.errors import AgentError
from tunrouter.npc import containers

__all__ = ["served"]
ONE, TWO = "10.32.0.2", "10.32.0.3"
DENIED = Isolation((("shop", "deny"),), (("shop", "deny"),))
pytestmark = pytest.mark.root


async def refused(made: Parts, one: Container, seconds: float = 0.3) -> str:
    with pytest.raises(AgentError) as caught:
        await made.enforce(one, seconds)
    return str(caught.value)


def test_nothing_is_written_before_the_agent_has_told(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await until("it waits for the agent", lambda: "the agent has not told" in made.enforcement.why)
            what = await refused(made, container(ONE, "web"))
            assert "not in force: the agent has not told its containers; see the log of weave-npc" in what
            assert (made.enforcement.transactions, made.compiler.memory.placed) == (0, None)
            await made.tell()
            await made.settled()
            assert made.isolated == {}

    run(scenario())


def test_an_agent_that_does_not_tell_is_waited_for_no_longer(
    served: Served, inside: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "UNTOLD_SECONDS", 0.5)

    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.plant(namespace("shop"), pod("web", ONE), policy("deny", DENY))
            await made.settled()
            assert made.isolated == {ONE: DENIED}, "as the cluster says"

    run(scenario())


def test_who_is_waited_for_is_in_force_when_it_is_said(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.tell()
            await made.plant(namespace("shop"), pod("web"), policy("deny", DENY))
            await made.settled()
            assert made.closed(ONE), "what is not known is closed"
            await made.enforce(container(ONE, "web", uid=made.uid("web")))
            assert made.isolated == {ONE: DENIED}
            assert not made.closed(ONE)
            assert made.enforcement.why == ""

    run(scenario())


def test_a_pod_that_is_not_known_yet_is_waited_for_where_there_are_policies(
    served: Served, inside: Namespace, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.tell()
            await made.plant(namespace("shop"), policy("deny", DENY))
            assert "the pod shop/web is not known to the Kubernetes API as this one (yet)" in await refused(
                made, container(ONE, "web")
            )
            waiting = asyncio.ensure_future(made.enforce(container(ONE, "web"), 10))
            await until("it is closed meanwhile", lambda: made.isolated == {ONE: CLOSED})
            await made.plant(pod("web"))
            await waiting
            assert made.isolated == {ONE: DENIED}
            why = await refused(made, container(TWO, "web", uid="of the one before"))
            assert "not known to the Kubernetes API as this one" in why

    run(scenario())


def test_in_a_namespace_without_policies_nobody_waits_for_the_api(
    served: Served, inside: Namespace, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.tell()
            await made.plant(namespace("shop"), namespace("blog"), policy("deny", DENY))
            await made.enforce(container(ONE, "new", space="blog"), 5)
            await made.enforce(Container(TWO, "docker"), 5)
            assert made.isolated == {ONE: OPEN, TWO: OPEN}

    run(scenario())


def test_the_agents_list_is_the_truth(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.plant(namespace("shop"), pod("web", ONE), pod("db", TWO), policy("deny", DENY))
            await made.tell(container(ONE, "web"), container(TWO))
            await made.settled()
            assert made.isolated == {ONE: DENIED, TWO: DENIED}, "the second by its address"
            before = made.enforcement.transactions
            await made.tell(container(TWO), container(ONE, "web"))
            assert not made.enforcement.pending, "the same again is no news"
            await made.tell(container(TWO))
            await made.settled()
            assert (made.isolated, made.enforcement.transactions) == ({TWO: DENIED}, before + 1)
            await made.enforce(container(ONE, "web"))
            assert made.isolated == {ONE: DENIED, TWO: DENIED}
            await made.tell(container(TWO))
            await made.settled()
            assert made.isolated == {TWO: DENIED}, "the agent has changed its mind"

    run(scenario())


def test_who_was_refused_is_no_container_of_this_node(served: Served, inside: Namespace, tmp_path: Path) -> None:
    """The agent gives it up, and tells the same list as before."""

    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.tell()
            await made.plant(namespace("shop"), policy("deny", DENY))
            await refused(made, container(ONE, "web"))
            await made.settled()
            assert made.isolated == {}
            waiting = asyncio.ensure_future(made.enforce(container(TWO, "web"), 30))
            await until("it is closed meanwhile", lambda: made.isolated == {TWO: CLOSED})
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await made.settled()
            assert made.isolated == {}, "nor is one for which nobody waits any more"

    run(scenario())


def test_what_became_known_while_another_set_was_written_is_waited_for(
    served: Served, inside: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()
    opened.set()

    def slowly(text: str) -> None:
        assert opened.wait(10)
        apply(text)

    apply = nft.apply
    monkeypatch.setattr(nft, "apply", slowly)

    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.tell()
            await made.plant(namespace("shop"), policy("deny", DENY))
            await made.settled()
            opened.clear()
            waiting = asyncio.ensure_future(made.enforce(container(ONE, "web"), 10))
            await until("it is closed in what is being written", lambda: made.compiler.ruleset().pods)
            await made.plant(pod("web"))
            opened.set()
            await waiting
            assert made.isolated == {ONE: DENIED}

    run(scenario())


def test_the_list_does_not_take_away_who_is_waited_for(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.tell()
            await made.plant(namespace("shop"), policy("deny", DENY))
            waiting = asyncio.ensure_future(made.enforce(container(ONE, "web"), 10))
            await until("it is asked for", lambda: ONE in made.isolated)
            await made.tell(container(TWO))
            await made.plant(pod("web"))
            await waiting
            assert made.isolated[ONE] == DENIED

    run(scenario())


def test_a_kernel_that_refuses_is_what_is_said(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path, bridge="a-name-of-a-bridge-that-is-too-long") as made:
            await made.tell()
            await made.plant(namespace("shop"), pod("web"))
            await until("it was tried", lambda: made.enforcement.refusals)
            assert "not in force: nftables refused our rules" in await refused(made, container(ONE, "web"))
            assert key("web") in made.compiler.memory.pods

    run(scenario())


def test_an_address_that_is_none_is_an_error(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            with pytest.raises(AgentError, match=r"container x: '10.32' does not appear to be"):
                await made.tell(Container("10.32", "x"))
            await made.tell(Container(f"{ONE}/32", "x"))
            await made.settled()
            assert made.isolated == {ONE: OPEN}

    run(scenario())
