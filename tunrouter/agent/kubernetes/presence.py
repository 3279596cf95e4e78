"""What the rest of the cluster sees of a node that can give pods their network: plugin, network file, condition.

    ready ──> missing CNI plugins, ours, and last the network file ──> the kubelet's Ready
          ──> NetworkUnavailable=False, with our reason ──> cloud taints go

Law: the network file says that pods may come, so it is written when an address can be given and not before, and stays
while the agent restarts: the plugin waits for it. It is looked at each second and written again when somebody took it
away, unless this node cannot give pods their network, first of all because it is leaving. The condition is patched
when it is not as it should be, and never just to renew it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tunrouter.agent.kubernetes import NETWORK, kubectl
from tunrouter.cni.request import VERSIONS
from tunrouter.config import Config
from tunrouter.edge import runtimes
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.objects import NODES, Node
from tunrouter.edge.runtimes import Directories, Installed
from tunrouter.errors import HostError

CONDITION: Final = "NetworkUnavailable"
REASON: Final = "TunrouterIsUp"
MESSAGE: Final = "tunrouter gives the pods of this node their network"
AGAIN_SECONDS: Final = 10.0
"""Between two patches: what the first one did is seen by then."""
MENDED_SECONDS: Final = 60.0
"""Until a plugin that was left out of the chain is looked at again."""
PLUGINS: Final = Path("/opt/tunrouter/cni")
"""Where the image has portmap, bandwidth and loopback."""
log = logging.getLogger("tunrouter.kubernetes")


class Presence:
    def __init__(self, config: Config, unready: Callable[[], str], repaired: Callable[[str], None]) -> None:
        """`repaired` is told what somebody took away and is there again."""
        self._name = config.name
        self._where = Directories(Path(config.cni_bin_dir), Path(config.cni_conf_dir))
        shown = kubectl.shown(config.name)
        self._keys = {"socket": str(config.socket), "notes": str(config.notes), "fix": f"see: {shown}"}
        self._unready = unready
        self._repaired = repaired
        self._installed = self._noted = False
        self._mend_at = 0.0
        self._patched_at = -AGAIN_SECONDS
        self._restored = ""
        self.trouble = ""
        """Why the host has not got its plugins; empty if it has, or is not to."""
        self.left_out: tuple[str, ...] = ()
        """Plugins of this host that cannot be chained behind ours, each with why."""

    @property
    def installed(self) -> bool:
        """Pods may have come since."""
        return self._installed

    def takes_note(self) -> bool:
        """Once: whether pods may come from now on."""
        news, self._noted = self._installed and not self._noted, self._installed
        return news

    def takes_restored(self) -> str:
        """Once: what was written again, in a sentence."""
        news, self._restored = self._restored, ""
        return news

    async def look(self) -> None:
        """Whether pods may come, and the host has what they need; what fails is tried again at the next look."""
        if self._unready():
            return
        missing = self._where.missing() if self._installed else ""
        mends = bool(self.left_out) and time.monotonic() >= self._mend_at
        if self._installed and not missing and not mends:
            return
        try:
            brought, installed = await asyncio.to_thread(self._install)
        except HostError as error:
            if str(error) != self.trouble:
                log.error("the CNI network could not be installed: %s", error)  # noqa: TRY400 (one line)
            self.trouble = str(error)
            return
        self.trouble = ""
        self._note(installed)
        if missing:
            self._restored = f"{missing} was taken away and is there again; see who does it, or uninstall tunrouter"
            self._repaired(missing)
        elif not self._installed:
            with_others = f", with {', '.join(brought)}" if brought else ""
            log.info("the CNI network is installed as %s%s", self._where.conflist, with_others)
        self._installed = True

    def _install(self) -> tuple[list[str], Installed]:
        brought = runtimes.bring(self._where, PLUGINS)
        return brought, runtimes.install(self._where, NETWORK, self._keys, VERSIONS, exclusive=False, lenient=True)

    def _note(self, installed: Installed) -> None:
        self._mend_at = time.monotonic() + MENDED_SECONDS
        for what in installed.left_out:
            if what not in self.left_out:
                log.warning("%s", what)
        self.left_out = installed.left_out

    async def tell(self, client: Client, own: Node | None) -> None:
        """The cluster: once, and again if somebody says something else of this node. Raises ClusterError."""
        now = time.monotonic()
        if own is None or not self._installed or self._unready() or _is_told(own):
            return
        if now - self._patched_at < AGAIN_SECONDS:
            return
        await client.patch(NODES, self._name, _condition(), kind="strategic", subresource="status")
        self._patched_at = now


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
