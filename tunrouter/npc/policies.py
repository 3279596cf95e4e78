"""The cluster's NetworkPolicies as they are known here, and what that is worth.

Law: what was known once stays known while the API is away, and whoever asks is told so. Readiness is that the policies
were seen once, or that waiting is in vain: a restart does not help when the API is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.objects import NETWORK_POLICIES, NetworkPolicy
from tunrouter.edge.kube.reflector import Key, Reflector

AWAY_SECONDS: Final = 1.0
"""A watch that ends and begins again is no outage."""
IN_VAIN_SECONDS: Final = 10.0
"""Without a first list for so long, nobody waits for it any more."""


class Known(NamedTuple):
    """What is known at a moment."""

    policies: int
    namespaces: int
    """That have any."""
    listed: bool
    """Whether anything is known at all."""
    why: str
    """Why the API is out of touch; empty if it is not."""


class Policies:
    """Of the whole cluster. Is told of each change, and keeps nothing: the reflector has them."""

    def __init__(self, client: Client) -> None:
        self.reflector: Reflector[NetworkPolicy] = Reflector(client, NETWORK_POLICIES, self)

    def replaced(self, objects: Mapping[Key, NetworkPolicy], /) -> None: ...

    def changed(self, thing: NetworkPolicy, /) -> None: ...

    def gone(self, thing: NetworkPolicy, /) -> None: ...

    def known(self) -> Known:
        found = self.reflector.objects
        namespaces = {namespace for namespace, _ in found}
        why = self.reflector.why if self._away() >= AWAY_SECONDS else ""
        return Known(len(found), len(namespaces), self.reflector.synced, why)

    def unready(self) -> str:
        """Empty if this process is as ready as it gets."""
        if self.reflector.synced or self._away() >= IN_VAIN_SECONDS:
            return ""
        return f"the NetworkPolicies are not known: {self.reflector.why}"

    def _away(self) -> float:
        """For how many seconds."""
        since = self.reflector.out_of_touch_since
        return asyncio.get_running_loop().time() - since if since is not None else 0.0
