"""What this host is to look like, by the configuration and the MTU of its underlay."""

from __future__ import annotations

from ipaddress import IPv4Network

from tunrouter.config import Config
from tunrouter.core import wire
from tunrouter.errors import ConfigError
from tunrouter.host import HostPlan


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
