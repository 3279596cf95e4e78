"""The addresses that this host itself has, by rtnetlink (rtnetlink(7), RTM_GETADDR)."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from tunrouter.edge.netlink.wire import DUMP, Wire, attributes

RTM_GETADDR: Final = 22
IFA_ADDRESS, IFA_LOCAL = 1, 2
_MESSAGE: Final = struct.Struct("=BBBBI")


def own_addresses() -> frozenset[IPv4Address | IPv6Address]:
    """Of all devices."""
    with Wire(socket.NETLINK_ROUTE) as wire:
        answers = wire.ask(RTM_GETADDR, _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0), DUMP)
    found = set()
    for answer in answers:
        told = dict(attributes(answer[_MESSAGE.size :]))
        if packed := told.get(IFA_LOCAL) or told.get(IFA_ADDRESS):
            found.add(ip_address(bytes(packed)))
    return frozenset(found)
