"""Which of our routes there should be, and the exceptions for destinations whose path carries less.

Law: one route for the whole range, however many nodes; a smaller MTU is a route of its own, never in the place of one
that we live by.
"""

from __future__ import annotations

import ipaddress

from tunrouter.edge.netlink import PROTOCOL, Netlink, Route
from tunrouter.errors import HostError
from tunrouter.host.blocks import Blocks
from tunrouter.host.plan import LEAST_METRIC, HostPlan


class Ways:
    def __init__(self, plan: HostPlan, netlink: Netlink) -> None:
        self.blocks = Blocks()
        """This node's, set by its owner."""
        self._plan = plan
        self._netlink = netlink
        self._paths: dict[ipaddress.IPv4Network, int] = {}

    def own(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self._paths = {prefix: mtu for prefix, mtu in self._paths.items() if not blocks.overlapping(prefix)}

    def ensure(self) -> list[str]:
        """Ours are there, and no others of ours; answers with what had to be changed."""
        known, wanted = self._netlink.routes(), self._wanted()
        done = []
        for route in known:
            stale = route.protocol == PROTOCOL and not any(_same_place(route, other) for other in wanted)
            if stale and self._netlink.delete_route(route):
                done.append(f"removed route {route}")
        return done + [f"route {route}" for route in wanted if self._netlink.ensure_route(route, known)]

    def _wanted(self) -> list[Route]:
        plan, source = self._plan, str(self.blocks.gateway or "")
        # While the TUN is away nothing of the range may leave in plaintext by the default route.
        routes = [Route(prefix=plan.range, device="", kind="unreachable", metric=LEAST_METRIC)]
        routes += [Route(prefix=block, device=plan.bridge, source=source) for block in self.blocks.all]
        if self._netlink.link(plan.tun) is not None:
            if plan.range not in self.blocks.all:  # else there is nobody at the other end
                routes.append(Route(prefix=plan.range, device=plan.tun, source=source))
            routes += [Route(prefix=p, device=plan.tun, source=source, mtu=mtu) for p, mtu in self._paths.items()]
        return routes

    def set_path_mtu(self, prefix: ipaddress.IPv4Network, mtu: int | None) -> HostError | None:
        """Before the next `ensure`; None, or as much as the TUN takes, removes the exception. Why it could not be."""
        if mtu is None or mtu >= self._plan.mtu:
            self._paths.pop(prefix, None)
        elif reason := self._no_path(prefix):
            return HostError(f"path MTU for {prefix}, which {reason}", "give every node its own --block")
        else:
            self._paths[prefix] = mtu
        return None

    def _no_path(self, prefix: ipaddress.IPv4Network) -> str:
        """Why `prefix` can have no route of its own: `replace` would put it in the place of a route that we live by."""
        if prefix == self._plan.range or not prefix.subnet_of(self._plan.range):
            return f"is no part of the range {self._plan.range}"
        own = self.blocks.overlapping(prefix)
        return f"overlaps this node's own block {own}" if own else ""


def _same_place(route: Route, other: Route) -> bool:
    return (route.prefix, route.metric, route.table, route.kind) == (
        other.prefix,
        other.metric,
        other.table,
        other.kind,
    )
