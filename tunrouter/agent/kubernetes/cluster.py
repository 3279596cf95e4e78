"""In touch with the cluster: what its API tells goes to the core and the targets, what the core wants goes to the API.

    start:  the API server is found ──> Nodes and Leases are followed ──> our own address, before anything is bound
    join:   the core stands ──> it hears all that is known, then every change
    then:   a look a second at what no event tells: out of touch, ready, trouble that has to be said

Law: nothing waits for the API but what only the API can say, and that with a bound. Nothing here stops the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from hashlib import blake2b
from ipaddress import IPv4Network
from typing import Any, Final, NamedTuple

from tunrouter.agent.barrier import Barrier
from tunrouter.agent.control import Control
from tunrouter.agent.kubernetes import blocks
from tunrouter.agent.kubernetes.blocks import Blocks
from tunrouter.agent.kubernetes.conflicts import Settings, conflicts
from tunrouter.agent.kubernetes.members import Members
from tunrouter.agent.kubernetes.presence import Presence
from tunrouter.agent.kubernetes.troubles import NOT_READY
from tunrouter.agent.targets import Targets
from tunrouter.agent.underlay import Rank, Underlay
from tunrouter.config import Config
from tunrouter.core.leases import Away, Settled, Synced
from tunrouter.core.outbox import CreateLease, DeleteLease
from tunrouter.core.states import STANDING
from tunrouter.edge.kube import access
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.events import Events
from tunrouter.edge.kube.objects import CONFIGMAPS, LEASES, NAMESPACES, NODES, Lease, Node
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
SETTINGS_SECONDS: Final = 600.0
STATE_SECONDS: Final = 60.0
TROUBLED_SECONDS: Final = 30.0
"""What is in the way for so long is said to the cluster."""
SYSTEM: Final = "kube-system"
IFACE: Final = "tunrouter.io/iface"
CAN_REACH: Final = "tunrouter.io/iface-can-reach"
log = logging.getLogger("tunrouter.kubernetes")

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class Joined(NamedTuple):
    control: Control
    targets: Targets
    blocks: Blocks


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
        self._troubles = troubles
        self._state = state
        self._state_at = 0.0
        self._members = Members(config.name)
        self._members.changed_at_all = self._on_members
        self._client: Client | None = None
        self._nodes: Reflector[Node] | None = None
        self._leases: Reflector[Lease] | None = None
        self._events: Events | None = None
        self._joined: Joined | None = None
        self._id = 0
        self._known = asyncio.Event()
        """Our own Node object was seen."""
        self._told_away: str | None = None
        """Why the API is away, as the core was told; empty if it is not."""
        self._alone = 0.0
        self._since: dict[str, float] = {}
        """When each trouble was first seen."""
        self.conflicts: tuple[str, ...] = ()
        """What in the cluster's settings works against us."""

    @property
    def why(self) -> str:
        """Why the API is out of touch; empty if it is not."""
        if self._client is None:
            return "the API server is not known"
        found = [one.why for one in (self._nodes, self._leases) if one is not None and one.why]
        return found[0] if found else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        lost = f"out of touch with the Kubernetes API: {self.why}" if self.why else ""
        return (*filter(None, [lost, self._presence.trouble]), *self.conflicts)

    @property
    def counts(self) -> Mapping[tuple[str, str, str], int]:
        return self._client.counts if self._client is not None else {}

    # --- start -------------------------------------------------------------------------------------------------------
    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Returns when our own address is known, or cannot be soon."""
        try:
            found = access.find(self._environ)
        except ClusterError as error:
            log.error("the Kubernetes API is not reachable: %s", error)  # noqa: TRY400 (one line, no traceback)
            return
        self._client = client = Client(found, node=self._config.name)
        stack.push_async_callback(client.close)
        self._events = Events(client, self._config.name)
        self._nodes = Reflector(client, NODES, self._members)
        self._spawn(self._nodes.run())
        self._spawn(self._identify(client))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KNOWN_SECONDS):
                await self._known.wait()

    async def _identify(self, client: Client) -> None:
        """The cluster is known by the UID of a namespace that is never deleted."""
        while not self._id:
            try:
                system = await client.get(NAMESPACES, SYSTEM)
            except ClusterError as error:
                log.debug("the cluster has not told its id: %s", error)
                await client.reachability.wait(LOOK_SECONDS)
            else:
                self._id = int.from_bytes(blake2b(system.metadata.uid.encode(), digest_size=8).digest(), "big")
                self._tell_leases()

    def join(self, control: Control, targets: Targets) -> None:
        """The core stands, and hears of the API from now on."""
        local = control.node.local
        if self._client is None:
            control.hear_api(Away(self.why))
            return
        mine = Blocks(self._client, self._pods, local.block_length, self._config.name, local.id, control.hear_api)
        self._joined = Joined(control, targets, mine)
        control.leased = self._on_wanted
        self._leases = Reflector(self._client, LEASES, mine, namespace=blocks.NAMESPACE)
        self._spawn(self._leases.run())
        self._spawn(self._keep())
        self._on_members()

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
        iface, reach = said.get(IFACE, ""), said.get(CAN_REACH, "")
        annotated = Wish(
            ifaces=tuple(iface.split(",")) if iface else (), can_reach=reach if not iface else "", said="annotation",
            lenient=True,
        )  # fmt: skip
        self._underlay.prefer(Rank.ANNOTATION, annotated if iface or reach else None)
        address = self._members.address
        internal = Wish(address=address, said="InternalIP", lenient=True) if address else None
        self._underlay.prefer(Rank.INTERNAL_IP, internal)

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
        if self._joined is None or self._leases is None or not self._leases.synced or not self._id:
            return
        self._told_away = ""
        self._joined.control.hear_api(self._all(self._joined.blocks, self._leases))

    def _all(self, mine: Blocks, found: Reflector[Lease]) -> Synced:
        return Synced(self._id, mine.all(found.objects), blocks.revision(found.version))

    # --- what the core wants -----------------------------------------------------------------------------------------
    def _on_wanted(self, effect: CreateLease | DeleteLease) -> None:
        self._spawn(self._carry_out(effect))

    async def _carry_out(self, effect: CreateLease | DeleteLease) -> None:
        assert self._joined is not None
        own = self._members.own
        settled = Settled(effect.number, None, f"there is no Node object {self._config.name!r} in the cluster")
        if own is not None:
            settled = await self._joined.blocks.carry_out(effect, own.metadata.uid)
        self._joined.control.hear_api(settled)

    # --- what no event tells -----------------------------------------------------------------------------------------
    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        settings_at = 0.0
        started_at = loop.time() + START_SECONDS
        while True:
            with self._barrier:
                self._look_at_touch(loop.time())
                self._look_at_peers(loop.time())
                self._log_state(loop.time())
                await self._presence.install()
                if not self.why and self._client is not None:
                    await self._presence.tell(self._client, self._members.own)
                    if loop.time() >= settings_at and self._id:
                        settings_at = loop.time() + SETTINGS_SECONDS
                        await self._look_at_settings(self._client)
                    await self._say(loop.time())
            started = self._presence.installed or loop.time() > started_at
            await asyncio.sleep(LOOK_SECONDS if started else START_LOOK_SECONDS)

    def _look_at_touch(self, now: float) -> None:
        assert self._leases is not None
        assert self._joined is not None
        since = self._leases.out_of_touch_since
        if since is None and self._told_away != "":
            self._tell_leases()
        elif since is not None and now - since >= AWAY_SECONDS and self._told_away != self._leases.why:
            self._told_away = self._leases.why
            self._joined.control.hear_api(Away(self._leases.why))

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
        if now >= self._state_at:
            self._state_at = now + STATE_SECONDS
            log.info("%s: %s", self._config.name, self._state())

    async def _look_at_settings(self, client: Client) -> None:
        texts = {}
        for name in ("kube-proxy", "kubeadm-config"):
            try:
                texts[name] = "\n".join((await client.get(CONFIGMAPS, name, SYSTEM)).data.values())
            except ClusterError as error:
                log.debug("%s is not known: %s", name, error)
        service = self._environ.get(access.HOST, "")
        settings = Settings(
            texts.get("kube-proxy", ""), texts.get("kubeadm-config", ""), self._members.pod_cidrs, service
        )
        before, self.conflicts = self.conflicts, conflicts(self._pods, settings)
        for conflict in self.conflicts:
            if conflict not in before:
                log.warning("%s", conflict)

    async def _say(self, now: float) -> None:
        """What lasts, as Events at our Node object."""
        assert self._events is not None
        troubles = {text: reason for reason, text in self._troubles().items() if text}
        troubles |= dict.fromkeys(self.conflicts, "NetworkConflict")
        self._since = {text: self._since.get(text, now) for text in troubles}
        for text, since in self._since.items():
            if now - since >= (TROUBLED_SECONDS if troubles[text] == NOT_READY else 0.0):
                await self._events.say(troubles[text], text)
