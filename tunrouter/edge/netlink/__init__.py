"""This host's links, addresses and routes, by way of the kernel's routing socket."""

from __future__ import annotations

from tunrouter.edge.netlink.inside import Inside
from tunrouter.edge.netlink.links import Link
from tunrouter.edge.netlink.netlink import PROTOCOL, Address, Netlink, Route
from tunrouter.edge.netlink.pairs import Pair
from tunrouter.edge.netlink.watch import Watch

__all__ = ["PROTOCOL", "Address", "Inside", "Link", "Netlink", "Pair", "Route", "Watch"]
