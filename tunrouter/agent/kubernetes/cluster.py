"""In touch with the cluster: what its API tells goes to the core and the targets, what the core wants goes to the API.

    start:  the API server is found ──> Nodes and Leases are followed ──> our own address, before anything is bound
    join:   the core stands ──> it hears all that is known, then every change
    then:   a look a second at what no event tells: out of touch, ready, nobody to talk to

Law: nothing waits for the API but what only the API can say, and that with a bound. Nothing here stops the agent, and
each work goes on whatever becomes of the others: one of them asks an API server, another one only this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from ipaddress import IPv4Network, ip_address
from typing import Any, Final, NamedTuple

from tunrouter.agent.barrier import Barrier
from tunrouter.agent.control import Control
from tunrouter.agent.kubernetes import blocks
from tunrouter.agent.kubernetes.blocks import Blocks
from tunrouter.agent.kubernetes.identity import Identity
from tunrouter.agent.kubernetes.members import Members
from tunrouter.agent.kubernetes.presence import Presence
from tunrouter.agent.kubernetes.reports import Reports
from tunrouter.agent.recall import BOOT_ID
from tunrouter.agent.supervision import supervised
from tunrouter.agent.targets import Targets
from tunrouter.agent.underlay import Rank, Underlay
from tunrouter.config import Config
from tunrouter.core import status
from tunrouter.core.leases import Away, Settled, Synced
from tunrouter.core.outbox import CreateLease, DeleteLease, TakeLease
from tunrouter.core.states import STANDING
from tunrouter.edge.kube import access
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.events import Events
from tunrouter.edge.kube.objects import LEASES, NODES, Lease, Node
from tunrouter.edge.kube.reflector import Reflector
from tunrouter.errors import ClusterError
from tunrouter.host.choice import Wish

LOOK_SECONDS: Final = 1.0
START_LOOK_SECONDS: Final = 0.1
START_SECONDS: Final = 30.0
"""So long it looks oftener, until pods may come: a whole node waits for that."""
KNOWN_SECONDS: Final = 2.0
"""So long the start waits to hear which address the cluster knows this node by."""
AWAY_SECONDS: Final = 2.0
"""A watch that ends and begins again is no outage."""
ALONE_SECONDS: Final = 20.0
"""Without a single peer for so long, others are dialled."""
STATE_SECONDS: Final = 60.0
FIRST_STATE_SECONDS: Final = 10.0
IFACE: Final = "tunrouter.io/iface"
CAN_REACH: Final = "tunrouter.io/iface-can-reach"
SHOWN: Final = 64
"""Of an annotation that says nonsense."""
log = logging.getLogger("tunrouter.kubernetes")

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class Joined(NamedTuple):
    control: Control
    targets: Targets


class Cluster:
    """`troubles` are the agent's own, by the reason under which each becomes an Event."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        underlay: Underlay,
        presence: Presence,
        barrier: Barrier,
        spawn: Spawn,
        troubles: Callable[[], Mapping[str, str]],
        state: Callable[[], str],
    ) -> None:
        """`state`: in a line, what the agent does or waits for."""
        self._config = config
        self._environ = {**environ, access.SERVER: config.apiserver} if config.apiserver else environ
        self._pods = IPv4Network(config.range)
        self._underlay = underlay
        self._presence = presence
        self._barrier = barrier
        self._spawn = spawn
        self._state = state
        self._state_at = 0.0
        self._started_at = asyncio.get_running_loop().time()
        """When the state is logged next: first when the node is ready, or has had the time to be."""
        self._members = Members(config.name, BOOT_ID.read_text().strip())
        self._members.changed_at_all = self._on_members
        service = environ.get(access.HOST, "")
        self._reports = Reports(config.name, self._pods, service, self._members, presence, troubles, lambda: self.why)
        self._client: Client | None = None
        self._unknown = "the API server is not known yet"
        """Why there is no client."""
        self._nodes: Reflector[Node] | None = None
        self._leases: Reflector[Lease] | None = None
        self._blocks: Blocks | None = None
        self._joined: Joined | None = None
        self._identity = Identity()
        self._known = asyncio.Event()
        """Our own Node object was seen."""
        self._told_away: str | None = None
        """Why the API is away, as the core was told; empty if it is not."""
        self._alone = 0.0

    @property
    def why(self) -> str:
        """Why the API is out of touch; empty if it is not."""
        if self._client is None:
            return self._unknown
        found = [one.why for one in (self._nodes, self._leases) if one is not None and one.why]
        if not self._id:
            found.append(self._identity.why)
        return found[0] if found else ""

    @property
    def _id(self) -> int:
        """The cluster's; 0: not known."""
        leases = self._joined.control.node.allocator.leases if self._joined is not None else None
        return self._identity.known(leases.cluster if leases is not None else 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        lost = f"out of touch with the Kubernetes API: {self.why}" if self.why else ""
        told = filter(None, [lost or self._identity.why, self._strange, self._presence.trouble])
        return (*told, *self._presence.left_out, *map(str, self._reports.conflicts))

    @property
    def report(self) -> status.Kubernetes:
        """All of this as the snapshot has it."""
        counts = self._client.counts if self._client is not None else {}
        known = self._nodes is not None and self._nodes.synced
        return status.Kubernetes(
            node=self._config.name,
            registered=self._members.own is not None if known else None,
            away=self.why,
            lacks=tuple(filter(None, [self._presence.trouble, *self._presence.left_out])),
            conflicts=tuple(status.Conflict(text=one.what, fix=one.fix) for one in self._reports.conflicts),
            requests=tuple(
                status.Requests(verb=verb, resource=resource, code=code, count=count)
                for (verb, resource, code), count in sorted(counts.items())
            ),
        )

    # --- start -------------------------------------------------------------------------------------------------------
    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Returns when our own address is known, or cannot be soon."""
        stack.push_async_callback(self._close)
        self._find()
        if self._client is None:
            self._supervise(self._keep_finding)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KNOWN_SECONDS):
                await self._known.wait()

    async def mourn(self, why: str) -> None:
        """The agent could not start, for this reason."""
        if self._client is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KNOWN_SECONDS):
                    await Events(self._client, self._config.name).say("StartFailed", why)

    async def _close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _supervise(self, work: Callable[[], Awaitable[None]]) -> None:
        self._spawn(supervised(work, self._barrier))

    async def _keep_finding(self) -> None:
        """What a pod has mounted may come late."""
        while self._client is None:
            await asyncio.sleep(LOOK_SECONDS)
            self._find()

    def _find(self) -> None:
        try:
            found = access.find(self._environ)
        except ClusterError as error:
            if str(error) != self._unknown:
                log.error("the Kubernetes API is not reachable: %s", error)  # noqa: TRY400 (one line, no traceback)
            self._unknown = str(error)
            return
        self._client = client = Client(found, node=self._config.name)
        self._nodes = Reflector(client, NODES, self._members)
        self._supervise(self._nodes.run)
        self._supervise(lambda: self._identity.find(client, self._tell_leases))
        self._supervise(lambda: self._reports.keep_condition(client))
        self._supervise(lambda: self._reports.keep_events(client))
        self._follow_leases()

    def join(self, control: Control, targets: Targets) -> None:
        """The core stands, and hears of the API from now on."""
        self._joined = Joined(control, targets)
        control.leased = self._on_wanted
        self._follow_leases()
        self._supervise(self._keep)
        self._supervise(self._keep_presence)
        self._on_members()

    def _follow_leases(self) -> None:
        """As soon as both are there, the API and the core. From an old list a node would take for its own what another
        one has by now.
        """
        if self._client is None or self._joined is None:
            return
        local, hear = self._joined.control.node.local, self._joined.control.hear_api
        self._blocks = Blocks(
            self._client, self._pods, local.block_length, self._config.name, local.id, hear, self._barrier
        )
        self._leases = Reflector(self._client, LEASES, self._blocks, namespace=blocks.NAMESPACE, newest=True)
        self._supervise(self._leases.run)

    # --- what the API tells ------------------------------------------------------------------------------------------
    def _on_members(self) -> None:
        own = self._members.own
        if own is not None:
            self._wish(own)
            self._known.set()
        if self._joined is not None and self._nodes is not None and self._nodes.synced:
            self._joined.control.hear_api(self._members.news)
            self._dial()

    def _wish(self, own: Node) -> None:
        """The address that the cluster knows this node by, unless somebody wishes another one."""
        said = own.metadata.annotations
        iface, reach = said.get(IFACE, ""), said.get(CAN_REACH, "") if not self._strange else ""
        annotated = Wish(
            ifaces=tuple(iface.split(",")) if iface else (), can_reach=reach if not iface else "", said="annotation",
            lenient=True,
        )  # fmt: skip
        self._underlay.prefer(Rank.ANNOTATION, annotated if iface or reach else None)
        address = self._members.address
        internal = Wish(address=address, said="InternalIP", lenient=True) if address else None
        self._underlay.prefer(Rank.INTERNAL_IP, internal)

    @property
    def _strange(self) -> str:
        """What an annotation says that it cannot."""
        own = self._members.own
        reach = own.metadata.annotations.get(CAN_REACH, "") if own is not None else ""
        if not reach or _is_address(reach):
            return ""
        return f"the annotation {CAN_REACH} of this node is no address: {reach[:SHOWN]!r}"

    def configure(self, config: Config) -> None:
        """The operator named other peers."""
        self._config = config
        self._dial()

    def _dial(self) -> None:
        if self._joined is None:
            return
        self._joined.targets.configure(tuple(dict.fromkeys((*self._config.peers, *self._members.peers))))

    def _tell_leases(self) -> None:
        """All of them, once the cluster is known; and again after an outage."""
        found, mine = self._leases, self._blocks
        if self._joined is None or mine is None or found is None or not found.synced or not self._id:
            return
        self._told_away = ""
        news = Synced(self._id, mine.all(found.objects), blocks.revision(found.version))
        self._joined.control.hear_api(news)
        mine.tell_cut()

    # --- what the core wants -----------------------------------------------------------------------------------------
    def _on_wanted(self, effect: CreateLease | TakeLease | DeleteLease) -> None:
        self._spawn(self._carry_out(effect))

    async def _carry_out(self, effect: CreateLease | TakeLease | DeleteLease) -> None:
        assert self._joined is not None
        own = self._members.own
        if self._blocks is None:
            settled = Settled(effect.number, None, self.why)
        elif own is None:
            settled = Settled(effect.number, None, f"there is no Node object {self._config.name!r} in the cluster")
        else:
            settled = await self._blocks.carry_out(effect, own.metadata.uid)
        self._joined.control.hear_api(settled)

    # --- what no event tells -----------------------------------------------------------------------------------------
    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for look in (self._look_at_touch, self._look_at_peers, self._log_state):
                with self._barrier:
                    look(loop.time())
            await self._pause()

    async def _keep_presence(self) -> None:
        while True:
            await self._presence.look()
            await self._pause()

    async def _pause(self) -> None:
        starting = not self._presence.installed and asyncio.get_running_loop().time() < self._started_at + START_SECONDS
        await asyncio.sleep(START_LOOK_SECONDS if starting else LOOK_SECONDS)

    def _look_at_touch(self, now: float) -> None:
        assert self._joined is not None
        since = self._leases.out_of_touch_since if self._leases is not None else -AWAY_SECONDS
        why = self._leases.why if self._leases is not None else self.why
        if since is None and not self._id and self._identity.why:
            since, why = self._identity.since, self._identity.why
        if since is None and self._told_away != "":
            self._tell_leases()
        elif since is not None and now - since >= AWAY_SECONDS and self._told_away != why:
            self._told_away = why
            self._joined.control.hear_api(Away(why))

    def _look_at_peers(self, now: float) -> None:
        assert self._joined is not None
        if not self._members.peers or any(
            session.state in STANDING for session in self._joined.control.node.sessions.values()
        ):
            self._alone = now
        elif now - self._alone >= ALONE_SECONDS:
            self._alone = now
            self._members.dial_others()
            self._dial()

    def _log_state(self, now: float) -> None:
        """So that the last lines of the log tell it, whenever somebody looks."""
        if not self._state_at:
            self._state_at = now + FIRST_STATE_SECONDS
        if now >= self._state_at or self._presence.takes_note():
            self._state_at = now + STATE_SECONDS
            log.info("%s: %s", self._config.name, self._state())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
