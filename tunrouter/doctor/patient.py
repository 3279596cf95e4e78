"""The host under examination: what the doctor is told, and one look at the devices that all checks share."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

import msgspec

from tunrouter.doctor.finding import Finding
from tunrouter.edge.netlink import Link, Netlink
from tunrouter.host.ruleset import PORT_PREFIX


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the doctor is told: a running agent's plan, or what an agent would be started with."""

    range: ipaddress.IPv4Network = ipaddress.IPv4Network("10.32.0.0/12")
    bridge: str = "weave"
    tun: str = "tunrouter0"
    port: int = 6783
    peers: tuple[str, ...] = ()
    """Underlay addresses, without ports."""
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
        """Of pods, on our bridge."""
        bridge = self.devices.get(self.known.bridge)
        index = bridge.index if bridge else -1
        return [link for link in self.devices.values() if link.master == index and link.name.startswith(PORT_PREFIX)]


Check = Callable[[Patient], Iterator[Finding]]
