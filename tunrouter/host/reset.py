"""Taking everything away again: tables, accepts, pods' devices, bridge, TUN and routes.

Law: it works from what the kernel has, not from what anybody remembers, and as often as it is asked. ip_forward and its
like go back to what they were before the bridge was made.
"""

from __future__ import annotations

import ipaddress

from tunrouter.edge.firewall import Firewall
from tunrouter.edge.netlink import PROTOCOL, Netlink, nft
from tunrouter.errors import HostError
from tunrouter.host import pods, switches
from tunrouter.host.ruleset import TABLES


def reset(bridge: str = "weave", tun: str = "tunrouter0", port: int = 6783) -> list[str]:
    """Answers with what was removed, in order; nothing where there was nothing."""
    done = nft.delete(*TABLES)
    everything = ipaddress.IPv4Network("0.0.0.0/0")
    done += Firewall(bridge=bridge, tun=tun, network=everything, port=port).remove()
    with Netlink() as netlink:
        done += [f"device {name}" for name in pods.attached(netlink) if netlink.delete_link(name)]
        done += switches.put_back(netlink, bridge)
        for name, kind in ((bridge, "bridge"), (tun, "tun")):
            done += _remove_device(netlink, name, kind)
        for route in netlink.routes():
            if route.protocol == PROTOCOL and netlink.delete_route(route):
                done.append(f"route {route}")
    return done


def _remove_device(netlink: Netlink, name: str, kind: str) -> list[str]:
    found = netlink.link(name)
    if found is None:
        return []
    if found.kind != kind:
        raise HostError(f"{name} is no {kind}, so it was not removed", "name the right device, or remove it yourself")
    return [f"{kind} {name}"] if netlink.delete_link(name) else []
