"""What the data plane and the kernel were told about inner packet sizes, and what has to be said when paths change.

Law: the kernel has a route with a smaller `mtu` for exactly the blocks that are routed to a peer whose path is too
small for what pods send; never for a block that a peer only announces, which may be another's or our own.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Network

from tunrouter.core import seam
from tunrouter.core.outbox import KernelMtu, Outbox
from tunrouter.core.routes import Routes
from tunrouter.core.session import Session


class Mtus:
    def __init__(self, routes: Routes, pod_mtu: int, outbox: Outbox) -> None:
        self._routes = routes
        self._pod_mtu = pod_mtu
        self._out = outbox
        self._inner: dict[int, int] = {}
        self._kernel: dict[int, dict[IPv4Network, int]] = {}

    def publish(self, sessions: Collection[Session]) -> None:
        """Says what changed for these; what a block's old owner had goes before what its new one needs."""
        wanted = {session.node: self._wanted(session) for session in sessions}
        for node, mtus in wanted.items():
            self._withdraw(self._kernel.get(node, {}).keys() - mtus.keys())
        for node, mtus in wanted.items():
            known = self._kernel.get(node, {})
            for block, mtu in mtus.items():
                if known.get(block) != mtu:
                    self._out.put(KernelMtu(block, mtu))
            self._kernel[node] = mtus
        for session in sessions:
            self._publish_inner(session)

    def forget(self, node: int) -> None:
        self._withdraw(self._kernel.pop(node, {}).keys())
        self._inner.pop(node, None)

    def _withdraw(self, blocks: Collection[IPv4Network]) -> None:
        for block in blocks:
            self._out.put(KernelMtu(block, None))

    def _wanted(self, session: Session) -> dict[IPv4Network, int]:
        """For a peer that is away, what stands stays."""
        blocks = self._routes.routed(session.node)
        if session.current is None:
            known = self._kernel.get(session.node, {})
            return {block: known[block] for block in blocks if block in known}
        inner = session.inner_mtu
        return dict.fromkeys(blocks, inner) if inner < self._pod_mtu else {}

    def _publish_inner(self, session: Session) -> None:
        before, inner = self._inner.get(session.node, 0), session.inner_mtu
        if session.current is None or before == inner:
            return
        self._inner[session.node] = inner
        self._out.put(seam.PathMtu(session.node, inner))
        if before:
            text = f"{session}: inner path MTU is now {inner}"
            self._out.log("warning", f"path-mtu {session.node} {inner}", text, peer=session.node)
