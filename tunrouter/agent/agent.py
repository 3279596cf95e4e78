"""The agent's life: start in the order in which a failure costs least, then answer, then stop without a trace.

Law: this file joins parts and decides nothing (`control.py` carries the node's messages). One task owns nothing here:
everything runs on one loop, and what blocks (netlink, nft, SQLite, argon2id) runs on a thread that the loop waits for
or forgets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from nacl.utils import random

import tunrouter
from tunrouter.agent import resolve
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.bench import Bench
from tunrouter.agent.child import Order
from tunrouter.agent.control import Control
from tunrouter.agent.descriptors import bind_groups, close_groups, patiently
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.logs import OncePerKey
from tunrouter.agent.memory import Memory
from tunrouter.agent.snapshot import Facts, snapshot
from tunrouter.agent.targets import Targets
from tunrouter.agent.workers import Workers
from tunrouter.config import Config
from tunrouter.core import keys, seam, status, wire
from tunrouter.core.local import Local
from tunrouter.core.node import Node
from tunrouter.dataplane.tun import prepare_tun
from tunrouter.edge import api
from tunrouter.edge.api.server import serve
from tunrouter.edge.store import Store
from tunrouter.errors import AgentError, ConfigError, TunrouterError
from tunrouter.host import HostPlan

NAMES_SECONDS: Final = 10.0
"""How often names of targets that are not connected are looked up again."""
CALL_SECONDS: Final = 30.0
"""For the work of one API call: generous, so that only what is stuck meets it."""
T = TypeVar("T")
log = logging.getLogger("tunrouter")


async def run(config: Config) -> None:
    """Returns after SIGTERM or SIGINT; raises TunrouterError for what prevents the start."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    agent = Agent(config, loop)
    async with contextlib.AsyncExitStack() as stack:
        await agent.start(stack)
        await stopped.wait()
        log.info("stopping; pods on this host go on reaching each other")


class Kept(NamedTuple):
    """What the disk has of earlier lives."""

    identity: keys.Identity
    incarnation: int
    """Of this life."""
    endpoints: tuple[seam.Endpoint, ...]
    targets: tuple[str, ...]


