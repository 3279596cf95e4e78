"""That NetworkPolicies are not enforced, said where whoever relies on them looks: in the log and at the Node object.

Law: the last lines of the log tell the state whenever somebody looks: it is said when it changes and once a minute. The
Event is said while there are policies, and taken back when the last one goes; policies that come and go all day are no
flood of Events, however many nodes there are.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from tunrouter.edge.kube.events import Events
from tunrouter.npc.policies import Known, Policies

NOT_ENFORCED: Final = "PoliciesNotEnforced"
GONE: Final = "NoPolicies"
NONE: Final = "no NetworkPolicies in the cluster"
ADVICE: Final = "unless another program does (overlay no-npc), every pod accepts all traffic"
LOOK_SECONDS: Final = 2.0
"""A line each time is what the log takes of one kind."""
AGAIN_SECONDS: Final = 60.0
EVENTS: Final = 3
EVENTS_SECONDS: Final = 1800.0
"""So many Events in so long: on average, a node writes nothing more often than every ten minutes."""
log = logging.getLogger("tunrouter.npc")


class Notice:
    """`events` should allow `EVENTS` in `EVENTS_SECONDS`."""

    def __init__(self, node: str, policies: Policies, events: Events) -> None:
        self._node = node
        self._policies = policies
        self._events = events
        self._said: Known | None = None
        """In the log, last."""
        self._again_at = 0.0
        self._warning = ""
        """What the cluster was told last; empty if that was taken back."""

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            known = self._policies.known()
            if not self._policies.unready():
                self._log(known, asyncio.get_running_loop().time())
                if known.listed and not known.why:
                    await self._tell_cluster(known)
            await asyncio.sleep(LOOK_SECONDS)

    def _log(self, known: Known, now: float) -> None:
        """Another reason for being out of touch is no news: the reflector tells it."""
        said = known._replace(why=str(bool(known.why)))
        if said == self._said and now < self._again_at:
            return
        self._said, self._again_at = said, now + AGAIN_SECONDS
        level = logging.WARNING if known.policies or not known.listed else logging.INFO
        log.log(level, "%s: %s", self._node, state(known), extra={"event": "policies"})

    async def _tell_cluster(self, known: Known) -> None:
        if known.policies:
            text = unenforced(known)
            if text != self._warning:
                self._events.forget()
                self._warning = text
            await self._events.say(NOT_ENFORCED, text)
        elif self._warning and await self._events.say(GONE, NONE, warning=False):
            self._warning = ""


def state(known: Known) -> str:
    """In a line."""
    if not known.listed:
        return f"the NetworkPolicies are not known, and this version would not enforce them: {known.why}"
    told = unenforced(known) if known.policies else NONE
    return f"{told} (as last heard; out of touch with the Kubernetes API: {known.why})" if known.why else told


def unenforced(known: Known) -> str:
    policies = "1 NetworkPolicy" if known.policies == 1 else f"{known.policies} NetworkPolicies"
    namespaces = "1 namespace" if known.namespaces == 1 else f"{known.namespaces} namespaces"
    verb = "is" if known.policies == 1 else "are"
    return f"{policies} in {namespaces} {verb} NOT enforced by this version; {ADVICE}"
