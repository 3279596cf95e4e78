"""Whether this node can give pods their network, and what is in the way if it cannot.

Law: one reason at a time, in the order in which they have to go away. That nobody says whether a pod's policies are in
force keeps pods away, and makes nothing of the network less ready: an agent that is ready puts its plugin and its
network back, and the container of the policies has a probe of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tunrouter.agent.attachments import Attachments
from tunrouter.agent.control import Control
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.underlay import Underlay
from tunrouter.core.states import STANDING
from tunrouter.edge.runtimes import Directories


class Readiness:
    def __init__(
        self, host: HostSide, underlay: Underlay, runtimes: Directories, policing: Callable[[], str] = lambda: ""
    ) -> None:
        """`policing`: why no pod's policies can be had, empty if they can."""
        self._policing = policing
        self._host = host
        self._underlay = underlay
        self._runtimes = runtimes
        self._control: Control | None = None
        self._attachments: Attachments | None = None

    def watch(self, control: Control, attachments: Attachments) -> None:
        """The node stands; until then nothing is ready."""
        self._control, self._attachments = control, attachments

    def unready(self) -> str:
        """Empty if there is nothing in the way."""
        if self._control is None:
            return self._underlay.trouble or "the agent is still starting"
        if self._control.stopped:
            return "the agent is stopping"
        return self._host.trouble or self._lack()

    def condition(self) -> str:
        """In a line: what the agent does, or what it waits for."""
        assert self._control is not None
        node = self._control.node
        standing = sum(session.state in STANDING for session in node.sessions.values())
        blocks = ", ".join(str(block) for block, _ in node.routes.own)
        return f"{self.hindrance() or f'pods of {blocks}'}; {standing} peers connected"

    def hindrance(self) -> str:
        """Why no pod could be added now; empty if one could."""
        return self._lack() or self._policing()

    def _lack(self) -> str:
        """What a pod's network lacks."""
        assert self._control is not None
        assert self._attachments is not None
        allocator = self._control.node.allocator
        if self._attachments.closed:
            return "this node is leaving its cluster"
        if foreign := self._runtimes.hindrance():
            return foreign
        if self._host.gateway is None:
            return f"this node has no block of addresses yet: {allocator.ipam.reason or 'it asks for one'}"
        if self._host.host is not None and self._host.host.full:
            return "this node has as many pods as a bridge has ports"
        if allocator.addresses.free(time.monotonic()):
            return ""
        why = allocator.ipam.reason or allocator.registry.hindrance or "all are held or rest"
        return f"no address is free: {why}"
