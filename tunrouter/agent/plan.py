"""What this host is to look like, by configuration and underlay; and which underlay the configuration wishes for."""

from __future__ import annotations

from ipaddress import IPv4Network

from tunrouter.config import Config
from tunrouter.core import wire
from tunrouter.errors import ConfigError
from tunrouter.host import HostPlan
from tunrouter.host.choice import Wish


def host_plan(config: Config, underlay_mtu: int) -> HostPlan:
    """Raises ConfigError for pods' packets that would not fit."""
    room = underlay_mtu - wire.OVERHEAD - wire.IP_UDP_BYTES[4]
    if config.mtu > room:
        what = f"--mtu {config.mtu} does not fit the underlay's MTU of {underlay_mtu}"
        raise ConfigError(what, f"give at most {room}, or leave it out")
    return HostPlan(
        range=IPv4Network(config.range),
        mtu=config.mtu or wire.pod_mtu(underlay_mtu),
        port=config.port,
        bridge=config.bridge,
        tun=config.tun,
        manage_firewall=config.host_firewall,
    )


def underlay_wish(config: Config) -> Wish:
    """What the configuration says of the address that the tunnel uses."""
    if config.iface:
        return Wish(ifaces=config.iface, said="--iface")
    if config.iface_can_reach:
        return Wish(can_reach=config.iface_can_reach, said="--iface-can-reach")
    return Wish(address=config.host, said="--host") if config.host else Wish()
