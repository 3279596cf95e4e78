"""Peers as users write them (`host`, `host:port`, `192.0.2.7:6783`, `[2001:db8::7]:6783`) to endpoints."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from tunrouter.config import values

Endpoint = tuple[str, int]


def split(peer: str, default_port: int) -> Endpoint:
    """Host and port of a peer that `config.values.peer` has accepted."""
    host, number = values.split_peer(peer)
    return host, int(number) if number else default_port


def literal(peer: str, default_port: int) -> Endpoint | None:
    """The endpoint of a peer that is given as an address, None for a name."""
    host, port = split(peer, default_port)
    try:
        return str(ip_address(host)), port
    except ValueError:
        return None


async def resolve(peer: str, default_port: int) -> tuple[Endpoint | None, str]:
    """The endpoint, or None and why there is none. A name's address is one that a route leads to, IPv4 first."""
    endpoint = literal(peer, default_port)
    if endpoint is not None:
        return endpoint, ""
    host, port = split(peer, default_port)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        return None, f"cannot resolve {host}: {error.strerror or error}"
    addresses = sorted({str(info[4][0]) for info in found}, key=lambda address: (":" in address, address))
    usable = [address for address in addresses if not ip_address(address).is_link_local]
    if not usable:
        return None, f"cannot resolve {host}: no address" + (" but link-local ones" if addresses else "")
    return (next(filter(_routed, usable), usable[0]), port), ""


def _routed(address: str) -> bool:
    """Whether this host has a route there; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True
