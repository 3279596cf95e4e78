"""This host's links, addresses and routes, by way of the kernel's routing socket."""

from __future__ import annotations

from tunrouter.edge.netlink.links import Link
from tunrouter.edge.netlink.netlink import PROTOCOL, Netlink, Route
from tunrouter.edge.netlink.watch import Watch

__all__ = ["PROTOCOL", "Link", "Netlink", "Route", "Watch"]
