"""What lies under the tunnel: the MTU towards the peers, and whether the range is free."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tunrouter.edge.netlink import PROTOCOL, Netlink, Route
from tunrouter.host.choice import EVERY, Chosen

DEFAULT_MTU: Final = 1500
CANDIDATES: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in ("10.32.0.0/11", "10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10", "192.168.0.0/16")
)
"""Where a free range is looked for: private space (RFC 1918), then shared space (RFC 6598)."""
MAX_CANDIDATES: Final = 65_536


def underlay_mtu(addresses: Sequence[str], chosen: Chosen = EVERY) -> int:
    """The smallest MTU on the first hop towards `addresses`, else of the default routes, else 1500.

    Where one address is chosen, of the routes that packets from there take, and of the device they come in by.
    """
    with Netlink() as netlink:
        peers = [address for address in addresses if _is_address(address) and chosen.speaks_to(address)]
        paths = [netlink.path(address, chosen.address) for address in peers]
        # A peer on this very machine says nothing of the wire.
        found = [mtu for device, mtu in filter(None, paths) if device != "lo"]
        if chosen.device and chosen.device != "lo" and (link := netlink.link(chosen.device)) is not None:
            found.append(link.mtu)
        if not found:
            found = [mtu for mtu in map(netlink.default_mtu, (4, 6)) if mtu]
        return min(found, default=DEFAULT_MTU)


def overlapping(wanted: ipaddress.IPv4Network, own: Iterable[str], routes: Iterable[Route]) -> list[Route]:
    """Routes of others that share addresses with `wanted`, the narrowest first."""
    return sorted(
        (route for route in _foreign(set(own), routes) if route.prefix.overlaps(wanted)),
        key=lambda route: -route.prefix.prefixlen,
    )


def free_range(
    wanted: ipaddress.IPv4Network, own: Iterable[str], routes: Iterable[Route]
) -> ipaddress.IPv4Network | None:
    """A private range as large as `wanted` that no route touches, as Weave's own default if that is free."""
    taken = {route.prefix for route in _foreign(set(own), routes)}
    tried = 0
    for space in CANDIDATES:
        if wanted.prefixlen < space.prefixlen:
            continue
        for candidate in space.subnets(new_prefix=wanted.prefixlen):
            tried += 1
            if not any(candidate.overlaps(prefix) for prefix in taken):
                return candidate
            if tried > MAX_CANDIDATES:
                return None
    return None


def peers_inside(wanted: ipaddress.IPv4Network, peers: Iterable[str]) -> list[str]:
    """Peers whose underlay address the range would swallow; names are not looked at."""
    return [peer for peer in peers if _is_address(peer) and ipaddress.ip_address(peer) in wanted]


def _foreign(own: set[str], routes: Iterable[Route]) -> Iterator[Route]:
    """Without ours and default routes; a /1 is half of the default route as VPN clients write it."""
    return (r for r in routes if r.protocol != PROTOCOL and r.device not in own and r.prefix.prefixlen > 1)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
