"""The host under examination: what the doctor is told, and one look at the devices that all checks share."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final

import msgspec

from tunrouter.doctor.finding import Finding
from tunrouter.edge.holders import Holder, holders
from tunrouter.edge.netlink import Link, Netlink
from tunrouter.host.choice import Chosen, Wish, choose, look, way
from tunrouter.host.pods import from_link

OURS: Final = "tunrouter"
MAX_PEERS: Final = 32


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the doctor is told: a running agent's plan, or what an agent would be started with."""

    range: ipaddress.IPv4Network = ipaddress.IPv4Network("10.32.0.0/12")
    bridge: str = "weave"
    tun: str = "tunrouter0"
    port: int = 6783
    peers: tuple[str, ...] = ()
    """Underlay addresses, without ports."""
    host: str = ""
    """The address that an agent would bind; empty: all."""
    wish: Wish = Wish()
    """How an agent that is started would choose it."""
    cni_bin_dir: str = "/opt/cni/bin"
    cni_conf_dir: str = "/etc/cni/net.d"
    running: bool = False
    """An agent answers, so what it sets up must be there."""


class Patient:
    """One look at the host, shared by the checks."""

    def __init__(self, known: Known, netlink: Netlink, now: float) -> None:
        self.known = known
        self.netlink = netlink
        self.now = now
        self.devices = {link.name: link for link in netlink.links()}
        self.ours = [name for name in (known.bridge, known.tun) if name in self.devices]

    @property
    def ports(self) -> list[Link]:
        """Of pods, on our bridge; made by us, which their aliases say."""
        bridge = self.devices.get(self.known.bridge)
        index = bridge.index if bridge else -1
        return [link for link in self.devices.values() if link.master == index and from_link(link)]

    @property
    def peers(self) -> tuple[str, ...]:
        """Enough of them to see which ways there are; those inside the range are said to be there, and no more."""
        outside = (peer for peer in self.known.peers if ipaddress.ip_address(peer) not in self.known.range)
        return tuple(itertools.islice(outside, MAX_PEERS))

    @cached_property
    def holders(self) -> list[Holder]:
        """Of the tunnel's port."""
        return holders(self.known.port)

    @cached_property
    def chosen(self) -> Chosen:
        """What the agent uses, or what one would that is started here. Raises HostError if that cannot be had."""
        if self.host:
            return Chosen(self.host, self.netlink.device_of(self.host))
        here = look(self.netlink, (self.known.bridge, self.known.tun))
        wish = Wish() if self.known.running else self.known.wish
        return choose(wish, here, lambda address: way(self.netlink, address))

    @property
    def host(self) -> str:
        """The address that the agent binds, as its sockets say, or before it runs its configuration; empty: all."""
        bound = {address for holder in self.holders if is_of_ours(holder) for address in holder.addresses}
        if self.known.running and bound:
            return "" if any(address.is_unspecified for address in bound) else str(min(bound, key=str))
        return self.known.host


def is_of_ours(holder: Holder) -> bool:
    """In a container processes have other numbers than outside, so they are known by their command."""
    return OURS in holder.command


Check = Callable[[Patient], Iterator[Finding]]
