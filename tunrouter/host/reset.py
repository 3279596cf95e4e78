"""Taking everything away again: tables, accepts, pods' devices, bridge, TUN and routes.

Law: it works from what the kernel has, not from what anybody remembers, and as often as it is asked. ip_forward and its
like go back to what they were before the bridge was made. A bridge that `up` would not take for ours is left, and where
Weave Net runs nothing is touched: its bridge may be ours by name and by alias.
"""

from __future__ import annotations

import ipaddress

from tunrouter.edge.firewall import Firewall
from tunrouter.edge.netlink import PROTOCOL, Link, Netlink, nft
from tunrouter.errors import HostError
from tunrouter.host import pods, switches
from tunrouter.host.preflight import check_weaver, others_ports
from tunrouter.host.ruleset import POLICIES, TABLES
from tunrouter.host.strangers import EARLIER, maker


def reset(bridge: str = "weave", tun: str = "tunrouter0", port: int = 6783) -> list[str]:
    """Answers with what was removed, in order, and what was left; nothing where there was nothing."""
    check_weaver()
    done = nft.delete(*TABLES, POLICIES)
    everything = ipaddress.IPv4Network("0.0.0.0/0")
    done += Firewall(bridge=bridge, tun=tun, network=everything, port=port).remove()
    with Netlink() as netlink:
        others = others_ports(netlink.links(), bridge)
        done += [f"device {name}" for name in pods.attached(netlink) if netlink.delete_link(name)]
        done += switches.put_back(netlink, bridge)
        if others:
            done.append(f"bridge {bridge} was left: it is another network's, with the port {others[0]}")
        else:
            done += _remove_device(netlink, bridge, "bridge")
        if not others or _ours(netlink.link(tun)):
            done += _remove_device(netlink, tun, "tun")
        for route in netlink.routes():
            if route.protocol == PROTOCOL and netlink.delete_route(route):
                done.append(f"route {route}")
    return done


def drop_policies() -> list[str]:
    """What the policy process has left; answers with that."""
    return nft.delete(POLICIES)


def _ours(tun: Link | None) -> bool:
    """By its name, where the bridge that it would belong to is another network's."""
    return tun is not None and maker(tun) == EARLIER


def _remove_device(netlink: Netlink, name: str, kind: str) -> list[str]:
    found = netlink.link(name)
    if found is None:
        return []
    if found.kind != kind:
        raise HostError(f"{name} is no {kind}, so it was not removed", "name the right device, or remove it yourself")
    return [f"{kind} {name}"] if netlink.delete_link(name) else []
