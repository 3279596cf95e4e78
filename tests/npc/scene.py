"""What `tunrouter npc` is made of, without its process: an API server, the cluster as it is known, and the kernel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.apiserver import Served, serving
from tests.kube.reflecting import client_of, until
from tests.npc.tables import listed
from tunrouter.bench.namespaces import Namespace
from tunrouter.core.policy.model import Key
from tunrouter.core.policy.nftables import Frame
from tunrouter.core.policy.ruleset import Isolation
from tunrouter.edge.api.policing import Container, ContainersCall, EnforceCall, PolicyCall
from tunrouter.edge.kube.client import Client
from tunrouter.npc.answers import Answers
from tunrouter.npc.cluster import Cluster
from tunrouter.npc.containers import Containers
from tunrouter.npc.enforcement import Enforcement

NODE = "node-a"
NETWORKING = "networking.k8s.io/v1"
DENY = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


class Parts:
    """As `life.Npc` joins them, but for what only tells."""

    def __init__(self, served: Served, client: Client, where: Namespace, bridge: str) -> None:
        self.served = served
        self.where = where
        self.cluster = Cluster(client, NODE, self._changed)
        self.compiler = self.cluster.compiler
        self.enforcement = Enforcement(
            self.compiler, Frame(bridge), lambda: self.cluster.awaited() or self.containers.awaited(), lambda *_: None
        )
        self.containers = Containers(self.compiler, self.enforcement)
        self.answers = Answers(self.cluster, self.containers, self.enforcement)

    def _changed(self) -> None:
        self.enforcement.changed()

    async def ask(self, call: PolicyCall) -> Any:
        return await self.answers.answer(call)

    # --- the cluster -------------------------------------------------------------------------------------------------
    async def plant(self, *objects: dict[str, Any]) -> None:
        """And that it is heard of here."""
        await asyncio.to_thread(self.served.do, lambda server: [server.plant(one) for one in objects])
        await until("what was planted is known", lambda: all(map(self._is_known, objects)))

    def _is_known(self, one: dict[str, Any]) -> bool:
        metadata = one["metadata"]
        if one["kind"] == "Namespace":
            return metadata["name"] in self.compiler.memory.namespaces
        known = self.compiler.memory.pods if one["kind"] == "Pod" else self.compiler.policies
        return (metadata["namespace"], metadata["name"]) in known

    async def remove(self, kind: str, namespace: str, name: str) -> None:
        version = NETWORKING if kind == "NetworkPolicy" else "v1"
        await asyncio.to_thread(self.served.do, lambda server: server.remove(version, kind, name, namespace))
        known: Any = self.compiler.policies if kind == "NetworkPolicy" else self.compiler.memory.pods
        await until("it is known to be gone", lambda: (namespace, name) not in known)

    def uid(self, name: str, space: str = "shop") -> str:
        return self.compiler.memory.pods[space, name].uid

    # --- this node ---------------------------------------------------------------------------------------------------
    async def tell(self, *containers: Container) -> None:
        await self.ask(ContainersCall(containers))

    async def enforce(self, container: Container, seconds: float = 5.0) -> None:
        await self.ask(EnforceCall(container, seconds))

    async def settled(self) -> None:
        """What is known is in force."""
        await until("it is in force", lambda: not self.enforcement.pending and not self.enforcement.why)

    @property
    def isolated(self) -> dict[str, Isolation]:
        """As it is in force, by address."""
        held = self.enforcement.held
        return {str(address): isolation for address, isolation in held.pods.items()} if held is not None else {}

    def closed(self, address: str) -> bool:
        """As the kernel has it: an address that no map has is dropped."""
        found = [element for element in listed(self.where)["map egress4"]["elem"] if f'"{address}"' in element]
        return not found or "dropped-egress" in found[0]


@contextlib.asynccontextmanager
async def parts(served: Served, where: Namespace, directory: Path, bridge: str = "weave") -> AsyncIterator[Parts]:
    async with client_of(served.access(directory), node=NODE) as client:
        made = Parts(served, client, where, bridge)
        works = [made.enforcement.keep(), *(reflector.run() for reflector in made.cluster.reflectors)]
        running = [asyncio.ensure_future(work) for work in works]
        try:
            yield made
            assert not any(task.done() for task in running), running
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
def served(inside: Namespace) -> Iterator[Served]:
    with serving() as made:
        yield made


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str, address: str = "", space: str = "shop", **spec: Any) -> dict[str, Any]:
    status = {"phase": spec.pop("phase", "Running")} | (
        {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
    )
    labels = spec.pop("labels", {"app": name})
    containers = [{"name": "c", "image": "i", "ports": spec.pop("ports", [])}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": labels},
        "spec": {"nodeName": NODE, "containers": containers} | spec,
        "status": status,
    }


def policy(name: str, spec: dict[str, Any], space: str = "shop") -> dict[str, Any]:
    metadata = {"name": name, "namespace": space}
    return {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def container(address: str, name: str = "", space: str = "shop", uid: str = "") -> Container:
    return Container(address, f"c-{address}", cni=True, namespace=space if name else "", pod=name, uid=uid)


def key(name: str, space: str = "shop") -> Key:
    return space, name
