"""What weave-npc answers who asks why: by what it knows of a real API, and what the kernel has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kube.apiserver import Served
from tests.kube.reflecting import run, until
from tests.npc.scene import DENY, Parts, container, namespace, parts, pod, policy, served
from tunrouter.bench.namespaces import Namespace
from tunrouter.edge.api.policing import (
    ContainersCall,
    ExplainCall,
    Explained,
    Heard,
    PoliciesCall,
    PolicyRow,
    PolicyTable,
)
from tunrouter.edge.netlink import nft
from tunrouter.errors import AgentError, HostError

__all__ = ["served"]
WEB, DB, NODES = "10.32.0.2", "10.32.0.3", "192.0.2.1"
SQL = {
    "podSelector": {"matchLabels": {"app": "db"}},
    "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "sql"}]}],
}
WORLD = (
    namespace("shop"),
    namespace("blog"),
    pod("web", WEB),
    pod("db", DB, ports=[{"name": "sql", "containerPort": 5432}]),
    pod("proxy", NODES, space="kube-system", hostNetwork=True),
    pod("done", "10.32.0.9", phase="Succeeded"),
    policy("db", SQL),
)
Scenario = Callable[[Parts], Awaitable[None]]
pytestmark = pytest.mark.root


def within(served: Served, inside: Namespace, directory: Path, scenario: Scenario) -> None:
    async def entered() -> None:
        async with parts(served, inside, directory) as made:
            await made.tell(container(WEB, "web"), container(DB, "db"))
            await made.plant(namespace("kube-system"), *WORLD)
            await made.settled()
            await scenario(made)

    run(entered())


async def explain(made: Parts, source: str, destination: str, port: int = 5432, protocol: str = "TCP") -> Explained:
    found = await made.ask(ExplainCall(source, destination, port, protocol))
    assert isinstance(found, Explained)
    return found


async def refused(made: Parts, *arguments: Any) -> str:
    with pytest.raises(AgentError) as caught:
        await explain(made, *arguments)
    return str(caught.value)


def test_both_directions_with_their_policies(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario(made: Parts) -> None:
        found = await explain(made, "shop/web", "shop/db")
        assert (found.allowed, found.source, found.destination) == (
            True, f"pod shop/web ({WEB})", f"pod shop/db ({DB})"
        )  # fmt: skip
        egress, ingress = found.steps
        assert (egress.direction, egress.pod, egress.allowed, egress.policies) == ("egress", "shop/web", True, ())
        assert (ingress.pod, ingress.policies, ingress.policy, ingress.rule) == ("shop/db", ("shop/db",), "shop/db", 0)
        assert found.hints == ()
        found = await explain(made, WEB, DB, 80)
        assert (found.allowed, found.steps[1].allowed, found.steps[1].policy) == (False, False, "")
        assert not (await explain(made, "shop/web", "shop/db", 5432, "udp")).allowed

    within(served, inside, tmp_path, scenario)


@pytest.mark.parametrize(
    ("source", "destination", "allowed", "called"),
    [
        ("node", "shop/db", True, ("the pod's own node", f"pod shop/db ({DB})")),
        (NODES, "shop/db", True, ("the pod's own node", f"pod shop/db ({DB})")),
        ("192.0.2.9", DB, False, ("192.0.2.9, no pod", f"pod shop/db ({DB})")),
        ("shop/db", "192.0.2.9", True, (f"pod shop/db ({DB})", "192.0.2.9, no pod")),
        ("shop/db", "shop/db", True, (f"pod shop/db ({DB})",) * 2),
        ("shop/db", NODES, True, (f"pod shop/db ({DB})", f"{NODES}, kube-system/proxy of the host network")),
        ("shop/db", "kube-system/proxy", True, (f"pod shop/db ({DB})",
         f"{NODES}, kube-system/proxy of the host network")),
        ("shop/done", "shop/db", False, ("10.32.0.9, shop/done which has ended", f"pod shop/db ({DB})")),
        ("shop/db", "node", True, (f"pod shop/db ({DB})", "the pod's own node")),
    ],
)  # fmt: skip
def test_who_is_meant(
    source: str, destination: str, allowed: bool, called: tuple[str, str], served: Served, inside: Namespace,
    tmp_path: Path,
) -> None:  # fmt: skip
    async def scenario(made: Parts) -> None:
        found = await explain(made, source, destination)
        assert (found.source, found.destination) == called
        assert found.allowed == allowed

    within(served, inside, tmp_path, scenario)


def test_the_address_of_a_pod_that_the_cluster_does_not_know_yet(
    served: Served, inside: Namespace, tmp_path: Path
) -> None:
    async def scenario(made: Parts) -> None:
        await made.plant(pod("new", labels={"app": "db"}))
        assert (await explain(made, "shop/web", "shop/new")).destination == "pod shop/new"
        await made.enforce(container("10.32.0.7", "new"))
        found = await explain(made, "shop/web", "shop/new", 80)
        assert (found.allowed, found.destination) == (False, "pod shop/new (10.32.0.7)")
        await made.tell(container("10.32.0.7", "unheard"))
        assert not (await explain(made, "shop/web", "10.32.0.7")).allowed, "nobody knows whose it is"

    within(served, inside, tmp_path, scenario)


def test_questions_that_have_no_answer(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario(made: Parts) -> None:
        assert await refused(made, "node", "node") == (
            "neither end is a pod, so no policy is about it; give a pod as one of them"
        )
        assert "no pod shop/nobody is known; look with: kubectl" in await refused(made, "shop/nobody", "node")
        assert "'web' is no pod and no address; give namespace/pod" in await refused(made, "web", "node")
        assert "port 65536 is none" in await refused(made, WEB, DB, 65536)
        assert "port -1 is none" in await refused(made, WEB, DB, -1)
        assert "protocol 'IP' is not known; give one of TCP, UDP, SCTP, ICMP" in await refused(made, WEB, DB, 1, "IP")

    within(served, inside, tmp_path, scenario)


def test_before_all_is_known_nothing_is_explained(served: Served, inside: Namespace, tmp_path: Path) -> None:
    served.do(lambda server: server.down())

    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            await made.tell()
            await until("the API was asked", lambda: "refused" in made.cluster.awaited())
            assert "the cluster's pods are not known: " in await refused(made, WEB, DB)
            table = await made.ask(PoliciesCall())
            assert (table.policies, table.in_force) == ((), False)
            assert "the cluster's pods are not known" in table.why
            heard = await made.ask(ContainersCall(()))
            assert "the cluster's pods are not known" in heard.why
            await asyncio.to_thread(served.do, lambda server: server.up())
            await made.settled()
            assert await made.ask(ContainersCall(())) == Heard()

    run(scenario())


def test_the_list_counts_pods_here_and_everywhere(served: Served, inside: Namespace, tmp_path: Path) -> None:
    async def scenario(made: Parts) -> None:
        odd = policy("a-odd", {**DENY, "podSelector": {}, "egress": [{"ports": [{"endPort": 3}]}]})
        await made.plant(odd, pod("far", "10.32.1.2", nodeName="node-b"), pod("away", "10.32.1.3", space="blog"))
        await made.settled()
        assert await made.ask(PoliciesCall()) == PolicyTable(
            (
                PolicyRow("shop", "a-odd", ("egress", "ingress"), 3, 2,
                          ("spec.egress[0] permits nothing: endPort 3 has no port before it",)),
                PolicyRow("shop", "db", ("ingress",), 1, 1),
            ),
            in_force=True,
        )  # fmt: skip
        found = await explain(made, "shop/web", "shop/db")
        assert found.hints == ("shop/a-odd: spec.egress[0] permits nothing: endPort 3 has no port before it",)

    within(served, inside, tmp_path, scenario)


def test_an_outage_is_told_and_a_kernel_that_refuses(
    served: Served, inside: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(text: str) -> None:
        raise HostError("nftables refused our rules: no")

    async def scenario(made: Parts) -> None:
        (hint,) = (await explain(made, "shop/web", "10.96.0.10")).hints
        assert hint == "if 10.96.0.10 is a Service's, ask for a pod behind it: policies see that one"
        await asyncio.to_thread(served.do, lambda server: server.down())
        await until("it is out of touch", made.cluster.out_of_touch)
        table = await made.ask(PoliciesCall())
        assert (table.in_force, table.why) == (True, made.cluster.out_of_touch())
        (hint,) = (await explain(made, "shop/web", "shop/db")).hints
        assert hint.startswith("weave-npc is out of touch with the Kubernetes API, so this may be old: ")
        monkeypatch.setattr(nft, "apply", refuse)
        await made.tell()
        await until("it was refused", lambda: made.enforcement.refusals)
        table = await made.ask(PoliciesCall())
        assert (table.in_force, table.why) == (False, "nftables refused our rules: no")
        assert "this node's kernel may differ: nftables refused our rules: no" in (
            await explain(made, "shop/web", "shop/db")
        ).hints  # fmt: skip

    within(served, inside, tmp_path, scenario)
