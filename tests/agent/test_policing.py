"""What the agent tells the policy process and when, and what a pod's ADD hears of it; over real sockets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from tests.agent.standin import Npc
from tunrouter.agent import policing
from tunrouter.agent.policing import Pod, Policing
from tunrouter.cli.settings import NPC_SOCKET_NAME
from tunrouter.config import Config
from tunrouter.core.pool import Lease
from tunrouter.core.status import Policy
from tunrouter.edge.api.policing import Container, Heard
from tunrouter.edge.api.server import POLICING, serve
from tunrouter.errors import AgentError, HostError
from tunrouter.host import Attached

WEB = Pod("shop", "web-0", "uid-of-web")


def attached(name: str, last: int, interface: str = "eth0") -> Attached:
    address = IPv4Address("10.32.1.0") + last
    return Attached(port=f"vethwe{last}", name=name, address=address, interface=interface, mtu=1376)


class World:
    """A host with containers, its agent's half, and a place for the other half."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.config = Config(name="node-a", run_dir=str(directory / "run"), **({"kubernetes": True} | config))
        self.there: list[Attached] = []
        self.leases: list[Lease] = []
        self.policing = Policing(self.config, asyncio.get_running_loop())
        self.attachments = SimpleNamespace(changed=lambda: None)
        self.policing.watch(cast("Any", self.attachments), lambda: self.there, lambda: self.leases)
        self._keeping = asyncio.ensure_future(self.policing.keep())

    def come(self, *pods: Attached) -> None:
        self.there += pods
        self.attachments.changed()

    @asynccontextmanager
    async def npc(self, npc: Npc) -> AsyncIterator[Npc]:
        server = await serve(self.config.npc_socket, npc, POLICING)
        try:
            yield npc
        finally:
            await server.close()

    @property
    def silent(self) -> float:
        state = self.policing.state
        return state.silent or 0.0 if state is not None else 0.0

    async def end(self) -> None:
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)


Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    def play(scenario: Scenario, **config: Any) -> None:
        async def whole() -> None:
            world = World(tmp_path, **config)
            try:
                await scenario(world)
            finally:
                await world.end()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(whole())

    return play


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        await asyncio.sleep(0.005)


def test_all_are_told_at_once_when_one_comes_or_goes_and_again_when_nothing_happens(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policing, "AGAIN_SECONDS", 0.8)

    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            await until(lambda: npc.lists)
            began = time.monotonic()
            world.come(attached("weave/a", 2))
            await until(lambda: len(npc.last) == 1)
            world.come(attached("weave/b", 3))
            await until(lambda: len(npc.last) == 2)
            world.there.pop()
            world.attachments.changed()
            await until(lambda: len(npc.last) == 1)
            assert time.monotonic() - began < 0.7
            count, began = len(npc.lists), time.monotonic()
            await until(lambda: len(npc.lists) > count)
            assert 0.4 < time.monotonic() - began < 1.5

    play(scenario)


def test_what_is_not_in_force_is_known_here(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policing, "AGAIN_SECONDS", 0.1)

    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            for heard, amiss in ((Heard("pods are not known"), "pods are not known"), (Heard(), ""), (None, "")):
                npc.heard = heard
                npc.lists.clear()
                await until(lambda: len(npc.lists) >= 2)
                assert world.policing.state == Policy(expected=True, amiss=amiss)
            npc.heard = Heard("pods are not known")
            await until(lambda: world.policing.state == Policy(expected=True, amiss="pods are not known"))
        await until(lambda: world.silent)
        assert world.policing.state is not None
        assert world.policing.state.amiss == ""

    play(scenario)


