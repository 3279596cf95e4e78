"""The agent's life: start in the order in which a failure costs least, then answer, then stop without a trace.

Law: this file joins parts and decides nothing (`control.py` carries the node's messages). One task owns nothing here:
everything runs on one loop, and what blocks (netlink, nft, SQLite, argon2id) runs on a thread that the loop waits for
or forgets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import tunrouter
from tunrouter.agent import dataplane, inheritance, membership, resolve
from tunrouter.agent.addressing import Addressing
from tunrouter.agent.answers import Answers
from tunrouter.agent.attachments import Attachments
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.bench import Bench
from tunrouter.agent.calls import Calls
from tunrouter.agent.cni import Cni
from tunrouter.agent.control import Control
from tunrouter.agent.exposure import Exposure, kept_on
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.kubernetes import kubectl
from tunrouter.agent.ledger import Ledger
from tunrouter.agent.memory import Memory
from tunrouter.agent.monitoring import Monitoring
from tunrouter.agent.pings import Pings
from tunrouter.agent.plan import block_length, host_plan, local_node
from tunrouter.agent.policing import Policing
from tunrouter.agent.readiness import Readiness
from tunrouter.agent.recall import Kept, founding, recall
from tunrouter.agent.recall import blocks as recalled_blocks
from tunrouter.agent.snapshot import Facts, Seen, snapshot
from tunrouter.agent.supervision import Tasks, supervised
from tunrouter.agent.targets import Targets
from tunrouter.agent.tickets import Tickets
from tunrouter.agent.underlay import Underlay
from tunrouter.config import Config
from tunrouter.core import keys, seam, status, wire
from tunrouter.core.local import Local
from tunrouter.core.node import Node
from tunrouter.daemon import logs
from tunrouter.daemon.logs import OncePerKey
from tunrouter.edge import api
from tunrouter.edge.api.server import serve
from tunrouter.edge.runtimes import Directories
from tunrouter.edge.store import Store
from tunrouter.errors import AgentError, TunrouterError
from tunrouter.host import HostPlan

if TYPE_CHECKING:
    from tunrouter.agent.kubernetes.cluster import Cluster

NAMES_SECONDS: Final = 10.0
"""How often names of targets that are not connected are looked up again."""
LEFT_SECONDS: Final = 0.5
"""From the answer that this node has left its cluster to the agent's end."""
T = TypeVar("T")
log = logging.getLogger("tunrouter")


