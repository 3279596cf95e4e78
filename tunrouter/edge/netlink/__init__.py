"""This host's links, addresses and routes, by way of the kernel's routing socket.

Law: a name is imported when it is first asked for. Whoever asks for rule sets, flows or logged packets alone carries no
pyroute2, which is 11 MiB of a process's memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tunrouter.edge.netlink.inside import Inside
    from tunrouter.edge.netlink.links import Link
    from tunrouter.edge.netlink.netlink import PROTOCOL, Address, Netlink, Route
    from tunrouter.edge.netlink.pairs import Pair
    from tunrouter.edge.netlink.watch import Watch

__all__ = ["PROTOCOL", "Address", "Inside", "Link", "Netlink", "Pair", "Route", "Watch"]

_WHERE: Final = {
    "PROTOCOL": "netlink",
    "Address": "netlink",
    "Inside": "inside",
    "Link": "links",
    "Netlink": "netlink",
    "Pair": "pairs",
    "Route": "netlink",
    "Watch": "watch",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    return found
