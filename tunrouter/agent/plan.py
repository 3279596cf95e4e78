"""What this host and its node are to be, by configuration, underlay and disk; and which underlay is wished for."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from nacl.utils import random

from tunrouter.agent.recall import Kept
from tunrouter.config import Config
from tunrouter.core import keys, seam, wire
from tunrouter.core.local import Local
from tunrouter.core.routes import Announced
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


def block_length(config: Config, plan: HostPlan, static: Sequence[IPv4Network]) -> int:
    """Of all blocks of the range."""
    return static[0].prefixlen if static else max(config.block_size, plan.range.prefixlen)


def local_node(
    config: Config,
    kept: Kept,
    ring: keys.KeyRing,
    plan: HostPlan,
    static: Sequence[IPv4Network],
    endpoints: tuple[seam.Endpoint, ...],
) -> Local:
    """`static` are blocks that the operator gave, `endpoints` where this node knows itself to be."""
    return Local(
        identity=kept.identity,
        incarnation=kept.incarnation,
        ring=ring,
        network=config.network,
        name=config.nickname,
        blocks=tuple(Announced(block) for block in static),
        block_length=block_length(config, plan, static),
        pod_mtu=plan.mtu,
        random=random,
        workers=config.workers,
        silent=config.silent,
        endpoints=endpoints,
        discovery=config.discovery,
    )
