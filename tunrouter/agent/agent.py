"""The agent's life: start in the order in which a failure costs least, then carry messages, then stop without a trace.

    pipe ──> node.on_message ──┐
    clock ─> node.on_timer ────┼──> effects ──> pipe to the worker | host thread | store | log
    API ───> node.connect … ───┘

Law: the core decides, this file only carries. One task owns nothing here: everything runs on one loop, and what blocks
(netlink, nft, SQLite, argon2id) runs on a thread that the loop waits for or forgets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from nacl.utils import random

import tunrouter
from tunrouter.agent import resolve
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.logs import OncePerKey
from tunrouter.config import Config, values
from tunrouter.core import bounds, keys, report, seam, status, wire
from tunrouter.core.local import Local
from tunrouter.core.node import Node
from tunrouter.core.outbox import Effect, KernelMtu, Log, Remember
from tunrouter.dataplane.pipe import PipeEnd, open_pipe
from tunrouter.dataplane.reference import ReferenceKernel
from tunrouter.dataplane.tun import TunQueue, open_tun
from tunrouter.dataplane.udp import UdpSocket, open_udp
from tunrouter.dataplane.worker import Worker
from tunrouter.edge import api
from tunrouter.edge.api.server import serve
from tunrouter.edge.store import Store
from tunrouter.errors import AgentError, ConfigError, HostError, TunrouterError
from tunrouter.host import HostPlan

SHUTDOWN_SECONDS: Final = 0.05
"""For the worker, which is on this loop, to send the goodbyes."""
WEAK_BITS: Final = 60.0
NAMES_SECONDS: Final = 10.0
"""How often names of targets that are not connected are looked up again."""
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


class Agent:
    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self._loop = loop
        self._host = HostSide(loop)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._once = OncePerKey(log)
        self._started = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._warnings: tuple[str, ...] = ()
        self._writing = False
        self._node: Node | None = None
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
        identity, incarnation, hints = await self._loop.run_in_executor(self._disk, self._recall)
        peers = [resolve.split(peer, 0)[0] for peer in config.peers if resolve.is_literal(peer)]
        mtu = await self._pod_mtu(peers)
        plan = HostPlan(
            range=IPv4Network(config.range),
            block=IPv4Network(config.block),
            mtu=mtu,
            port=config.port,
            bridge=config.bridge,
            tun=config.tun,
            manage_firewall=config.host_firewall,
        )
        await self._host.prepare(plan, peers)
        udps = _open_udps(config)
        tun = open_tun(config.tun)
        await self._host.apply()
        local = Local(
            identity=identity,
            incarnation=incarnation,
            ring=await ring,
            network=config.network,
            name=config.name,
            blocks=(plan.block,),
            pod_mtu=mtu,
            random=random,
            silent=config.silent,
        )
        self._node = Node(local, plan.range)
        self._announce(local)
        self._pipe = self._start_worker(stack, tun, udps)
        stack.push_async_callback(self._say_goodbye)
        await self._join(hints)
        log.info("ready: pods of %s on %s, MTU %d, UDP port %d", plan.block, config.bridge, mtu, config.port)

    def _recall(self) -> tuple[keys.Identity, int, tuple[seam.Endpoint, ...]]:
        if self._store.aside is not None:
            log.error("the state database was damaged and is kept as %s; a new one was begun", self._store.aside)
        identity = keys.Identity(self._store.identity(random(32)))
        return identity, self._store.next_incarnation(int(time.time())), self._store.endpoints()

    async def _pod_mtu(self, peers: list[str]) -> int:
        underlay = await self._host.underlay_mtu(peers)
        self._facts["underlay_mtu"] = underlay
        if self.config.mtu > underlay - wire.OVERHEAD - wire.IP_UDP_BYTES[4]:
            what = f"--mtu {self.config.mtu} does not fit the underlay's MTU of {underlay}"
            raise ConfigError(what, f"give at most {underlay - wire.OVERHEAD - wire.IP_UDP_BYTES[4]}, or leave it out")
        return self.config.mtu or wire.pod_mtu(underlay)

    def _start_worker(self, stack: contextlib.AsyncExitStack, tun: TunQueue, udps: list[UdpSocket]) -> Any:
        control, end = open_pipe()
        kernel = ReferenceKernel(tun, udps, end.send)
        worker = Worker(self._loop, kernel, tun, udps, end)
        stack.callback(worker.close)
        stack.callback(control.close)
        self._facts |= {"kernel": kernel.name, "offloads": tun.features}
        self._loop.add_reader(control.fileno(), self._on_pipe, control)
        stack.callback(self._loop.remove_reader, control.fileno())
        return control

    async def _join(self, hints: tuple[seam.Endpoint, ...]) -> None:
        assert self._node is not None
        self._carry_out(self._node.start(hints, time.monotonic()))
        for peer in self.config.peers:
            await self._connect(peer)
        self._spawn(self._keep_names())

    async def _say_goodbye(self) -> None:
        assert self._node is not None
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._carry_out(self._node.stop(time.monotonic()))
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.sleep(SHUTDOWN_SECONDS)

    def _announce(self, local: Local) -> None:
        ours = f"{status.peer_name(local.id)}({local.name})"
        log.info("tunrouter %s; our name is %s", tunrouter.__version__, ours)
        warnings = []
        if not local.sealed:
            warnings.append("Communication between peers is unencrypted: give every node the same password")
        elif min(keys.strength_bits(secret) for secret in self.config.secrets) < WEAK_BITS:
            warnings.append(
                "the password is weak (below about 60 bits): whoever records one handshake can guess it offline; "
                "make a strong one with `tunrouter genkey`"
            )
        for warning in warnings:
            log.warning("%s", warning)
        self._warnings = tuple(warnings)

    # --- carrying ----------------------------------------------------------------------------------------------------
    def _on_pipe(self, pipe: PipeEnd[seam.ToControl]) -> None:
        assert self._node is not None
        self._carry_out(self._node.on_messages(pipe.receive(), time.monotonic()))

    def _on_timer(self) -> None:
        assert self._node is not None
        self._carry_out(self._node.on_timer(time.monotonic()))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Log(level, key, text):
                    self._once.say(level, key, text, time.monotonic())
                case KernelMtu(prefix, mtu):
                    self._host.set_path_mtu(prefix, mtu)
                case Remember(endpoints):
                    self._disk.submit(self._store.remember, endpoints).add_done_callback(self._remembered)
                case _:
                    self._pipe.send(effect)
        if self._pipe.wants_write and not self._writing:
            self._writing = True
            self._loop.add_writer(self._pipe.fileno(), self._on_writable)
        self._arm()

    def _on_writable(self) -> None:
        self._pipe.flush()
        if not self._pipe.wants_write:
            self._writing = False
            self._loop.remove_writer(self._pipe.fileno())

    def _arm(self) -> None:
        assert self._node is not None
        if self._timer is not None:
            self._timer.cancel()
        pause = self._node.deadline - time.monotonic()
        # Timers have millisecond resolution: one that fires early must not spin.
        self._timer = self._loop.call_later(min(max(pause, 0.001), 3600.0), self._on_timer)

    def _remembered(self, done: Any) -> None:
        error = done.exception()
        if error is not None:
            text = f"peers are not remembered on disk: {error}"
            self._loop.call_soon_threadsafe(self._once.say, "error", "remember", text, time.monotonic())

    # --- targets -----------------------------------------------------------------------------------------------------
    async def _connect(self, peer: str) -> None:
        assert self._node is not None
        endpoint, reason = await resolve.resolve(peer, self.config.port)
        if reason:
            self._once.say("warning", f"resolve {peer}", reason, time.monotonic())
        self._carry_out(self._node.connect(peer, endpoint, reason, time.monotonic()))

    async def _keep_names(self) -> None:
        """Names of targets that have no session are looked up again: the peer may have moved."""
        while True:
            await asyncio.sleep(NAMES_SECONDS)
            assert self._node is not None
            up = {s.endpoint for s in self._node.sessions.values() if s.state in report.STANDING}
            for target in list(self._node.targets.values()):
                if not resolve.is_literal(target.name) and target.endpoint not in up:
                    await self._connect(target.name)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the API -----------------------------------------------------------------------------------------------------
    async def _answer(self, call: api.Call) -> Any:
        if self._node is None:
            raise AgentError("the agent is still starting", "try again in a second")
        match call:
            case api.StatusCall():
                return self._snapshot(self._node)
            case api.ConnectCall(peers, replace):
                await self._connect_all(self._node, peers, replace=replace)
            case api.ForgetCall(peers):
                self._forget_all(self._node, peers)
            case api.AttachCall():
                return await self._host.attach(call, self._node.local.pod_mtu)
            case api.DetachCall():
                await self._host.detach(call)
        return None

    async def _connect_all(self, node: Node, peers: tuple[str, ...], *, replace: bool) -> None:
        try:
            wanted = [values.peer(peer) for peer in peers]
        except ValueError as error:
            raise ConfigError(f"{error}", "give peers as HOST, HOST:PORT or [IPV6]:PORT") from None
        if len({*node.targets, *wanted}) > bounds.MAX_TARGETS:
            raise AgentError(f"there are {len(node.targets)} targets already", "forget some first")
        if replace:
            for name in [name for name in node.targets if name not in wanted]:
                self._carry_out(node.forget(name, time.monotonic()))
        for peer in wanted:
            await self._connect(peer)

    def _forget_all(self, node: Node, peers: tuple[str, ...]) -> None:
        unknown = [peer for peer in peers if peer not in node.targets]
        if unknown:
            known = ", ".join(node.targets) or "none"
            raise ConfigError(f"no such target: {', '.join(unknown)}", f"name one as it was given: {known}")
        for peer in peers:
            self._carry_out(node.forget(peer, time.monotonic()))

    def _snapshot(self, node: Node) -> status.Snapshot:
        now, local, config = time.monotonic(), node.local, self.config
        assert self._host.host is not None
        facts, plan = self._host.host.facts(), self._host.host.plan
        host = status.Host(
            bridge=plan.bridge,
            bridge_address=f"{plan.gateway}/{plan.block.prefixlen}",
            bridge_mode=facts.bridge_mode,
            tun=plan.tun,
            tun_offloads=self._facts["offloads"],
            underlay_mtu=self._facts["underlay_mtu"],
            attachments=facts.attachments,
            firewall=facts.firewall,
        )
        conflicts = tuple(
            f"{node.name_of(c.winner)} and {node.name_of(c.loser)} both announce {c.block}"
            for c in node.routes.conflicts
        )
        return status.Snapshot(
            version=tunrouter.__version__,
            name=status.peer_name(local.id),
            nickname=local.name,
            id=f"{local.id:016x}",
            incarnation=local.incarnation,
            network=local.network,
            port=config.port,
            encryption=local.sealed,
            secrets=len(config.secrets),
            kernel=self._facts["kernel"],
            range=config.range,
            block=config.block,
            mtu=local.pod_mtu,
            uptime=now - self._started,
            targets=tuple(node.targets),
            connections=report.connections(node, now),
            peers=report.peers(node, now),
            host=host,
            counters=node.counters,
            warnings=self._warnings + conflicts,
        )


def _derive(config: Config) -> keys.KeyRing:
    return keys.KeyRing(tuple(keys.derive_psk(secret, config.network) for secret in config.secrets))


async def _finish(work: asyncio.Future[Any]) -> None:
    """An error before the secrets were needed must not leave their derivation behind."""
    with contextlib.suppress(TunrouterError):
        await work


def _open_udps(config: Config) -> list[UdpSocket]:
    """The sockets of the families that this host has; of the bind address's alone, if there is one."""
    if config.host:
        return [open_udp(6 if ":" in config.host else 4, config.port, config.host)]
    first = open_udp(4, config.port)
    try:
        return [first, open_udp(6, config.port)]
    except HostError as error:
        if "in use" in error.what:
            first.close()
            raise
        log.info("IPv6 is not used as underlay: %s", error.what)
        return [first]