class Agent:
    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self._loop = loop
        self._host = HostSide(loop)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._once = OncePerKey(log)
        self._barrier = Barrier(log)
        self._started = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._warnings: tuple[str, ...] = ()
        self._control: Control | None = None
        self._facts: dict[str, Any] = {}

    # --- start and stop ----------------------------------------------------------------------------------------------
    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """In order: our socket (one agent a host), secrets and state, this host, the packets' descriptors, the node."""
        config = self.config
        stack.callback(self._disk.shutdown)
        stack.push_async_callback(self._host.close)
        server = await serve(config.socket, self._answer)
        stack.push_async_callback(server.close)
        ring = self._loop.run_in_executor(None, _derive, config)
        stack.push_async_callback(_finish, ring)
        self._store = await self._loop.run_in_executor(self._disk, Store, Path(config.state_dir))
        stack.callback(self._store.close)
        remember_endpoints = self._memory("peers", self._store.remember_endpoints, stack)
        remember_targets = self._memory("targets", self._store.remember_targets, stack)
        kept = await self._loop.run_in_executor(self._disk, self._recall)
        peers = [endpoint[0] for peer in config.peers if (endpoint := resolve.literal(peer, 0)) is not None]
        plan = _plan(config, await self._pod_mtu(peers))
        await self._host.prepare(plan, peers)
        self._workers = await self._open_dataplane(stack)
        await self._host.apply()
        local = Local(
            identity=kept.identity,
            incarnation=kept.incarnation,
            ring=await ring,
            network=config.network,
            name=config.name,
            blocks=(plan.block,),
            pod_mtu=plan.mtu,
            random=random,
            workers=config.workers,
            silent=config.silent,
            endpoints=((config.host, config.port),) if config.host else (),
            discovery=config.discovery,
        )
        self._announce(local)
        await self._workers.ready()
        self._control = Control(
            self._loop,
            Node(local, plan.range),
            self._workers.send,
            self._once,
            self._barrier,
            remember=remember_endpoints,
            set_path_mtu=self._host.set_path_mtu,
        )
        self._targets = Targets(self._control, config.port, self._once, remember_targets)
        self._bench = Bench(
            self._loop, self._control, plan.gateway, allowed=config.bench, kernel=lambda: self._workers.kernel
        )
        stack.callback(self._bench.close)
        self._control.said = self._bench.heard
        stack.callback(self._say_goodbye, self._control)
        self._workers.hear, self._workers.maimed = self._control.hear, self._control.lanes_lost
        self._control.carry_out(self._control.node.start(kept.endpoints, time.monotonic()))
        self._targets.start(config.peers, kept.targets)
        self._spawn(self._keep_names())
        log.info("ready: pods of %s on %s, MTU %d, UDP port %d", plan.block, config.bridge, plan.mtu, config.port)

    def _memory(
        self, what: str, write: Callable[[tuple[T, ...]], None], stack: contextlib.AsyncExitStack
    ) -> Callable[[tuple[T, ...]], None]:
        """How to have something remembered; what waits at the end is written before the store is closed."""

        def complain(text: str) -> None:
            self._once.say("error", f"remember {what}", text, time.monotonic())

        memory = Memory(what, self._loop, self._disk, write, complain)
        stack.push_async_callback(memory.close)
        return memory.remember

    def _recall(self) -> Kept:
        if self._store.aside is not None:
            log.error("the state database was damaged and is kept as %s; a new one was begun", self._store.aside)
        return Kept(
            identity=keys.Identity(self._store.identity(random(32))),
            incarnation=self._store.next_incarnation(int(time.time())),
            endpoints=self._store.endpoints(),
            targets=self._store.targets(),
        )

    async def _pod_mtu(self, peers: list[str]) -> int:
        underlay = await self._host.underlay_mtu(peers)
        self._facts["underlay_mtu"] = underlay
        if self.config.mtu > underlay - wire.OVERHEAD - wire.IP_UDP_BYTES[4]:
            what = f"--mtu {self.config.mtu} does not fit the underlay's MTU of {underlay}"
            raise ConfigError(what, f"give at most {underlay - wire.OVERHEAD - wire.IP_UDP_BYTES[4]}, or leave it out")
        return self.config.mtu or wire.pod_mtu(underlay)

    async def _open_dataplane(self, stack: contextlib.AsyncExitStack) -> Workers:
        """The port and the device are ours before a worker starts."""
        config = self.config
        groups = await patiently(lambda: bind_groups(config.host, config.port, config.workers))
        stack.callback(close_groups, groups)
        self._facts["offloads"] = await patiently(lambda: prepare_tun(config.tun))
        order = Order(config.tun, config.log_level, config.log_format)
        workers = Workers(self._loop, order, groups, self._barrier, self._once)
        stack.push_async_callback(workers.close)
        workers.start()
        return workers

    def _say_goodbye(self, control: Control) -> None:
        for task in self._tasks:
            task.cancel()
        control.stop()

    def _announce(self, local: Local) -> None:
        ours = f"{status.peer_name(local.id)}({local.name})"
        log.info("tunrouter %s; our name is %s", tunrouter.__version__, ours)
        warnings = []
        if not local.sealed:
            warnings.append("Communication between peers is unencrypted: give every node the same password")
        elif min(keys.strength_bits(secret) for secret in self.config.secrets) < keys.WEAK_BITS:
            warnings.append(
                "the password is weak (below about 60 bits): whoever records one handshake can guess it offline; "
                "make a strong one with `tunrouter genkey`"
            )
        for warning in warnings:
            log.warning("%s", warning)
        self._warnings = tuple(warnings)

    async def _keep_names(self) -> None:
        while True:
            with self._barrier:
                await self._targets.look_up()
            await asyncio.sleep(NAMES_SECONDS)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the API -----------------------------------------------------------------------------------------------------
    async def _answer(self, call: api.Call) -> Any:
        control = self._control
        if control is None:
            raise AgentError("the agent is still starting", "try again in a second")
        if control.stopped:
            raise AgentError("the agent is stopping", "start it again first")
        try:
            async with asyncio.timeout(CALL_SECONDS) as bound:
                return await self._obey(control, call)
        except TimeoutError:
            if not bound.expired():
                raise
            raise AgentError(
                f"this was not done within {CALL_SECONDS:g} s", "see the agent's log, then try again"
            ) from None

    async def _obey(self, control: Control, call: api.Call) -> Any:
        match call:
            case api.StatusCall():
                assert self._host.host is not None
                facts = Facts(self._started, warnings=self._warnings, **self._facts)
                counters = self._workers.counters | self._bench.counters
                return snapshot(self.config, facts, control, self._workers, self._host.host, counters)
            case api.ConnectCall(peers, replace):
                await self._targets.connect(peers, replace=replace)
            case api.ForgetCall(peers):
                self._targets.forget(peers)
            case api.AttachCall():
                return await self._host.attach(call, control.node.local.pod_mtu)
            case api.BenchCall(peer):
                return await self._bench.ask(peer)
            case api.DetachCall():
                await self._host.detach(call)
        return None


def _plan(config: Config, mtu: int) -> HostPlan:
    return HostPlan(
        range=IPv4Network(config.range),
        block=IPv4Network(config.block),
        mtu=mtu,
        port=config.port,
        bridge=config.bridge,
        tun=config.tun,
        manage_firewall=config.host_firewall,
    )


def _derive(config: Config) -> keys.KeyRing:
    return keys.KeyRing(tuple(keys.derive_psk(secret, config.network) for secret in config.secrets))


async def _finish(work: asyncio.Future[Any]) -> None:
    """An error before the secrets were needed must not leave their derivation behind."""
    with contextlib.suppress(TunrouterError):
        await work