class Agent:
    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, remarks: tuple[str, ...] = ()) -> None:
        """`remarks` on the configuration are shown as long as it lives."""
        self.config = config
        self._remarks = remarks
        self._loop = loop
        self._host = HostSide(loop)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._once = OncePerKey(log)
        self._barrier = Barrier(log)
        self._started, self._started_at = time.monotonic(), time.time()
        self.tasks = Tasks(loop, self._barrier)
        self._warnings: tuple[str, ...] = ()
        self.underlay = Underlay(config, self._host, self._barrier)
        self._runtimes = Directories(Path(config.cni_bin_dir), Path(config.cni_conf_dir))
        self._policing = Policing(config, loop)
        self.readiness = Readiness(self._host, self.underlay, self._runtimes, self._policing.hindrance)
        self._monitoring = Monitoring(
            loop, config.metrics_addr, config.health_addr, self._once, self._measure, self.readiness.unready,
            self._counted,
        )  # fmt: skip
        self._control: Control | None = None
        self._cluster = self._make_cluster() if config.kubernetes else None
        self._ready = False
        self._calls = Calls(self._obey)
        self.stopped = asyncio.Event()
        self._expected = False
        """When it stops, another one is thought to come at once."""
        self._left = False
        """This node has left its cluster."""
        self.failure: TunrouterError | None = None
        """Why it stopped by itself."""
        self._facts: dict[str, Any] = {}

    # --- start and stop ----------------------------------------------------------------------------------------------
    async def start(self, stack: contextlib.AsyncExitStack) -> bool:
        """In order: our socket (one agent a host), secrets and state, this host, the packets' descriptors, the node.

        False if it was stopped while it waited for its underlay.
        """
        config = self.config
        await self._begin(stack)
        ring = self._loop.run_in_executor(None, membership.derive, config)
        stack.push_async_callback(_finish, ring)
        kept = await self._recall(stack)
        remember_endpoints = self._memory("peers", self._store.remember_endpoints, stack)
        remember_targets = self._memory("targets", self._store.remember_targets, stack)
        peers = [endpoint[0] for peer in config.peers if (endpoint := resolve.literal(peer, 0)) is not None]
        if self._cluster is not None:
            await self._cluster.start(stack)
        if not await self.underlay.settle(peers, self.stopped):
            return False
        plan = host_plan(config, self.underlay.mtu)
        static = (IPv4Network(config.block),) if config.block else ()
        blocks = static or recalled_blocks(kept, plan.range, block_length(config, plan, static))
        await self._host.prepare(plan, peers)
        await self._policing.begin(self._host)
        self._workers, self._facts["offloads"] = await dataplane.start(
            config,
            self.underlay.chosen,
            kept.identity,
            self._loop,
            self._barrier,
            self._once,
            stack,
            leave=self._leaves,
        )
        exposed = kept_on(kept.rows)
        # What pods live by is there without a pause, whoever decides about blocks.
        await self._host.apply(blocks, exposed=[a for a in exposed.values() if not static or a in static[0]])
        local = local_node(config, kept, await ring, plan, static, self.underlay.endpoints)
        self._announce(local)
        await self._workers.ready()
        node = Node(
            local, plan.range, static=bool(static), kubernetes=config.kubernetes, founding=founding(config, kept)
        )
        control = self._make_control(node, plan, remember_endpoints, stack)
        self._targets = Targets(control, config.port, self._once, remember_targets)
        self._exposure = Exposure(node, self._host, self._tickets, self._attachments, exposed)
        self._answers = Answers(
            node, self._targets, self._attachments, self._cni, self._exposure, self._addresses, self._bench,
            self._pings, lambda cluster: self._snapshot(control, cluster=cluster), self._on_left,
        )  # fmt: skip
        here = await self._host.attached()
        self._control = control
        self.readiness.watch(control, self._attachments)
        control.carry_out(node.start(kept.endpoints, time.monotonic(), kept.rows, moved=kept.moved))
        self.tasks.spawn(self._attachments.reconcile(here, node.allocator.addresses.holders))
        self.tasks.spawn(supervised(self._policing.keep, self._barrier))
        self._targets.start(config.peers, kept.targets)
        if self._cluster is not None:
            self._cluster.join(control, self._targets)
        self.tasks.spawn(self._keep_names())
        self.tasks.spawn(
            self.underlay.keep(
                lambda to: dataplane.move(self._workers, self.config, to, kept.identity), control.readdressed
            )
        )
        self._host.changed = self._look_at_host
        self._look_at_host()
        self._calls.serving.set()
        if not self._ready and not node.allocator.addresses.blocks:
            log.info("this node has no block of addresses yet; pods can be attached when it has one")
        return True

    async def _begin(self, stack: contextlib.AsyncExitStack) -> None:
        """What can be asked of an agent that has nothing yet."""
        stack.callback(self._disk.shutdown)
        stack.push_async_callback(self._host.close)
        server = await serve(self.config.socket, self._calls.answer)
        stack.push_async_callback(server.close)
        self._monitoring.start(stack)

    async def _recall(self, stack: contextlib.AsyncExitStack) -> Kept:
        """What the disk has of earlier lives."""
        self._store = await self._loop.run_in_executor(self._disk, Store, Path(self.config.state_dir))
        stack.callback(self._store.close)
        return await self._loop.run_in_executor(self._disk, recall, self._store)

    def _make_cluster(self) -> Cluster:
        from tunrouter.agent.kubernetes.assembly import cluster

        return cluster(
            self.config, self._host, self.underlay, self._runtimes, self.readiness, self._policing, self._barrier,
            self.tasks.spawn,
        )  # fmt: skip

    def _make_control(
        self,
        node: Node,
        plan: HostPlan,
        remember: Callable[[tuple[seam.Endpoint, ...]], None],
        stack: contextlib.AsyncExitStack,
    ) -> Control:
        """The node in its loop, with all that it speaks to."""
        control = Control(
            self._loop,
            node,
            self._workers.send,
            self._once,
            self._barrier,
            remember=remember,
            set_path_mtu=self._host.set_path_mtu,
            own=self._own,
            fence=self._host.fence,
        )
        control.persist = Ledger(self._loop, self._store, control.durable).persist
        self._tickets = Tickets(self._loop, control.ask)
        control.answered, control.fatal = self._tickets.answered, self._end
        self._attachments = Attachments(self._host, self._tickets)
        self._policing.watch(self._attachments, self._host.seen, node.allocator.addresses.holders)
        before = kubectl.inside(self.config.name) if self.config.kubernetes else ""
        notes, hindrance = self.config.notes, self.readiness.hindrance
        self._cni = Cni(node, self._host, plan, self._attachments, notes, hindrance, self._policing, before)
        self._addresses = Addressing(control, self._tickets)
        self._bench = Bench(
            self._loop,
            control,
            lambda: self._host.gateway,
            allowed=self.config.bench,
            kernel=lambda: self._workers.kernel,
        )
        stack.callback(self._bench.close)
        self._pings = Pings(self._loop, control)
        control.echoed = self._pings.echoed
        control.said = self._hear
        stack.callback(self._say_goodbye, control)
        self._workers.hear, self._workers.maimed = control.hear, control.lanes_lost
        return control

    def _hear(self, node: int, body: wire.AgentBody) -> None:
        """Another agent, by way of the session with its node."""
        if isinstance(body, wire.BenchAsk | wire.BenchAnswer):
            self._bench.heard(node, body)
        else:
            self._addresses.heard(node, body)

    def depart(self) -> None:
        """Stops; packets are moved on until another agent comes, which is to be soon."""
        self._expected = not (self._left or self.stopped.is_set())
        self.stopped.set()

    def _leaves(self) -> bool:
        """Whether workers are left to the next agent: one that could not start must not end what it has taken over."""
        return self._expected or self._control is None

    async def mourn(self, error: TunrouterError) -> None:
        """It could not start: who runs the cluster hears why, not only who reads this log."""
        if self._cluster is not None:
            await self._cluster.mourn(str(error))

    def _end(self, what: str, fix: str) -> None:
        """The node cannot go on."""
        self.failure = self.failure or AgentError(what, fix)
        self.stopped.set()

    # --- the host ----------------------------------------------------------------------------------------------------
    def _own(self, blocks: tuple[IPv4Network, ...]) -> None:
        if self._ready:
            log.info("the blocks of this node are now: %s", ", ".join(map(str, blocks)) or "none")
        self._host.own(blocks)

    def _look_at_host(self) -> None:
        """Pods may have gone by themselves, and the first block may be there."""
        if self._host.host is None or self._control is None or self._control.stopped:
            return
        if gone := self._host.host.vanished():
            self.tasks.spawn(self._attachments.release([(pod.name, pod.interface) for pod in gone]))
        self._exposure.look()
        self.tasks.spawn(self._cni.settle())
        if not self._ready and self._host.gateway is not None:
            self._ready = True
            self._say_ready(self._control.node)

    def _say_ready(self, node: Node) -> None:
        blocks, config = ", ".join(str(block) for block, _ in node.routes.own), self.config
        log.info("ready: pods of %s on %s, MTU %d, UDP port %d", blocks, config.bridge, node.local.pod_mtu, config.port)

    def _memory(
        self, what: str, write: Callable[[tuple[T, ...]], None], stack: contextlib.AsyncExitStack
    ) -> Callable[[tuple[T, ...]], None]:
        """How to have something remembered; what waits at the end is written before the store is closed."""

        def complain(text: str) -> None:
            self._once.say("error", f"remember {what}", text, time.monotonic())

        memory = Memory(what, self._loop, self._disk, write, complain)
        stack.push_async_callback(memory.close)
        return memory.remember

    def _say_goodbye(self, control: Control) -> None:
        self.tasks.cancel()
        control.stop(leave=self._expected)

    def _announce(self, local: Local) -> None:
        ours = f"{status.peer_name(local.id)}({local.name})"
        log.info("tunrouter %s; our name is %s", tunrouter.__version__, ours)
        for remark in self._remarks:
            log.warning("%s", remark)
        self._warn(sealed=local.sealed)

    def _warn(self, *, sealed: bool) -> None:
        self._warnings = membership.warnings(self.config.secrets, sealed=sealed)
        for warning in self._warnings:
            log.warning("%s", warning)

    async def adopt(self, config: Config, ring: keys.KeyRing | None) -> None:
        """What a reload changes; `ring` is None if the secrets stay. Raises HostError, and changes nothing."""
        await self._monitoring.move(config.metrics_addr, config.health_addr)
        control = self._control
        if control is None or control.stopped:
            return
        before, self.config = self.config, config
        if ring is not None:
            control.carry_out(control.node.use_secrets(ring, time.monotonic()))
            self._warn(sealed=len(ring) > 0)
            self._workers.charter(
                inheritance.charter(config, self.underlay.chosen.address, control.node.local.identity)
            )
        if config.peers != before.peers:
            self._targets.configure(config.peers)
            if self._cluster is not None:
                self._cluster.configure(config)
            self.tasks.spawn(self._look_up())
        logs.set_level(config.log_level)
        self._workers.set_log_level(config.log_level)

    async def _look_up(self) -> None:
        with self._barrier:
            await self._targets.look_up()

    async def _keep_names(self) -> None:
        while True:
            await self._look_up()
            await asyncio.sleep(NAMES_SECONDS)

    # --- the API -----------------------------------------------------------------------------------------------------
    def _standing(self) -> Control:
        """Raises AgentError while there is no node to ask."""
        if self._control is None:
            raise AgentError(self.readiness.unready(), "try again in a second")
        if self._control.stopped:
            raise AgentError("the agent is stopping", "start it again first")
        return self._control

    def _measure(self) -> status.Snapshot:
        """The snapshot for metrics. Raises AgentError."""
        return self._snapshot(self._standing(), cluster=False)

    def _counted(self) -> dict[str, int]:
        """All that is counted; nothing while there is no node."""
        if self._control is None:
            return {}
        own = self._workers.counters | self._bench.counters | {status.REPAIRS: self._host.repairs}
        return self._control.counters | own

    def _snapshot(self, control: Control, *, cluster: bool) -> status.Snapshot:
        cluster_says = self._cluster.warnings if self._cluster is not None else ()
        others = (*self._exposure.complaints(), *self._monitoring.warnings, *cluster_says)
        troubles = filter(None, [self._runtimes.hindrance(), self.underlay.trouble])
        warnings = (*self._warnings, *self._remarks, *others, *troubles)
        facts = Facts(self._started, self._started_at, self.underlay, **self._facts)
        seen = Seen(
            warnings=warnings,
            unready=self.readiness.unready(),
            counters=self._workers.counters | self._bench.counters,
            lag=self._monitoring.lag,
            lately=self._monitoring.lately,
            clock=self._monitoring.clock,
            kubernetes=self._cluster.report if self._cluster is not None else None,
            policy=self._policing.state,
        )
        return snapshot(self.config, facts, seen, control, self._workers, self._host, cluster=cluster)

    async def _obey(self, call: api.Call) -> Any:
        self._standing()
        return await self._answers.obey(call)

    def _on_left(self) -> None:
        """Nothing is left to do for an agent without a cluster; the answer goes first."""
        self._left = True
        self._loop.call_later(LEFT_SECONDS, self.stopped.set)


async def _finish(work: asyncio.Future[Any]) -> None:
    """An error before the secrets were needed must not leave their derivation behind."""
    with contextlib.suppress(TunrouterError):
        await work
