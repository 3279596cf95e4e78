"""The process between its start and its end: SIGTERM or SIGINT ends it at once, the API's absence never.

    the API ────> cluster ───┐
    the agent ──> containers ┴──> Compiler ──> enforcement ──> the kernel ──> flows are cut, drops are told
    npc.sock: answers       /metrics, /healthz, /readyz <── a thread that asks this loop

Law: whatever else ends it is a defect, and is not hidden: it is in the log, and the kubelet starts another one. What is
in force stays in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any, Final

from tunrouter import __version__
from tunrouter.config import Config
from tunrouter.core.policy.model import Policy
from tunrouter.core.policy.nftables import Frame
from tunrouter.core.policy.ruleset import OPEN
from tunrouter.daemon import signals
from tunrouter.daemon.logs import OncePerKey
from tunrouter.daemon.serving import Serving
from tunrouter.edge import processes
from tunrouter.edge.api.server import POLICING, serve
from tunrouter.edge.kube import access
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.events import Events
from tunrouter.edge.metrics import Server, Source
from tunrouter.npc.answers import Answers
from tunrouter.npc.cluster import Cluster
from tunrouter.npc.containers import Containers
from tunrouter.npc.drops import Drops
from tunrouter.npc.enforcement import Enforcement
from tunrouter.npc.flows import Flows
from tunrouter.npc.metrics import Look, families
from tunrouter.npc.notice import EVENTS, EVENTS_SECONDS, Notice, State

POD_EVENTS: Final = 5
"""Of refused connections, in as long as `EVENTS_SECONDS`."""
log = logging.getLogger("tunrouter.npc")


async def run(config: Config) -> None:
    """Returns after SIGTERM or SIGINT; raises ClusterError where nothing says which API server is meant."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    signals.release()
    found = access.find({**os.environ, access.SERVER: config.apiserver} if config.apiserver else os.environ)
    log.info("weave-npc %s on %s", __version__, config.name)
    async with contextlib.AsyncExitStack() as stack:
        client = Client(found, node=config.name)
        stack.push_async_callback(client.close)
        npc = Npc(config, client)
        stack.callback(npc.drops.close)
        await npc.listen(stack)
        await _until_one_ends(*npc.works(), stopped.wait())
        log.info("stopping")


class Npc:
    """Its parts, and how they are joined."""

    def __init__(self, config: Config, client: Client) -> None:
        self._config = config
        self._client = client
        self._unwanted = "" if config.expect_npc else "EXPECT_NPC says that this node enforces none"
        self.cluster = Cluster(client, config.name, self._changed)
        self.drops = Drops(self.cluster.compiler, self._events(POD_EVENTS))
        frame = Frame(config.bridge, log=self.drops.heard)
        self.enforcement = Enforcement(self.cluster.compiler, frame, self._awaited, self._applied)
        self.flows = Flows(self.enforcement.refuse)
        self.containers = Containers(self.cluster.compiler, self.enforcement)
        self.answers = Answers(self.cluster, self.containers, self.enforcement)
        self.notice = Notice(config.name, self._state, self._events(EVENTS), self._is_relevant)

    def _events(self, most: int) -> Events:
        return Events(self._client, self._config.name, most=most, within=EVENTS_SECONDS)

    def works(self) -> list[Coroutine[Any, Any, object]]:
        followed = [reflector.run() for reflector in self.cluster.reflectors]
        return [*followed, self.enforcement.keep(), self.flows.keep(), self.drops.keep(), self.notice.keep()]

    async def listen(self, stack: contextlib.AsyncExitStack) -> None:
        server = await serve(self._config.npc_socket, self.answers.answer, POLICING)
        stack.push_async_callback(server.close)
        loop = asyncio.get_running_loop()
        source, what = Source(self._look, families, self._unready), "metrics and no health checks"
        serving = Serving(
            loop, self._config.npc_addr, OncePerKey(log), lambda: Server(loop, source), what, "listen"
        )  # fmt: skip
        serving.start()
        stack.push_async_callback(serving.close)

    # --- how they hear of each other ---------------------------------------------------------------------------------
    def _changed(self) -> None:
        self.enforcement.changed()

    def _awaited(self) -> str:
        return self._unwanted or self.cluster.awaited() or self.containers.awaited()

    def _applied(self, before: Any, after: Any) -> None:
        self.flows.changed(before, after)

    def _is_relevant(self, policy: Policy) -> bool:
        memory = self.cluster.compiler.memory
        owners = (memory.owner(address) for address in memory.local())
        return any(pod is not None and pod.namespace == policy.namespace for pod in owners)

    # --- what is told ------------------------------------------------------------------------------------------------
    def _unready(self) -> str:
        """Empty if this process is as ready as it gets."""
        return "" if self._unwanted or self.cluster.in_vain() else self.enforcement.why

    def _state(self) -> State:
        held = self.enforcement.held
        pods = held.pods if held is not None else {}
        isolated = sum(isolation != OPEN for isolation in pods.values())
        return State(self.cluster.known(), len(pods), isolated, self.enforcement.why)

    def _look(self) -> Look:
        enforcement, reflectors = self.enforcement, self.cluster.reflectors
        return Look(
            state=self._state(),
            ready=not self._unready(),
            transactions=enforcement.transactions,
            seconds=enforcement.seconds,
            repairs=enforcement.repairs,
            refusals=enforcement.refusals,
            cut=self.flows.cut,
            blocked=dict(self.drops.counts),
            unread=self.drops.unread,
            lists=sum(reflector.lists for reflector in reflectors),
            skipped=sum(reflector.skipped for reflector in reflectors),
            requests=dict(self._client.counts),
            used=processes.used(os.getpid()),
            files=processes.files(),
            started=_STARTED,
        )


async def _until_one_ends(*works: Coroutine[Any, Any, object]) -> None:
    """The others are cancelled; what one of them raises is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


_STARTED: Final = time.time()
