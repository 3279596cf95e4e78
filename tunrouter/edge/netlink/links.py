"""Looking at network devices: rtnetlink's RTM_GETLINK, of which only what we use is read.

Law (rtnetlink(7), linux/if_link.h): a listing that the kernel says was interrupted by a change is asked for again. A
node has a device for each of its pods and looks at them all when one comes or goes; a library that makes an object of
every attribute takes ten times as long.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Final

import msgspec

from tunrouter.edge.netlink.wire import DUMP, Wire, attributes, number_of, text, text_of
from tunrouter.errors import HostError

RTM_GETLINK: Final = 18
IFF_UP: Final = 1
ADDRESS, NAME, MTU, MASTER, QUEUE, INFO, ALIAS = 1, 3, 4, 10, 13, 18, 20  # IFLA_*
KIND, PORT_KIND, PORT_DATA = 1, 4, 5  # IFLA_INFO_*
PORT_STATE, PORT_HAIRPIN, PORT_LEARNING, PORT_FLOOD, PORT_GROUPS, PORT_ISOLATED = 1, 4, 8, 9, 31, 33  # IFLA_BRPORT_*
BR_STATE_FORWARDING: Final = 3

HEAD: Final = struct.Struct("=BxHiII")
"""Of a message about a link: family, hardware, index, flags, which of them change (struct ifinfomsg)."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    name: str
    kind: str
    """`bridge`, `veth`, `tun`, …; empty for hardware."""
    mac: str
    mtu: int
    queue: int
    up: bool
    master: int
    """Index of the bridge this is a port of, or 0."""
    alias: str
    isolated: bool = False
    hairpin: bool = False
    learning: bool = False
    flooded: bool = False
    """With what is for nobody that is known."""
    groups: int = 0
    """Addresses 01:80:c2:00:00:0x, a bit each, whose frames the bridge takes for any others (group_fwd_mask)."""
    forwarding: bool = False
    """As a bridge's port: it takes part."""


class Links:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def one(self, name: str) -> Link | None:
        """None if there is no device of this name. Raises HostError."""
        try:
            found = self._wire.ask(RTM_GETLINK, HEAD.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + text(NAME, name))
        except OSError as error:
            if error.errno in {errno.ENODEV, errno.ERANGE, errno.EINVAL}:
                return None
            raise _cannot(f"cannot look at {name}", error) from None
        return _read(found[0]) if found else None

    def all(self) -> list[Link]:
        """Raises HostError."""
        try:
            return [_read(body) for body in self._wire.ask(RTM_GETLINK, HEAD.pack(0, 0, 0, 0, 0), DUMP)]
        except OSError as error:
            raise _cannot("cannot list the network devices", error) from None


def _read(body: bytes) -> Link:
    _, _, index, flags, _ = HEAD.unpack_from(body)
    found = dict(attributes(body[HEAD.size :]))
    info = dict(attributes(found.get(INFO, b"")))
    port = dict(attributes(info[PORT_DATA])) if text_of(info.get(PORT_KIND)) == "bridge" and PORT_DATA in info else {}
    return Link(
        index=index,
        name=text_of(found.get(NAME)),
        kind=text_of(info.get(KIND)),
        mac=bytes(found.get(ADDRESS, b"")).hex(":"),
        mtu=number_of(found.get(MTU)),
        queue=number_of(found.get(QUEUE)),
        up=bool(flags & IFF_UP),
        master=number_of(found.get(MASTER)),
        alias=text_of(found.get(ALIAS)),
        isolated=any(port.get(PORT_ISOLATED, b"")),
        hairpin=any(port.get(PORT_HAIRPIN, b"")),
        learning=any(port.get(PORT_LEARNING, b"")),
        flooded=any(port.get(PORT_FLOOD, b"")),
        groups=int.from_bytes(port.get(PORT_GROUPS, b""), sys.byteorder),
        forwarding=bytes(port.get(PORT_STATE, b"")) == bytes([BR_STATE_FORWARDING]),
    )


def _cannot(doing: str, error: OSError) -> HostError:
    return HostError(f"{doing}: {error.strerror or error}", "see dmesg, then try again")
