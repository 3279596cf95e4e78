"""Joining network namespaces to the bridge, and leaving it again.

Law: the kernel is the only record. A port's alias says whose it is and by which gateway it reaches the world, so a
restarted agent knows its pods, and a namespace that vanished took its port with it. Either a pod is attached whole or
nothing of it is left.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from tunrouter.edge import netns, sysctl
from tunrouter.edge.netlink import Inside, Link, Netlink, Pair
from tunrouter.edge.netns import Namespace
from tunrouter.errors import ConfigError, HostError
from tunrouter.host.blocks import Blocks, first_usable, is_usable
from tunrouter.host.plan import HostPlan, check_device_name, mac_of, port_mac_of
from tunrouter.host.ruleset import PORT_PREFIX

ALIAS: Final = "tunrouter"
EVERYTHING: Final = (ipaddress.IPv4Network("0.0.0.0/0"),)
"""Routes of a pod that has a default route."""
PORT_DIGITS: Final = 9
MAX_NAME: Final = 129
"""Characters of a pod's name; the kernel's alias has 255 bytes for everything."""


_PORT_NAME: Final = re.compile(f"{PORT_PREFIX}[0-9a-f]{{{PORT_DIGITS}}}")


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    port: str
    name: str
    address: ipaddress.IPv4Address
    interface: str
    mtu: int
    gateway: ipaddress.IPv4Address | None = None
    """What it was configured with; None: by a version that did not write it down."""

    @property
    def alias(self) -> str:
        way = f" via {self.gateway}" if self.gateway else ""
        return f"{ALIAS} {self.address}{way} {self.mtu} {self.interface} {self.name}"


class Wanted(NamedTuple):
    """A pod as it shall be."""

    namespace: Namespace
    name: str
    address: ipaddress.IPv4Address
    interface: str
    mtu: int
    routes: Sequence[ipaddress.IPv4Network] = EVERYTHING
    """What it reaches by way of the gateway."""


class Unwanted(NamedTuple):
    path: str
    """Of its namespace; where that is gone, or empty, its name is all there is to go by."""
    name: str
    interface: str


def attached(netlink: Netlink) -> dict[str, Attached]:
    """What is attached, by port; also ports that lost their bridge."""
    return among(netlink.links())


def among(links: Iterable[Link]) -> dict[str, Attached]:
    found = (from_link(link) for link in links if link.name.startswith(PORT_PREFIX))
    return {pod.port: pod for pod in found if pod is not None}


def from_link(link: Link) -> Attached | None:
    gateway = None
    try:
        mark, address, rest = link.alias.split(" ", 2)
        if mark != ALIAS:
            return None
        if rest.startswith("via "):
            _, way, rest = rest.split(" ", 2)
            gateway = ipaddress.IPv4Address(way)
        mtu, interface, name = rest.split(" ", 2)
        return Attached(
            port=link.name,
            name=name,
            address=ipaddress.IPv4Address(address),
            interface=interface,
            mtu=int(mtu),
            gateway=gateway,
        )
    except ValueError:
        return None


def is_half_made(link: Link) -> bool:
    """A port of ours before it was named. Weave Net's, which have no names either, have other letters in theirs."""
    return link.kind == "veth" and not link.alias and not link.master and _PORT_NAME.fullmatch(link.name) is not None


def adopt(netlink: Netlink, bridge: str) -> None:
    """Pods of a version that did not write their gateway down: it is the bridge's address in whose network they are."""
    orphans = [pod for pod in attached(netlink).values() if pod.gateway is None]
    if not orphans or netlink.link(bridge) is None:
        return
    for pod in orphans:
        for there in netlink.addresses(bridge):
            if pod.address in there.network:
                netlink.pairs.name(pod.port, msgspec.structs.replace(pod, gateway=there.ip).alias)


def port_name(namespace: Namespace, interface: str) -> str:
    digest = hashlib.blake2b(f"{namespace.inode} {interface}".encode(), digest_size=5)
    return PORT_PREFIX + digest.hexdigest()[:PORT_DIGITS]


