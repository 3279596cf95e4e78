"""Other networks in our place: devices with addresses of our range, and ports of our bridge that we did not make.

Law: mostly they are what an older set-up left behind, so each is named with who probably made it and what takes it
away; nothing of them is ever touched. A look costs one list of addresses; only when that shows another address of the
range than before are the devices looked at.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from tunrouter.edge.netlink import Link, Netlink
from tunrouter.errors import HostError
from tunrouter.host import switches
from tunrouter.host.pods import from_link
from tunrouter.host.ruleset import PORT_PREFIX

WEAVE_NET: Final = "Weave Net"
EARLIER: Final = "an earlier tunrouter"
MAKERS: Final = (
    ("cni0", "the bridge of another CNI plugin"),
    ("cbr0", "kubenet's bridge"),
    ("flannel*", "flannel"),
    ("docker0", "Docker's bridge"),
    ("docker_gwbridge", "Docker's bridge"),
    ("br-" + 12 * "[0-9a-f]", "the bridge of a Docker network"),
    ("podman*", "podman's bridge"),
    ("cni-podman*", "podman's bridge"),
    ("weave", WEAVE_NET),
    ("vethwe*", WEAVE_NET),
    ("datapath", WEAVE_NET),
    ("vxlan-6784", WEAVE_NET),
    ("cali*", "Calico"),
    ("vxlan.calico", "Calico"),
    ("tunl0", "Calico"),
    ("cilium_*", "Cilium"),
    ("kube-bridge", "kube-router's bridge"),
    ("virbr*", "libvirt's bridge"),
    ("lxcbr*", "LXC's bridge"),
    ("lxdbr*", "LXD's bridge"),
)
"""By the device's name, the first that fits."""
DISPOSABLE: Final = frozenset({"bridge", "dummy", "geneve", "tun", "vxlan", "wireguard"})
"""Kinds of devices that networks of containers are made of; hosts have their own addresses on others."""
WITH_ENDS: Final = frozenset({"veth", "ipip", "gre", "sit"})
UNDELETABLE: Final = frozenset({"tunl0", "gre0", "sit0"})
"""The kernel made them with their modules."""
SHOWN: Final = 3


class Stranger(NamedTuple):
    device: str
    address: ipaddress.IPv4Interface
    maker: str
    """Empty where nobody can tell."""
    removal: str
    """The command; empty where the address may be the host's own."""

    def __str__(self) -> str:
        return f"{self.device} has {self.address}{probably(self.maker)}"


class Strangers:
    """As of the last look."""

    def __init__(self, netlink: Netlink, network: ipaddress.IPv4Network, bridge: str, tun: str) -> None:
        self.found: tuple[Stranger, ...] = ()
        self.ports: tuple[str, ...] = ()
        """Of our bridge, set by who looks at its ports."""
        self._netlink = netlink
        self._network = network
        self._own = (bridge, tun)
        self._before: Counter[ipaddress.IPv4Interface] = Counter()

    def look(self, own: Iterable[ipaddress.IPv4Interface]) -> None:
        """`own` are the addresses that our bridge and TUN have."""
        foreign = Counter(address for address in self._netlink.addresses() if address.ip in self._network)
        foreign -= Counter(own)
        if foreign != self._before:
            self.found = tuple(self._whose(foreign))
            self._before = foreign

    def _whose(self, foreign: Counter[ipaddress.IPv4Interface]) -> Iterator[Stranger]:
        """Ports come last: there may be many, and they hardly ever have addresses."""
        left = +foreign
        links = [link for link in self._netlink.links() if link.name not in self._own and from_link(link) is None]
        uplinks = self._netlink.uplinks()
        for link in sorted(links, key=lambda link: link.master != 0) if left else ():
            with suppress(HostError):  # gone by now
                for address in self._netlink.addresses(link.name):
                    if address in left:
                        left -= Counter([address])
                        command = "" if link.name in uplinks else removal(link, address)
                        yield Stranger(link.name, address, maker(link), command)
            if not left:
                return

    def complaints(self) -> tuple[str, ...]:
        """Each in one line, with what to do."""
        bridge, _ = self._own
        named = [f"{one}, in our range {self._network}: {_fix(one.removal)}" for one in self.found]
        return (*named, *(f"{port} is a port of {bridge}, but not ours{_of_port(port)}" for port in self.ports))


def foreign_ports(ports: Iterable[Link]) -> tuple[str, ...]:
    """Those of a bridge that we did not make."""
    return tuple(port.name for port in ports if not port.name.startswith(PORT_PREFIX) or from_link(port) is None)


def maker(link: Link) -> str:
    if link.alias.startswith(switches.MARK) or (link.kind == "tun" and link.name.startswith("tunrouter")):
        return EARLIER
    return maker_of(link.name)


def maker_of(name: str) -> str:
    return next((who for pattern, who in MAKERS if fnmatchcase(name, pattern)), "")


def probably(who: str) -> str:
    return f" (probably {who})" if who else ""


def removal(link: Link, address: ipaddress.IPv4Interface | None = None) -> str:
    """Of the device, or where that cannot be, of its address; what may be an uplink is left out."""
    if link.kind == "openvswitch":
        return f"ovs-dpctl del-dp {link.name}"
    if link.name not in UNDELETABLE and (link.kind in DISPOSABLE or maker_of(link.name)):
        return f"ip link del {link.name}"
    return f"ip addr del {address} dev {link.name}" if address and link.kind in WITH_ENDS else ""


def _fix(command: str) -> str:
    return f"if nothing uses it, {command}" if command else "choose another --range on every node"


def _of_port(name: str) -> str:
    who = maker_of(name)
    return f"{probably(who)}: if nothing uses it, {'ip link del ' + name if who else f'ip link set {name} nomaster'}"
