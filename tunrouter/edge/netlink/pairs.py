"""Pods' device pairs: a port of the bridge here, and the pod's interface, born in its namespace.

Law (linux/if_link.h, linux/if_bridge.h): a port has one neighbour, whose MAC is written down for it: it learns nothing,
nothing unknown is flooded to it, and all of its frames meet the rules. A new one is up when it is what it shall be,
never before. Pods wait for this, so it is few messages, many at a time, and a pair is gone with its port.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Collection
from typing import Final, NamedTuple

from tunrouter.edge.netlink.faults import explained
from tunrouter.edge.netlink.links import (
    ADDRESS,
    ALIAS,
    HEAD,
    IFF_UP,
    INFO,
    KIND,
    MASTER,
    MTU,
    NAME,
    PORT_DATA,
    PORT_FLOOD,
    PORT_GROUPS,
    PORT_HAIRPIN,
    PORT_ISOLATED,
    PORT_KIND,
    PORT_LEARNING,
    Link,
    Links,
)
from tunrouter.edge.netlink.wire import (
    APPEND,
    CREATE,
    DUMP,
    EXCLUSIVE,
    Message,
    Wire,
    attribute,
    attributes,
    flag,
    mac,
    nested,
    number,
    text,
)
from tunrouter.errors import HostError

RTM_NEWLINK, RTM_DELLINK, RTM_NEWNEIGH, RTM_GETNEIGH = 16, 17, 28, 30
GROUP, NETNS, INFO_DATA, PEER = 27, 28, 2, 1  # IFLA_GROUP, IFLA_NET_NS_FD, IFLA_INFO_DATA, VETH_INFO_PEER
NEIGHBOUR_MAC: Final = 2  # NDA_LLADDR
NUD_STATIC: Final = 0x40  # NUD_NOARP; a permanent entry would be an address of the bridge itself
NTF_MASTER: Final = 0x04  # the bridge's own table, not the port's address filter
ALL_GROUPS: Final = 0xFFFD
"""Else frames to the nearest bridge (LLDP's, STP's) come to this host past all rules. PAUSE goes nowhere anyway."""
GROUP_OF_THE_DOOMED: Final = number(GROUP, 0x7475_6E72)
"""Ports that are deleted together; nobody else's are in it."""
TOGETHER: Final = 32

_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")


class Pair(NamedTuple):
    port: str
    alias: str
    interface: str
    port_mac: str
    mac: str
    mtu: int


