"""What the rest of the cluster sees of a node that can give pods their network: plugin, network file, condition.

    ready ──> missing CNI plugins, ours, and last the network file ──> the kubelet's Ready
          ──> NetworkUnavailable=False, with our reason ──> cloud taints go

Law: the network file says that pods may come, so it is written when an address can be given and not before, and stays
while the agent restarts: the plugin waits for it. The condition is patched when it is not as it should be, and never
just to renew it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tunrouter.cni.request import VERSIONS
from tunrouter.config import Config
from tunrouter.edge import runtimes
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.objects import NODES, Node
from tunrouter.edge.runtimes import Directories
from tunrouter.errors import ClusterError, HostError

CONDITION: Final = "NetworkUnavailable"
REASON: Final = "TunrouterIsUp"
MESSAGE: Final = "tunrouter gives the pods of this node their network"
AGAIN_SECONDS: Final = 10.0
"""Between two patches: what the first one did is seen by then."""
NETWORK: Final = "weave"
"""Name of the CNI network, as Weave Net called it."""
PLUGINS: Final = Path("/opt/tunrouter/cni")
"""Where the image has portmap, bandwidth and loopback."""
log = logging.getLogger("tunrouter.kubernetes")


class Presence:
    def __init__(self, config: Config, unready: Callable[[], str]) -> None:
        self._name = config.name
        self._where = Directories(Path(config.cni_bin_dir), Path(config.cni_conf_dir))
        self._keys = {
            "socket": str(config.socket),
            "notes": str(config.notes),
            "fix": f"see: kubectl get pods -n kube-system -l name=weave-net --field-selector spec.nodeName={config.name}",
        }
        self._unready = unready
        self.installed = False
        """Plugin and network file are in place; pods may have come since."""
        self._patched_at = -AGAIN_SECONDS
        self.trouble = ""
        """Why the host has not got its plugins; empty if it has, or is not to."""

    async def install(self) -> None:
        """Once, when pods may come; what fails is tried again at the next look."""
        if self.installed or self._unready():
            return
        try:
            brought = await asyncio.to_thread(self._install)
        except HostError as error:
            if str(error) != self.trouble:
                log.error("the CNI network could not be installed: %s", error)  # noqa: TRY400 (one line)
            self.trouble = str(error)
            return
        self.installed, self.trouble = True, ""
        with_others = f", with {', '.join(brought)}" if brought else ""
        log.info("the CNI network is installed as %s%s", self._where.conflist, with_others)

    def _install(self) -> list[str]:
        brought = runtimes.bring(self._where, PLUGINS)
        runtimes.install(self._where, NETWORK, self._keys, VERSIONS, exclusive=False)
        return brought

    async def tell(self, client: Client, own: Node | None) -> None:
        """The cluster: once, and again if somebody says something else of this node."""
        now = time.monotonic()
        if own is None or not self.installed or self._unready() or _is_told(own):
            return
        if now - self._patched_at < AGAIN_SECONDS:
            return
        self._patched_at = now
        try:
            await client.patch(NODES, self._name, _condition(), kind="strategic", subresource="status")
        except ClusterError as error:
            log.warning("the condition %s could not be set: %s", CONDITION, error)


def _is_told(own: Node) -> bool:
    return any(
        one.type == CONDITION and one.status == "False" and one.reason == REASON for one in own.status.conditions
    )


def _condition() -> dict[str, Any]:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": CONDITION, "status": "False", "reason": REASON, "message": MESSAGE,
        "lastTransitionTime": at, "lastHeartbeatTime": at,
    }  # fmt: skip
    return {"status": {"conditions": [condition]}}