def check(blocks: Blocks, pod: Attached, others: dict[str, Attached]) -> None:
    check_device_name(pod.interface)
    if not pod.name.isprintable() or not 0 < len(pod.name) <= MAX_NAME or len(pod.alias.encode()) > 255:
        raise ConfigError(f"{pod.name!r} is no name for a pod", f"use at most {MAX_NAME} printable characters")
    if not blocks.all:
        raise HostError("this node has no block of addresses", "wait until it has one: see tunrouter status")
    block = blocks.of(pod.address)
    if block is None or not is_usable(pod.address, block):
        fix = f"choose one from {blocks} other than {first_usable(block or blocks.all[0])}"
        raise ConfigError(f"address {pod.address} cannot be a pod's on this node", fix)
    if not 68 <= pod.mtu <= 65535:
        raise ConfigError(f"MTU {pod.mtu} is out of bounds", "leave it out")
    for other in others.values():
        if other.address == pod.address and other.port != pod.port:
            raise ConfigError(f"address {pod.address} is held by {other.name}", "detach it first, or choose another")


def connect(
    netlink: Netlink,
    plan: HostPlan,
    pod: Attached,
    namespace: Namespace,
    routes: Sequence[ipaddress.IPv4Network],
    *,
    isolated: bool,
    until: float,
) -> None:
    """Brings the pair to what `pod` says, by the monotonic time `until`; a half-made one is taken away again."""
    link = netlink.link(pod.port)
    there = link is not None and link.alias == pod.alias
    try:
        if link is not None and link.alias != pod.alias:
            netlink.delete_link(pod.port)
            link = None
        if link is None:
            macs = port_mac_of(pod.address), mac_of(pod.address)
            netlink.pairs.make(Pair(pod.port, pod.alias, pod.interface, *macs, pod.mtu), namespace.descriptor)
        join(netlink, plan, pod, isolated=isolated)
        assert pod.gateway is not None  # who has a block has a gateway
        with netns.within(namespace, lambda: _enter(pod)) as inside:
            inside.configure(pod.address, mac_of(pod.address), pod.mtu, pod.gateway, routes, plan.range)
        _await_bridge(netlink, pod.port, until)
    except BaseException:
        if not there:
            netlink.delete_link(pod.port)
        raise


def _await_bridge(netlink: Netlink, port: str, until: float) -> None:
    """A port takes part when the kernel has noticed that both ends are up; a first packet before that is lost."""
    while not netlink.require(port).forwarding:
        if time.monotonic() > until:
            raise HostError(f"port {port} does not come up", f"see: bridge link show dev {port}; then try again")
        time.sleep(0.001)


def join(netlink: Netlink, plan: HostPlan, pod: Attached, *, isolated: bool) -> None:
    """The host's side: a port of the bridge that has no address of its own."""
    sysctl.write_if_present(f"net/ipv6/conf/{pod.port}/disable_ipv6", 1)
    netlink.pairs.join(pod.port, plan.bridge, mac_of(pod.address), isolated=isolated)


def _enter(pod: Attached) -> Inside:
    # A router advertisement from another pod must not move the default route (CVE-2020-11091).
    sysctl.write_if_present(f"net/ipv6/conf/{pod.interface}/accept_ra", 0)
    return Inside(pod.interface)


def faults(pod: Attached, namespace: Namespace, routes: Collection[ipaddress.IPv4Network]) -> list[str]:
    """What is not as it was configured inside the pod."""
    with netns.within(namespace, lambda: Inside(pod.interface)) as inside:
        link = inside.link()
        if link is None:
            return [f"{pod.interface} is gone"]
        found = []
        if link.mac != mac_of(pod.address):
            found.append(f"{pod.interface} has another MAC")
        if not link.up:
            found.append(f"{pod.interface} is down")
        if ipaddress.IPv4Interface(pod.address) not in inside.addresses(link.index):
            found.append(f"{pod.interface} has not the address {pod.address}")
        there = {way.prefix for way in inside.ways() if way.device == link.index}
        wanted = [ipaddress.IPv4Network(f"{pod.gateway}/32"), *routes]
        return found + [f"the route to {route} is gone" for route in wanted if route not in there]