class Pairs:
    def __init__(self, wire: Wire, links: Links) -> None:
        self._wire = wire
        self._links = links

    def make(self, pair: Pair, netns: int) -> None:
        """The port here, the interface in the namespace of descriptor `netns`; both are down."""
        peer = text(NAME, pair.interface) + number(NETNS, netns) + mac(ADDRESS, pair.mac) + number(MTU, pair.mtu)
        data = nested(INFO_DATA, nested(PEER, HEAD.pack(0, 0, 0, 0, 0), peer))
        port = text(NAME, pair.port) + mac(ADDRESS, pair.port_mac) + number(MTU, pair.mtu)
        body = HEAD.pack(0, 0, 0, 0, 0) + port + nested(INFO, text(KIND, "veth"), data)
        with explained(f"cannot make the device pair {pair.port} and {pair.interface}"):
            self._wire.tell(Message(RTM_NEWLINK, CREATE | EXCLUSIVE, body))
        self.name(pair.port, pair.alias)

    def name(self, device: str, alias: str) -> None:
        body = HEAD.pack(0, 0, 0, 0, 0) + text(NAME, device) + attribute(ALIAS, alias.encode())
        with explained(f"cannot set the alias of {device}"):
            self._wire.tell(Message(RTM_NEWLINK, 0, body))

    def join(self, port: str, bridge: str, neighbour_mac: str, *, isolated: bool) -> None:
        """Makes `port` a port that has one neighbour."""
        index = self._index(port, "attach the container again")
        master = self._index(bridge, "restart the agent, which makes it")
        neighbour = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, NUD_STATIC, NTF_MASTER, 0)
        with explained(f"cannot make {port} a port of {bridge}"):
            self._wire.tell(
                Message(RTM_NEWLINK, 0, HEAD.pack(0, 0, index, 0, 0) + number(MASTER, master)),
                Message(RTM_NEWLINK, 0, HEAD.pack(0, 0, index, 0, 0) + _as_port(isolated=isolated)),
                Message(RTM_NEWNEIGH, CREATE | APPEND, neighbour + mac(NEIGHBOUR_MAC, neighbour_mac)),
                Message(RTM_NEWLINK, 0, HEAD.pack(0, 0, index, IFF_UP, IFF_UP)),
            )

    def ensure_mode(self, port: Link, *, isolated: bool) -> bool:
        """Isolated without hairpin, or neither isolated nor without; True if it had to be changed."""
        quiet = not (port.learning or port.flooded) and port.groups == ALL_GROUPS
        if port.isolated == isolated and port.hairpin != isolated and quiet and port.up:
            return False
        with explained(f"cannot change the mode of port {port.name}"):
            head = HEAD.pack(0, 0, port.index, IFF_UP, IFF_UP)
            self._wire.tell(Message(RTM_NEWLINK, 0, head + _as_port(isolated=isolated)))
        return True

    def neighbours(self, bridge: int) -> set[tuple[int, bytes]]:
        """Those that are written down for the ports of a bridge: the port's index and the neighbour's MAC."""
        with explained("cannot list the neighbours of the bridge's ports"):
            bodies = self._wire.ask(
                RTM_GETNEIGH, HEAD.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + number(MASTER, bridge), DUMP
            )
        found = set()
        for body in bodies:
            _, index, _, _, _ = _NEIGHBOUR.unpack_from(body)
            found.add((index, bytes(dict(attributes(body[_NEIGHBOUR.size :])).get(NEIGHBOUR_MAC, b""))))
        return found

    def delete(self, links: Collection[Link]) -> None:
        """None of them is there any more. The kernel waits once for whoever looks at them, not once for each."""
        them = sorted({link.index for link in links})
        with explained(f"cannot remove {', '.join(sorted(link.name for link in links))}"):
            if len(them) == 1:
                self._wire.tell(Message(RTM_DELLINK, 0, HEAD.pack(0, 0, them[0], 0, 0)), but=(errno.ENODEV,))
                return
            for first in range(0, len(them), TOGETHER):
                doom = (HEAD.pack(0, 0, index, 0, 0) + GROUP_OF_THE_DOOMED for index in them[first : first + TOGETHER])
                self._delete_group(*(Message(RTM_NEWLINK, 0, body) for body in doom))

    def delete_doomed(self) -> None:
        """What an agent that died meant to delete."""
        with explained("cannot remove what was to be removed"):
            self._delete_group()

    def _delete_group(self, *doomed: Message) -> None:
        """In one piece, which a killed agent leaves whole."""
        last = Message(RTM_DELLINK, 0, HEAD.pack(0, 0, 0, 0, 0) + GROUP_OF_THE_DOOMED)
        self._wire.tell(*doomed, last, but=(errno.ENODEV,))

    def _index(self, device: str, fix: str) -> int:
        found = self._links.one(device)
        if found is None:
            raise HostError(f"there is no network device {device}", fix)
        return found.index


def _as_port(*, isolated: bool) -> bytes:
    mode = flag(PORT_ISOLATED, on=isolated) + flag(PORT_HAIRPIN, on=not isolated)
    quiet = flag(PORT_LEARNING, on=False) + flag(PORT_FLOOD, on=False)
    groups = attribute(PORT_GROUPS, ALL_GROUPS.to_bytes(2, sys.byteorder))
    return nested(INFO, text(PORT_KIND, "bridge"), nested(PORT_DATA, mode, quiet, groups))
