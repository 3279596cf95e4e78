"""What would stop the set-up of this host, found out before anything is touched.

Law: each is an error of one line that names the thing in the way and the command that helps. A bridge of our name is
adopted only if we made it, or made all of its ports.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from tunrouter.edge import processes
from tunrouter.edge.firewall import nftables
from tunrouter.edge.holders import open_by
from tunrouter.edge.listeners import listening
from tunrouter.edge.netlink import PROTOCOL, Link, Netlink, Route, nft
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import strangers, switches
from tunrouter.host.ruleset import NAME
from tunrouter.host.strangers import SHOWN, WEAVE_NET, Strangers
from tunrouter.host.underlay import free_range, overlapping, peers_inside

TUN_DEVICE: Final = Path("/dev/net/tun")
CAP_NET_ADMIN: Final = 12
DATAPATH, VXLAN = "datapath", "vxlan-6784"
"""What Weave Net leaves beside its bridge."""


WEAVER_PORTS: Final = frozenset({6783, 6784})
"""TCP ports of Weave Net's router: its peers', and its own control. Ours speak UDP, and a unix socket."""
AGENT: Final = ("tunrouter.agent", "--config-fd")
"""The module, and its argument."""


def check_tools() -> None:
    """Raises HostError: rights, tools, the TUN driver."""
    if not _may_administer():
        raise HostError("setting up the network needs root", "run it with sudo")
    if shutil.which("nft") is None:
        raise HostError("nft is not installed", "apt-get install nftables")
    if not TUN_DEVICE.exists():
        raise HostError("/dev/net/tun is missing", "modprobe tun, or give the container that device")


def check_place(netlink: Netlink, network: IPv4Network, bridge: str, tun: str, peers: Sequence[str] = ()) -> None:
    """Raises ConfigError: Weave Net runs, the bridge is another network's, or others or `peers` use the range."""
    check_weaver()
    _check_bridge(netlink, bridge)
    routes = netlink.routes()
    _check_earlier(network, routes)
    _check_range(netlink, network, (bridge, tun), routes)
    inside = peers_inside(network, peers)
    if inside:
        fix = "choose another --range on every node: packets to that peer would enter the tunnel they are to carry"
        raise ConfigError(f"peer {inside[0]} lies in the range {network}", fix)


def check_weaver() -> None:
    """Raises ConfigError: Weave Net runs. What our own agents serve may be at the same ports."""
    ours = {target for pid in (os.getpid(), *processes.running(*AGENT)) for target in open_by(str(pid))}
    if listening(but=ours) >= WEAVER_PORTS:
        what = "Weave Net runs on this host: its router listens on TCP 6783 and 6784"
        fix = "stop it first: weave stop, in Kubernetes kubectl delete daemonset -n kube-system weave-net"
        raise ConfigError(what, fix)


def others_ports(links: Sequence[Link], bridge: str) -> tuple[str, ...]:
    """Of a bridge that is not ours, those that make it another's; none of one that we made, or may adopt."""
    found = next((link for link in links if link.name == bridge), None)
    if found is None or found.alias.startswith(switches.MARK):
        return ()
    return strangers.foreign_ports(link for link in links if link.master == found.index)


def _check_bridge(netlink: Netlink, bridge: str) -> None:
    links = netlink.links()
    ports = others_ports(links, bridge)
    if not ports:
        return
    who = next(filter(None, map(strangers.maker_of, ports)), "")
    named = f"{ports[0]}{f' and {len(ports) - 1} more' if len(ports) > 1 else ''}"
    what = f"bridge {bridge} is another network's{strangers.probably(who)}: it has a port that is not ours, {named}"
    commands = "; ".join(_weave_net(links, bridge)) if who == WEAVE_NET else f"ip link del {bridge}"
    raise ConfigError(what, f"if nothing uses it any more, {commands}; else choose another --bridge")


def _weave_net(links: Sequence[Link], bridge: str) -> list[str]:
    """What `weave reset` removes of devices, as commands; the datapath takes its VXLAN along."""
    there = {link.name: link for link in links}
    names = (bridge, "vethwe-bridge", DATAPATH if DATAPATH in there else VXLAN)
    return [command for name in names if name in there and (command := strangers.removal(there[name]))]


def _check_earlier(network: IPv4Network, routes: Sequence[Route]) -> None:
    """A set-up of our own for another range: its pods would be cut off without a word."""
    ours = [route.prefix for route in routes if route.protocol == PROTOCOL and route.kind == "unreachable"]
    earlier = [prefix for prefix in (*ours, *_ranges_of_tables()) if prefix != network]
    if earlier:
        what = f"this host is set up for the range {earlier[0]}, not {network}"
        raise ConfigError(what, f"take that away first: tunrouter reset; or keep --range {earlier[0]}")


def _ranges_of_tables() -> list[IPv4Network]:
    """What our tables say: all that comes out of the tunnel is from there."""
    if not nft.present("inet", NAME):
        return []
    with suppress(HostError, ValueError):
        rules = [rule for chain in nftables.read("inet", NAME).values() for rule in chain.rules]
        sources = [each for rule in rules for each in rule.conditions if each.field == "source" and each.negated]
        return [IPv4Network(value) for each in sources for value in each.values]
    return []


def _check_range(netlink: Netlink, network: IPv4Network, own: tuple[str, str], routes: list[Route]) -> None:
    """Addresses first: whose device is down or has no route is in the way all the same."""
    ours = [address for name in own if netlink.link(name) is not None for address in netlink.addresses(name)]
    there = Strangers(netlink, network, *own)
    there.look(ours)
    clash = overlapping(network, own, routes)
    if not there.found and not clash:
        return
    networks = {address.network for address in netlink.addresses() if address not in ours}
    taken = [*routes, *(Route(prefix=prefix, device="", protocol=0) for prefix in networks)]
    free = free_range(network, own, taken)
    fix = f"use --range {free} on every node" if free else "use a smaller --range on every node"
    if not there.found:
        raise ConfigError(f"range {network} overlaps the route {clash[0]}", fix)
    more = len(there.found) - SHOWN
    named = ", ".join(map(str, there.found[:SHOWN])) + (f" and {more} more" if more > 0 else "")
    commands = "; ".join(dict.fromkeys(one.removal for one in there.found[:SHOWN] if one.removal))
    stale = f"if nothing uses it any more, {commands}; else " if commands else ""
    raise ConfigError(f"range {network} is in use on this host: {named}", stale + fix)


def _may_administer() -> bool:
    """CAP_NET_ADMIN in the effective set: what root has, and what a service can be given without being root."""
    status = Path("/proc/thread-self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_NET_ADMIN & 1)