def test_many_changes_are_few_lists(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            await until(lambda: npc.lists)
            for number in range(2, 202):
                world.come(attached(f"weave/c{number}", number))
                await asyncio.sleep(0)
            await until(lambda: len(npc.last) == 200)
            assert len(npc.lists) <= 4

    play(scenario)


def test_who_is_a_pod_and_whose(play: Callable[..., None]) -> None:
    """Of an earlier life the ledger knows the pod, and nobody its UID."""

    async def scenario(world: World) -> None:
        world.leases = [
            Lease(IPv4Address("10.32.1.2"), "weave/a", "eth0", "weave/shop/web-0"),
            Lease(IPv4Address("10.32.1.3"), "weave/b", "eth0", "weave/shop/web-1"),
            Lease(IPv4Address("10.32.1.6"), "second/a", "net1", "second/shop/web-0"),
        ]
        async with world.npc(Npc()) as npc:
            with world.policing.adding("weave/a", WEB):
                pass
            world.come(
                attached("weave/a", 2), attached("weave/b", 3), attached("weave/unknown", 4), attached("by-hand", 5),
                attached("second/a", 6, "net1"), attached("podman/c", 7), attached("a/b/c", 8),
            )  # fmt: skip
            await until(lambda: len(npc.last) == 7)
            told = {(one.name, one.cni, one.namespace, one.pod, one.uid) for one in npc.lists[-1]}
        assert told == {
            ("weave/a", True, "shop", "web-0", "uid-of-web"),
            ("weave/b", True, "shop", "web-1", ""),
            ("weave/unknown", True, "", "", ""),
            ("by-hand", False, "", "", ""),
            ("second/a", True, "shop", "web-0", ""),
            ("podman/c", False, "", "", ""),
            ("a/b/c", False, "", "", ""),
        }

    play(scenario)


def test_a_container_that_went_is_forgotten_with_its_pod(play: Callable[..., None]) -> None:
    """Another one may be called so; and one that could not be added never was."""

    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            with pytest.raises(HostError), world.policing.adding("weave/b", WEB):
                raise HostError("no room")
            with world.policing.adding("weave/a", WEB):
                await until(lambda: npc.lists)  # not of those that are not there yet
                world.come(attached("weave/a", 2), attached("weave/b", 3))
            await until(lambda: len(npc.last) == 2)
            assert [npc.last[f"10.32.1.{last}"].uid for last in (2, 3)] == ["uid-of-web", ""]
            world.there.clear()
            world.attachments.changed()
            await until(lambda: not npc.last)
            world.come(attached("weave/a", 2))
            await until(lambda: npc.last)
            assert npc.last["10.32.1.2"].uid == ""

    play(scenario)


def test_one_that_was_started_again_knows_all_within_two_seconds(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        world.come(attached("weave/a", 2))
        async with world.npc(Npc()) as npc:
            await until(lambda: npc.last)
        await until(lambda: world.silent)
        async with world.npc(Npc()) as npc:
            await until(lambda: npc.last, policing.AGAIN_SECONDS + 1)
            assert world.silent == 0

    play(scenario)


def test_its_absence_is_said_once_and_its_return_too(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that starts after ours is no news."""
    monkeypatch.setattr(policing, "AGAIN_SECONDS", 0.2)
    caplog.set_level(logging.INFO, "tunrouter.policy")

    async def scenario(world: World) -> None:
        await until(lambda: world.silent > 0.3)
        assert caplog.messages == []
        async with world.npc(Npc()) as npc:
            await until(lambda: npc.lists)
        await until(lambda: caplog.messages and world.silent > 0.6)
        async with world.npc(Npc()):
            await until(lambda: len(caplog.messages) > 1)

    play(scenario)
    away, back = caplog.messages
    assert away.startswith("weave-npc does not answer on /")
    assert away.endswith("-o name) -c weave-npc")
    assert back.startswith("weave-npc answers again, after ")


def test_that_it_never_came_is_said_when_it_had_the_time(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policing, "START_SECONDS", 0.3)

    async def scenario(world: World) -> None:
        await until(lambda: caplog.messages)
        assert world.silent >= 0.3

    play(scenario)
    assert len(caplog.messages) == 1


def test_long_silence_hinders_pods_and_a_short_one_does_not(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policing, "LONG_SECONDS", 0.5)

    async def scenario(world: World) -> None:
        await until(lambda: world.silent > 0.2)
        assert world.policing.hindrance() == world.policing.trouble() == ""
        await until(world.policing.hindrance)
        assert world.policing.hindrance() == f"weave-npc does not answer on {world.config.npc_socket}"
        assert world.policing.trouble().endswith("-c weave-npc")
        async with world.npc(Npc()):
            await until(lambda: not world.policing.hindrance())

    play(scenario)


def test_a_pods_add_ends_when_its_policies_are_in_force(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            await world.policing.enforce(attached("weave/a", 2), WEB)
            (asked,) = npc.asked
        assert asked.container == Container("10.32.1.2", "weave/a", True, "shop", "web-0", "uid-of-web")
        assert policing.ENFORCE_SECONDS - 1 < asked.seconds < policing.ENFORCE_SECONDS

    play(scenario)


def test_both_processes_mean_one_socket(tmp_path: Path) -> None:
    assert Config(name="a", run_dir=str(tmp_path)).npc_socket == tmp_path / NPC_SOCKET_NAME


def test_a_refusal_has_its_words_and_a_next_step(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            for refusal, fix in (
                (AgentError("the pod shop/web-0 is not known", "wait for the API"), "wait for the API"),
                (AgentError("the kernel has not the rules"), "-c weave-npc"),
            ):
                npc.refusal = refusal
                with pytest.raises(AgentError) as caught:
                    await world.policing.enforce(attached("weave/a", 2), WEB)
                assert caught.value.what == refusal.what
                assert caught.value.fix.endswith(fix)

    play(scenario)


@pytest.mark.parametrize("hangs", [False, True])
def test_silence_ends_an_add_in_time(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    monkeypatch.setattr(policing, "ENFORCE_SECONDS", 1.0)

    async def scenario(world: World) -> None:
        async def in_vain() -> str:
            began = time.monotonic()
            with pytest.raises(AgentError) as caught:
                await asyncio.wait_for(world.policing.enforce(attached("weave/a", 2), WEB), 5)
            assert 0.9 < time.monotonic() - began < 1.5
            assert caught.value.fix.endswith("-o name) -c weave-npc")
            return caught.value.what

        if not hangs:
            assert await in_vain() == f"weave-npc does not answer on {world.config.npc_socket}"
            return
        async with world.npc(Npc()) as npc:
            npc.hangs.set()
            assert await in_vain() == f"weave-npc did not answer on {world.config.npc_socket} within 1 s"
            npc.hangs.clear()

    play(scenario)


def test_an_add_in_flight_outlives_a_restart_and_then_all_are_told(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        world.come(attached("weave/a", 2), attached("weave/b", 3))
        async with world.npc(Npc()) as npc:
            await until(lambda: npc.last)
            npc.hangs.set()
            adding = asyncio.ensure_future(world.policing.enforce(attached("weave/a", 2), WEB))
            await until(lambda: npc.hanging)
        await until(lambda: world.silent)
        async with world.npc(Npc()) as npc:
            await adding
            assert npc.order[:2] == ["list", "weave/a"], "it knows nobody, and would close the others"
            assert len(npc.last) == 2

    play(scenario)


def test_a_list_of_before_a_pod_came_never_follows_its_own_question(play: Callable[..., None]) -> None:
    """It would take the pod for gone."""

    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            await until(lambda: npc.lists)
            npc.hangs.set()
            world.come(attached("weave/earlier", 2))
            await until(lambda: npc.hanging)
            world.come(attached("weave/a", 3))
            adding = asyncio.ensure_future(world.policing.enforce(attached("weave/a", 3), WEB))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(adding), 0.2)
            npc.hangs.clear()
            await adding
            asked = npc.order.index("weave/a")
            assert npc.order[asked - 1] == "list"
            await until(lambda: len(npc.order) > asked + 1)
            assert all(len(told) == 2 for told in npc.lists[npc.order[:asked].count("list") :])

    play(scenario)


@pytest.mark.parametrize("config", [{"expect_npc": False}, {"kubernetes": False}])
def test_where_none_is_expected_nobody_is_told_or_waited_for(
    play: Callable[..., None], config: dict[str, bool]
) -> None:
    async def scenario(world: World) -> None:
        async with world.npc(Npc()) as npc:
            world.come(attached("weave/a", 2))
            await world.policing.enforce(attached("weave/a", 2), WEB)
            await asyncio.wait_for(world._keeping, 5)
            assert (npc.lists, npc.asked) == ([], [])
        assert world.policing.hindrance() == ""
        state = world.policing.state
        assert state is None if "kubernetes" in config else state is not None and not state.expected

    play(scenario, **config)
