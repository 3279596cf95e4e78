"""What each call of the API comes to: who of the agent's parts answers it.

Law: this decides nothing but who is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tunrouter.agent.addressing import Addressing
from tunrouter.agent.attachments import Attachments
from tunrouter.agent.bench import Bench
from tunrouter.agent.cni import Cni
from tunrouter.agent.exposure import Exposure
from tunrouter.agent.pings import Pings
from tunrouter.agent.targets import Targets
from tunrouter.core.node import Node
from tunrouter.core.status import Snapshot
from tunrouter.edge import api


class Answers(NamedTuple):
    node: Node
    targets: Targets
    attachments: Attachments
    cni: Cni
    exposure: Exposure
    addresses: Addressing
    bench: Bench
    pings: Pings
    snapshot: Callable[[bool], Snapshot]
    """With or without what there is to tell of every other node."""
    left: Callable[[], None]
    """Is told that this node is of no cluster any more."""

    async def obey(self, call: api.Call) -> Any:
        match call:
            case api.StatusCall(cluster):
                return self.snapshot(cluster)
            case api.ConnectCall(peers, replace):
                await self.targets.connect(peers, replace=replace)
            case api.ForgetCall(peers):
                self.targets.forget(peers)
            case api.AttachCall():
                return await self.attachments.answer(call, self.node.local.pod_mtu)
            case api.CniCall():
                return await self.cni.answer(call)
            case api.BenchCall() | api.PingCall():
                return await (self.pings.ping(call) if isinstance(call, api.PingCall) else self.bench.ask(call.peer))
            case api.DetachCall():
                await self.attachments.detach(call)
            case api.ExposeCall(addresses):
                return api.Exposed(await self.exposure.expose(addresses))
            case api.HideCall(addresses):
                await self.exposure.hide(addresses)
            case api.LeaveCall(force):
                return await self._leave(force=force)
            case _:
                return await self.addresses.answer(call)
        return None

    async def _leave(self, *, force: bool) -> api.Left:
        allocator = self.node.allocator
        async with self.attachments.leaving():
            if force and (allocator.leases is not None or allocator.electors.others()):
                await self.attachments.detach_all()
                await self.exposure.hide(())
            left = await self.addresses.leave(force=force)
        self.left()
        return left
