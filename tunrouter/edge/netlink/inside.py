"""A pod's own side: its interface up, its address, and its routes by way of the gateway.

Law: whoever makes an `Inside` is in the pod's namespace; its socket stays there, whoever uses it. What is asked is
there afterwards, and of addresses nothing else; other routes stay. What another interface of the pod reaches it goes on
reaching: our route to the same is a spare one.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final, NamedTuple

from tunrouter.edge.netlink import wire
from tunrouter.edge.netlink.faults import explained
from tunrouter.edge.netlink.links import ADDRESS, HEAD, IFF_UP, MTU, Link, Links
from tunrouter.edge.netlink.pairs import RTM_NEWLINK
from tunrouter.edge.netlink.wire import (
    CREATE,
    DUMP,
    REPLACE,
    Message,
    Wire,
    attribute,
    attributes,
    number,
    number_of,
)
from tunrouter.errors import HostError

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 20, 21, 22, 24, 26
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTPROT_STATIC, RTN_UNICAST = 0, 253, 4, 1
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255
RTNH_F_ONLINK: Final = 4
"""The gateway lies in no subnet of the pod, whose own is a /32."""
LOOPBACK: Final = 1
"""The index of `lo` in every namespace."""
SPARE_METRIC: Final = 1024
"""And the interface's index: of routes of a pod's second interface."""

_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")


class Way(NamedTuple):
    prefix: IPv4Network
    device: int
    """Its index; 0 where the route has none, or several."""


class Inside:
    """Raises OSError where there can be no socket."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._wire = Wire(socket.NETLINK_ROUTE)

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    # --- looking -----------------------------------------------------------------------------------------------------
    def link(self) -> Link | None:
        return Links(self._wire).one(self.interface)

    def addresses(self, index: int) -> list[IPv4Interface]:
        found = []
        with explained(f"cannot list the addresses of {self.interface}"):
            for body in self._wire.ask(RTM_GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0), DUMP):
                _, length, _, _, device = _ADDRESS.unpack_from(body)
                local = dict(attributes(body[_ADDRESS.size :])).get(IFA_LOCAL)
                if device == index and local is not None:
                    found.append(IPv4Interface((bytes(local), length)))
        return found

    def ways(self) -> list[Way]:
        """All IPv4 routes but the kernel's own local ones."""
        with explained(f"cannot list the routes behind {self.interface}"):
            bodies = self._wire.ask(RTM_GETROUTE, _ROUTE.pack(socket.AF_INET, *[0] * 8), DUMP)
        found = []
        for body in bodies:
            _, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
            there = dict(attributes(body[_ROUTE.size :]))
            if (number_of(there.get(RTA_TABLE)) or table) != RT_TABLE_LOCAL:
                prefix = IPv4Network((bytes(there.get(RTA_DST, bytes(4))), length))
                found.append(Way(prefix, number_of(there.get(RTA_OIF))))
        return found

    # --- setting up --------------------------------------------------------------------------------------------------
    def configure(self, address: IPv4Address, mac: str, mtu: int, gateway: IPv4Address,
                  routes: Collection[IPv4Network], network: IPv4Network) -> None:  # fmt: skip
        """`routes` lead over the gateway, and so does `network` where another interface has these already."""
        link = self.link()
        if link is None:
            raise HostError(f"{self.interface} is gone", "attach the container again")
        taken = {way.prefix for way in self.ways() if way.device != link.index}
        if network not in routes and not taken.isdisjoint(routes):
            routes = (*routes, network)
        own = IPv4Interface(address)
        others = [other for other in self.addresses(link.index) if other != own]
        with explained(f"cannot configure {self.interface}"):
            self._wire.tell(
                Message(RTM_NEWLINK, 0, HEAD.pack(0, 0, LOOPBACK, IFF_UP, IFF_UP)),
                Message(RTM_NEWLINK, 0, HEAD.pack(0, 0, link.index, IFF_UP, IFF_UP) + _differing(link, mac, mtu)),
                _address(RTM_NEWADDR, link.index, own),
                *(_address(RTM_DELADDR, link.index, other) for other in others),
                _route(link.index, IPv4Network(gateway), taken, source=address),
                *(_route(link.index, route, taken, gateway=gateway) for route in routes),
                but=(errno.EADDRNOTAVAIL,),  # one that went along with the one it was secondary to
            )


def _differing(link: Link, mac: str, mtu: int) -> bytes:
    """What is to be changed of it; setting what is set already would make its neighbours forget it."""
    changed = wire.mac(ADDRESS, mac) if link.mac != mac else b""
    return changed + (number(MTU, mtu) if link.mtu != mtu else b"")


def _address(kind: int, index: int, address: IPv4Interface) -> Message:
    head = _ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    local = attribute(IFA_LOCAL, address.ip.packed)
    if kind == RTM_DELADDR:
        return Message(kind, 0, head + local)  # whatever its peer is
    return Message(kind, CREATE | REPLACE, head + local + attribute(IFA_ADDRESS, address.ip.packed))


def _route(index: int, to: IPv4Network, taken: Collection[IPv4Network], *, gateway: IPv4Address | None = None,
           source: IPv4Address | None = None) -> Message:  # fmt: skip
    """To the gateway itself, or over it."""
    scope, flags = (RT_SCOPE_UNIVERSE, RTNH_F_ONLINK) if gateway else (RT_SCOPE_LINK, 0)
    length, end = to.prefixlen, (RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, flags)
    body = _ROUTE.pack(socket.AF_INET, length, 0, 0, *end) + number(RTA_OIF, index)
    if length:
        body += attribute(RTA_DST, to.network_address.packed)
    if gateway is not None:
        body += attribute(RTA_GATEWAY, gateway.packed)
    if source is not None:
        body += attribute(RTA_PREFSRC, source.packed)
    if to in taken:
        body += number(RTA_PRIORITY, SPARE_METRIC + index)
    return Message(RTM_NEWROUTE, CREATE | REPLACE, body)
