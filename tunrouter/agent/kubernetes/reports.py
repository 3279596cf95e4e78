"""What this node has to say to the cluster: its condition, and Events of what is wrong; and the settings it looks at.

Law: each of the two waits for the API by itself, and nothing else waits for them: a server that answers late holds up
neither what the core must hear nor a pod. What failed is tried again later and later, and soon once the server is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from typing import Final

from tunrouter.agent.kubernetes.conflicts import Conflict, Settings, conflicts
from tunrouter.agent.kubernetes.members import Members
from tunrouter.agent.kubernetes.presence import CONDITION, Presence
from tunrouter.agent.kubernetes.troubles import NOT_READY
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.events import Events
from tunrouter.edge.kube.faults import UnreachableError
from tunrouter.edge.kube.objects import CONFIGMAPS
from tunrouter.edge.kube.reachability import jittered
from tunrouter.errors import ClusterError

LOOK_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 4.0
"""At the latest, to a server that fails; a refusal lasts longer."""
REFUSED_SECONDS: Final = 60.0
SETTINGS_SECONDS: Final = 600.0
UNKNOWN_SECONDS: Final = 30.0
"""Until settings are asked for again that the server did not tell."""
TROUBLED_SECONDS: Final = 30.0
"""What is in the way for so long is said to the cluster."""
SYSTEM: Final = "kube-system"
log = logging.getLogger("tunrouter.kubernetes")


class Reports:
    def __init__(
        self, node: str, pods: IPv4Network, service: str, members: Members, presence: Presence,
        troubles: Callable[[], Mapping[str, str]], away: Callable[[], str],
    ) -> None:  # fmt: skip
        """`service`: the API's Service address. `troubles` are the agent's own, by the reason under which each becomes
        an Event. `away`: why the API is out of touch, empty if it is not.
        """
        self._node = node
        self._pods = pods
        self._service = service
        self._members = members
        self._presence = presence
        self._troubles = troubles
        self._away = away
        self._refused = ""
        self._since: dict[str, float] = {}
        """When each trouble was first seen."""
        self.conflicts: tuple[Conflict, ...] = ()
        """What in the cluster's settings works against us."""

    async def keep_condition(self, client: Client) -> None:
        """For as long as the agent runs."""
        loop = asyncio.get_running_loop()
        pause = LOOK_SECONDS
        while True:
            begun = loop.time()
            try:
                if not self._away():
                    await self._presence.tell(client, self._members.own)
            except ClusterError as error:
                if str(error) != self._refused:
                    log.warning("the condition %s could not be set: %s", CONDITION, error)
                self._refused = str(error)
                pause = min(2 * pause, AGAIN_SECONDS if isinstance(error, UnreachableError) else REFUSED_SECONDS)
                await client.reachability.wait(jittered(pause), begun)
            else:
                self._refused, pause = "", LOOK_SECONDS
                await asyncio.sleep(LOOK_SECONDS)

    async def keep_events(self, client: Client) -> None:
        """For as long as the agent runs."""
        loop = asyncio.get_running_loop()
        events = Events(client, self._node)
        settings_at = 0.0
        while True:
            if not self._away():
                if loop.time() >= settings_at:
                    known = await self._look_at_settings(client)
                    settings_at = loop.time() + (SETTINGS_SECONDS if known else UNKNOWN_SECONDS)
                await self._say(events, loop.time())
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_at_settings(self, client: Client) -> bool:
        """Whether the server told what there is; what it told before counts until then."""
        texts = {}
        for name in ("kube-proxy", "kubeadm-config"):
            try:
                texts[name] = "\n".join((await client.get(CONFIGMAPS, name, SYSTEM)).data.values())
            except UnreachableError as error:
                log.debug("%s is not known: %s", name, error)
                return False
            except ClusterError as error:
                log.debug("%s is not there, or not to be read: %s", name, error)
        settings = Settings(
            texts.get("kube-proxy", ""), texts.get("kubeadm-config", ""), self._members.pod_cidrs, self._service
        )
        before, self.conflicts = self.conflicts, conflicts(self._pods, settings)
        for conflict in self.conflicts:
            if conflict not in before:
                log.warning("%s", conflict)
        return True

    async def _say(self, events: Events, now: float) -> None:
        """What lasts, and what was put back, as Events at our Node object."""
        if restored := self._presence.takes_restored():
            await events.say("NetworkFileRestored", restored)
        troubles = {text: reason for reason, text in self._troubles().items() if text}
        troubles |= dict.fromkeys(map(str, self.conflicts), "NetworkConflict")
        self._since = {text: self._since.get(text, now) for text in troubles}
        for text, since in self._since.items():
            if now - since >= (TROUBLED_SECONDS if troubles[text] == NOT_READY else 0.0):
                await events.say(troubles[text], text)
