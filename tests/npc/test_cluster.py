"""When the cluster counts as known: with all three kinds seen once; and what an outage is worth."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kube.apiserver import Served, serving
from tests.kube.reflecting import client_of, run, until
from tests.npc.scene import DENY, namespace, pod, policy
from tunrouter.edge.kube.objects import NAMESPACES, NETWORK_POLICIES, PODS, Resource
from tunrouter.npc.cluster import Cluster, Known

WORLD = (
    namespace("shop"),
    pod("web", "10.32.0.2"),
    pod("db"),
    policy("deny", DENY),
    policy("odd", {**DENY, "ingress": [{"ports": [{"endPort": 3}]}]}),
)


class Seen(NamedTuple):
    """Of a reflector."""

    resource: Resource[Any]
    synced: bool = True
    why: str = ""
    out_of_touch_since: float | None = None


def seen(*reflectors: Seen) -> Cluster:
    found = Cluster.__new__(Cluster)
    found.reflectors = reflectors  # type: ignore[assignment]
    return found


def ready(found: Cluster, at: float, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bool, str]:
    class Loop:
        def time(self) -> float:
            return at

    monkeypatch.setattr(asyncio, "get_running_loop", Loop)
    return found.awaited(), found.in_vain(), found.out_of_touch()


LOST = Seen(PODS, synced=False, why="refused", out_of_touch_since=100.0)
FINE = tuple(Seen(one) for one in (NAMESPACES, NETWORK_POLICIES))
WAITING = "the cluster's pods are not known: refused"


@pytest.mark.parametrize(
    ("reflectors", "at", "expected"),
    [
        ((FINE[0], FINE[1]), 200.0, ("", False, "")),
        ((*FINE, LOST), 100.5, (WAITING, False, "")),
        ((*FINE, LOST), 101.0, (WAITING, False, "refused")),
        ((*FINE, LOST), 109.9, (WAITING, False, "refused")),
        ((*FINE, LOST), 110.0, (WAITING, True, "refused")),
        ((*FINE, LOST._replace(synced=True)), 100.5, ("", False, "")),
        ((*FINE, LOST._replace(synced=True)), 999.0, ("", False, "refused")),
        ((LOST._replace(synced=True, why="old"), LOST), 110.0, (WAITING, True, "old")),
    ],
)
def test_what_is_awaited_and_when_it_is_in_vain(
    reflectors: tuple[Seen, ...], at: float, expected: tuple[str, bool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ready(seen(*reflectors), at, monkeypatch) == expected


@pytest.mark.parametrize("missing", ["pods", "namespaces", "networkpolicies"])
def test_half_of_what_is_known_is_not_enough(missing: str, tmp_path: Path) -> None:
    changes: list[object] = []

    async def scenario(served: Served) -> None:
        async with client_of(served.access(tmp_path), node="node-a") as client:
            found = Cluster(client, "node-a", lambda: changes.append(None))
            running = [asyncio.ensure_future(reflector.run()) for reflector in found.reflectors]
            try:
                await until("the others are in touch", lambda: sum(one.synced for one in found.reflectors) == 2)
                await until("it was refused", lambda: missing in found.awaited() and "not in" not in found.awaited())
                assert not found.known().listed
                assert found.awaited().startswith(f"the cluster's {missing} are not known: ")
                await asyncio.to_thread(served.do, lambda server: server.faults.clear())
                before = len(changes)
                await until("all is known", lambda: found.listed)
                await until("and that is told, though there may be none of it", lambda: len(changes) > before)
                assert found.awaited() == found.out_of_touch() == ""
                faults = ("spec.ingress[0] permits nothing: endPort 3 has no port before it",)
                known = found.known()
                assert known == Known(2, 2, 1, known.faulty, listed=True, why="")
                assert [(one.key, one.faults) for one in known.faulty] == [(("shop", "odd"), faults)]
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    with serving() as served:
        served.do(lambda server: [server.plant(one) for one in WORLD])
        served.do(lambda server: server.faults.plant("error", plurals=[missing]))
        run(scenario(served))


def test_that_there_is_none_is_told_too(tmp_path: Path) -> None:
    """What waits for the first list hears that it is in."""
    changes: list[object] = []

    async def scenario(served: Served) -> None:
        async with client_of(served.access(tmp_path), node="node-a") as client:
            found = Cluster(client, "node-a", lambda: changes.append(None))
            running = [asyncio.ensure_future(found.pods.run()), asyncio.ensure_future(found.policies.run())]
            try:
                await until("both are in touch", lambda: found.pods.synced and found.policies.synced)
                assert len(changes) == 2
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    with serving() as served:
        run(scenario(served))
