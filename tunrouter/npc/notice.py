"""The state of policies, said where whoever relies on them looks: in the log, and as Events at what is wrong.

Law: the last lines of the log tell the state whenever somebody looks: it is said when it changes and once a minute. A
policy of which not all is understood has an Event of its own, said by nodes that have pods in its namespace; policies
that come and go all day are no flood of Events, however many nodes there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from tunrouter.core.policy.model import Policy
from tunrouter.edge.kube.events import Events
from tunrouter.edge.kube.objects import ObjectReference
from tunrouter.npc.cluster import Known

NOT_UNDERSTOOD: Final = "PolicyNotUnderstood"
NOT_ENFORCED: Final = "PoliciesNotEnforced"
API: Final = "networking.k8s.io/v1"
LOOK_SECONDS: Final = 2.0
"""A line each time is what the log takes of one kind."""
AGAIN_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 10.0
"""What is not in force for so long is told, later also as an Event."""
EVENTS: Final = 3
EVENTS_SECONDS: Final = 1800.0
"""So many Events in so long: on average, a node writes nothing more often than every ten minutes."""
log = logging.getLogger("tunrouter.npc")


class State(NamedTuple):
    known: Known
    pods: int
    """Of this node."""
    isolated: int
    """Of them, in any direction."""
    why: str
    """Why the kernel has not what it should; empty if it has."""


class Notice:
    """`events` should allow `EVENTS` in `EVENTS_SECONDS`; a policy is told of where it is `relevant`."""

    def __init__(
        self, node: str, look: Callable[[], State], events: Events, relevant: Callable[[Policy], bool]
    ) -> None:
        self._node = node
        self._look = look
        self._events = events
        self._relevant = relevant
        self._said = ""
        """In the log, last, without the reason for being out of touch."""
        self._again_at = 0.0
        self._amiss_since: float | None = None
        self._begun = asyncio.get_running_loop().time()

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            state, now = self._look(), asyncio.get_running_loop().time()
            if not state.why or now - self._begun >= PATIENCE_SECONDS:  # at the start that is no news
                self._log(state, now)
            await self._tell_cluster(state, now)
            await asyncio.sleep(LOOK_SECONDS)

    def _log(self, state: State, now: float) -> None:
        """Another reason for being out of touch is no news: the reflector tells it."""
        said = in_words(state._replace(known=state.known._replace(why="x" if state.known.why else "")))
        if said == self._said and now < self._again_at:
            return
        self._said, self._again_at = said, now + AGAIN_SECONDS
        level = logging.WARNING if state.why or state.known.faulty or not state.known.listed else logging.INFO
        log.log(level, "%s: %s", self._node, in_words(state), extra={"event": "policies"})

    async def _tell_cluster(self, state: State, now: float) -> None:
        if not state.why:
            self._amiss_since = None
        elif self._amiss_since is None:
            self._amiss_since = now
        elif now - self._amiss_since >= PATIENCE_SECONDS and state.known.policies:
            await self._events.say(NOT_ENFORCED, f"the kernel has not the rules of NetworkPolicies: {state.why}")
        for policy in state.known.faulty:
            if self._relevant(policy):
                about = ObjectReference(
                    kind="NetworkPolicy", api_version=API, namespace=policy.namespace, name=policy.name
                )
                await self._events.say(NOT_UNDERSTOOD, "; ".join(policy.faults), about=about)


def in_words(state: State) -> str:
    """A line."""
    known = state.known
    if not known.listed:
        return f"nothing was changed in the kernel's rules: {state.why or known.why}"
    policies = "no NetworkPolicies in the cluster"
    if known.policies:
        namespaces = _counted(known.namespaces, "namespace", "namespaces")
        policies = f"{_counted(known.policies, 'NetworkPolicy', 'NetworkPolicies')} in {namespaces}"
    here = f"{state.isolated} of {_counted(state.pods, 'pod', 'pods')} here isolated"
    told = f"{policies}, {'NOT in force: ' + state.why if state.why else 'in force'}, {here}"
    if known.faulty:
        first = known.faulty[0]
        count = _counted(len(known.faulty), "policy", "policies")
        told += f"; not all is understood of {count}, first {'/'.join(first.key)}: {first.faults[0]}"
    return f"{told} (as last heard; out of touch with the Kubernetes API: {known.why})" if known.why else told


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
