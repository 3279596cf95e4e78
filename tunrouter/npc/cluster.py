"""The cluster's pods, namespaces and policies as they are known here, and what that is worth.

    the API ──> three reflectors ──> translated ──> Compiler

Law: what was known once stays known while the API is away, and whoever asks is told so. Nothing is enforced before all
three kinds were seen once: half of what is known would be another policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import Policy
from tunrouter.edge.kube import objects
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.objects import NAMESPACES, NETWORK_POLICIES, PODS
from tunrouter.edge.kube.reflector import Key, Reflector
from tunrouter.npc import translation

AWAY_SECONDS: Final = 1.0
"""A watch that ends and begins again is no outage."""
IN_VAIN_SECONDS: Final = 10.0
"""Without a first list for so long, nobody waits for it any more."""


class Known(NamedTuple):
    """What is known at a moment."""

    pods: int
    policies: int
    namespaces: int
    """That have any policies."""
    faulty: tuple[Policy, ...]
    """Policies of which not all is understood."""
    listed: bool
    """Whether all was seen once."""
    why: str
    """Why the API is out of touch; empty if it is not."""


class Cluster:
    """`changed` is called after each change, `ended` with a policy that is gone."""

    def __init__(self, client: Client, node: str, changed: Callable[[], object]) -> None:
        self.compiler = Compiler(node)
        self._changed = changed
        self.pods = Reflector(client, PODS, _Told(self._put_pod, self._drop_pod, changed))
        # What a server lags behind of these would open something again; they are few enough to be asked of the store.
        self.namespaces = Reflector(
            client, NAMESPACES, _Told(self._put_namespace, self._drop_namespace, changed), newest=True
        )
        self.policies = Reflector(
            client, NETWORK_POLICIES, _Told(self._put_policy, self._drop_policy, changed), newest=True
        )
        self.reflectors: tuple[Reflector[Any], ...] = (self.pods, self.namespaces, self.policies)

    # --- what is told ------------------------------------------------------------------------------------------------
    def _put_pod(self, found: objects.Pod) -> None:
        if self.compiler.put_pod(translation.pod(found)):
            self._changed()

    def _drop_pod(self, gone: objects.Pod) -> None:
        self.compiler.drop_pod((gone.metadata.namespace, gone.metadata.name))
        self._changed()

    def _put_namespace(self, found: objects.Namespace) -> None:
        if self.compiler.put_namespace(found.metadata.name, found.metadata.labels):
            self._changed()

    def _drop_namespace(self, gone: objects.Namespace) -> None:
        self.compiler.drop_namespace(gone.metadata.name)
        self._changed()

    def _put_policy(self, found: objects.NetworkPolicy) -> None:
        if self.compiler.put_policy(translation.policy(found)):
            self._changed()

    def _drop_policy(self, gone: objects.NetworkPolicy) -> None:
        self.compiler.drop_policy((gone.metadata.namespace, gone.metadata.name))
        self._changed()

    # --- what that is worth ------------------------------------------------------------------------------------------
    @property
    def listed(self) -> bool:
        return all(reflector.synced for reflector in self.reflectors)

    def known(self) -> Known:
        policies = self.compiler.policies
        faulty = tuple(policy for _, policy in sorted(policies.items()) if policy.faults)
        namespaces = {namespace for namespace, _ in policies}
        pods = len(self.compiler.memory.pods)
        return Known(pods, len(policies), len(namespaces), faulty, self.listed, self.out_of_touch())

    def out_of_touch(self) -> str:
        """Why; empty if it is not."""
        return next((one.why for one in self.reflectors if one.why and _away(one) >= AWAY_SECONDS), "")

    def awaited(self) -> str:
        """What is still waited for before anything can be enforced; empty if nothing is."""
        missing = next((one for one in self.reflectors if not one.synced), None)
        return f"the cluster's {missing.resource.plural} are not known: {missing.why}" if missing is not None else ""

    def in_vain(self) -> bool:
        """Nobody waits any longer: a restart does not help when the API is away."""
        return any(not one.synced and _away(one) >= IN_VAIN_SECONDS for one in self.reflectors)


class _Told:
    """A reflector's listener."""

    def __init__(self, put: Callable[[Any], None], drop: Callable[[Any], None], listed: Callable[[], object]) -> None:
        self._put = put
        self._drop = drop
        self._listed = listed

    def replaced(self, objects: Mapping[Key, Any], /) -> None:
        for one in objects.values():
            self._put(one)
        self._listed()  # also where there is none

    def changed(self, thing: Any, /) -> None:
        self._put(thing)

    def gone(self, thing: Any, /) -> None:
        self._drop(thing)


def _away(reflector: Reflector[Any]) -> float:
    """For how many seconds."""
    since = reflector.out_of_touch_since
    return asyncio.get_running_loop().time() - since if since is not None else 0.0
