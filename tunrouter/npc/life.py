"""The process between its start and its end: SIGTERM or SIGINT ends it at once, the API's absence never.

    /metrics, /healthz, /readyz <── a thread that asks this loop      the API ──> policies ──> notice

Law: whatever else ends it is a defect, and is not hidden: it is in the log, and the kubelet starts another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

from tunrouter import __version__
from tunrouter.config import Config
from tunrouter.daemon import signals
from tunrouter.daemon.logs import OncePerKey
from tunrouter.daemon.serving import Serving
from tunrouter.edge import processes
from tunrouter.edge.kube import access
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.events import Events
from tunrouter.edge.metrics import Server, Source
from tunrouter.npc.metrics import Look, families
from tunrouter.npc.notice import EVENTS, EVENTS_SECONDS, Notice
from tunrouter.npc.policies import Policies

log = logging.getLogger("tunrouter.npc")


async def run(config: Config) -> None:
    """Returns after SIGTERM or SIGINT; raises ClusterError where nothing says which API server is meant."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    signals.release()
    found = access.find({**os.environ, access.SERVER: config.apiserver} if config.apiserver else os.environ)
    log.warning("weave-npc %s on %s: this version does NOT enforce NetworkPolicies", __version__, config.name)
    async with contextlib.AsyncExitStack() as stack:
        client = Client(found, node=config.name)
        stack.push_async_callback(client.close)
        policies = Policies(client)
        notice = Notice(config.name, policies, Events(client, config.name, most=EVENTS, within=EVENTS_SECONDS))
        serving = _serving(config.npc_addr, policies, client)
        serving.start()
        stack.push_async_callback(serving.close)
        await _until_one_ends(policies.reflector.run(), notice.keep(), stopped.wait())
        log.info("stopping")


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


def _serving(address: str, policies: Policies, client: Client) -> Serving:
    loop, started = asyncio.get_running_loop(), time.time()
    reflector = policies.reflector

    def look() -> Look:
        return Look(
            policies.known(), not policies.unready(), reflector.lists, reflector.skipped, dict(client.counts),
            processes.used(os.getpid()), processes.files(), started,
        )  # fmt: skip

    source = Source(look, families, policies.unready)
    return Serving(
        loop, address, OncePerKey(log), lambda: Server(loop, source), "metrics and no health checks", "listen"
    )
