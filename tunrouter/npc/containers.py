"""The containers of this node, as the agent tells them: before the cluster knows their addresses, and until they go.

Law: the agent's list is the truth about this node. A container is reported to be in force only when the kernel has the
rules of its own pod's policies, or of a namespace without any.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Final

from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import Address, Placed
from tunrouter.edge.api.policing import Container, ContainersCall, EnforceCall
from tunrouter.errors import AgentError
from tunrouter.npc.enforcement import Enforcement

UNTOLD_SECONDS: Final = 10.0
"""So long the first rule set waits for the agent's list; without it this node's pods are those that the API tells."""
MOST_SECONDS: Final = 60.0


class Containers:
    def __init__(self, compiler: Compiler, enforcement: Enforcement) -> None:
        self._compiler = compiler
        self._enforcement = enforcement
        self._told: dict[Address, Placed] | None = None
        self._asked: dict[Address, Placed] = {}
        """Which somebody waits for."""
        self._since = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(UNTOLD_SECONDS, enforcement.changed)

    def awaited(self) -> str:
        """Empty if nothing is, any more."""
        if self._told is not None or asyncio.get_running_loop().time() - self._since >= UNTOLD_SECONDS:
            return ""
        return "the agent has not told its containers"

    def tell(self, call: ContainersCall) -> None:
        told = {one.address: one for one in map(_placed, call.containers)}
        if told != self._told:
            self._told = told
            self._place()

    async def enforce(self, call: EnforceCall) -> None:
        """Returns when it is in force; raises AgentError with what is waited for."""
        one = _placed(call.container)
        self._asked[one.address] = one
        ticket = self._place()
        try:
            async with asyncio.timeout(min(call.seconds, MOST_SECONDS)):
                await self._enforcement.wait(ticket, lambda: self._is_known(one))
                # It may have become known while something else was written.
                await self._enforcement.wait(self._enforcement.asked, lambda: self._is_known(one))
            if self._told is not None and self._asked.get(one.address) is one:
                self._told[one.address] = one
        except TimeoutError:
            why = self._enforcement.why or self._unknown(one) or "its rules are not written yet"
            raise AgentError(f"the policies of the pod are not in force: {why}", "see the log of weave-npc") from None
        finally:
            self._forget(one)

    def _forget(self, one: Placed) -> None:
        """Nobody waits for it any more; in vain, so it is no container of this node unless the agent tells it."""
        if self._asked.get(one.address) is one:
            del self._asked[one.address]
            if self._told is not None and self._told.get(one.address) is not one:
                self._place()

    def _place(self) -> int:
        """Not before all are told: those that were not would be closed."""
        if self._told is not None:
            self._compiler.place((self._told | self._asked).values())
        return self._enforcement.changed()

    def _is_known(self, one: Placed) -> bool:
        return self._told is not None and not self._unknown(one)

    def _unknown(self, one: Placed) -> str:
        """Why nobody can say which policies are about it."""
        if one.pod is None or self._compiler.memory.owner(one.address) is not None:
            return ""
        if one.pod not in self._compiler.memory.pods and self._compiler.is_free(one.pod[0]):
            return ""  # without policies in its namespace it does not matter what it is
        return f"the pod {'/'.join(one.pod)} is not known to the Kubernetes API as this one (yet)"


def _placed(container: Container) -> Placed:
    try:
        address = ip_address(container.address.partition("/")[0])
    except ValueError as error:
        raise AgentError(f"container {container.name}: {error}", "report this") from None
    pod = (container.namespace, container.pod) if container.namespace and container.pod else None
    return Placed(address, pod, container.uid, policed=container.cni)
