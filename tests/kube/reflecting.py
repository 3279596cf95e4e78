"""A client of the tests' API server in a loop of its own, and a listener that believes what it hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Generic

import uvloop

from tests.kube.apiserver import Served
from tunrouter.edge.kube.access import Access
from tunrouter.edge.kube.client import PATIENCE, Client
from tunrouter.edge.kube.connection import Patience
from tunrouter.edge.kube.objects import NODES, Node, Resource, T
from tunrouter.edge.kube.reflector import Key, Reflector
from tunrouter.errors import HostError

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(scenario: Coroutine[Any, Any, None], loop: str = "uvloop") -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scenario)


async def until(what: str, probe: Callable[[], object], seconds: float = 10.0) -> None:
    """HostError when the deadline passes first."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not probe():
        if asyncio.get_running_loop().time() > deadline:
            raise HostError(f"waited {seconds:g} s in vain: {what}")
        await asyncio.sleep(0.01)


class Recorder(Generic[T]):
    """What a listener knows who never looks at the reflector itself, and each word that it heard."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        """Version by name."""
        self.heard: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        """What should not have been said (an error of a listener's own stops nothing, so nobody would see it)."""

    def replaced(self, objects: Mapping[Key, T]) -> None:
        if self.heard:
            self.wrong.append("replaced once more")
        self.known = {name: thing.metadata.resource_version for (_, name), thing in objects.items()}
        self.heard.append(("replaced", ",".join(sorted(self.known))))

    def changed(self, thing: T) -> None:
        if self.known.get(thing.metadata.name) == thing.metadata.resource_version:
            self.wrong.append(f"{thing.metadata.name} has not changed")
        self.known[thing.metadata.name] = thing.metadata.resource_version
        self.heard.append(("changed", thing.metadata.name))

    def gone(self, thing: T) -> None:
        if self.known.pop(thing.metadata.name, None) is None:
            self.wrong.append(f"{thing.metadata.name} was not there")
        self.heard.append(("gone", thing.metadata.name))


@contextlib.asynccontextmanager
async def client_of(access: Access, *, node: str = "", patience: Patience = PATIENCE) -> AsyncIterator[Client]:
    client = Client(access, node=node, patience=patience)
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def reflecting(
    client: Client, resource: Resource[T], *, labels: str = "", fields: str = "", namespace: str = "", wait: bool = True
) -> AsyncIterator[tuple[Reflector[T], Recorder[T]]]:
    """Entered when it is in touch."""
    recorder: Recorder[T] = Recorder()
    reflector = Reflector(client, resource, recorder, labels=labels, fields=fields, namespace=namespace)
    running = asyncio.ensure_future(reflector.run())
    try:
        if wait:
            await until("the reflector is in touch", lambda: reflector.in_touch)
        yield reflector, recorder
        assert not recorder.wrong
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled(), running.exception()


@contextlib.asynccontextmanager
async def nodes_of(
    served: Served, directory: Path, *, patience: Patience = PATIENCE, wait: bool = True
) -> AsyncIterator[tuple[Reflector[Node], Recorder[Node]]]:
    """The nodes of a server, reflected by a client of their own."""
    async with (
        client_of(served.access(directory), patience=patience) as client,
        reflecting(client, NODES, wait=wait) as pair,
    ):
        yield pair


def node(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, **metadata}}


def plant(served: Served, *names: str) -> None:
    served.do(lambda server: [server.plant(node(name)) for name in names])


def stored(served: Served, kind: str = "Node") -> dict[str, str]:
    """Version by name, as the server has it."""
    return served.do(  # type: ignore[no-any-return]
        lambda server: {
            name: thing["metadata"]["resourceVersion"]
            for (found, _, name), thing in server.store.objects.items()
            if found.kind == kind
        }
    )


def requests(served: Served, *verbs: str) -> int:
    return int(served.do(lambda server: len(server.journal.requests(*verbs))))
