"""What this host shall look like whatever its blocks are: one frozen value, which devices and rules follow."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

import msgspec

from tunrouter.errors import ConfigError

MAX_DEVICE_NAME: Final = 15
LEAST_METRIC: Final = 0xFF000000
"""Of the unreachable route behind the tunnel's: any real route is preferred to it."""


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    range: ipaddress.IPv4Network
    mtu: int
    """Of the TUN, the bridge and every pod, in bytes of the inner packet."""
    port: int = 6783
    bridge: str = "weave"
    tun: str = "tunrouter0"
    manage_firewall: bool = True

    def __post_init__(self) -> None:
        for name in (self.bridge, self.tun):
            check_device_name(name)

    @property
    def bridge_mac(self) -> str:
        """The same for every gateway that the bridge may have; the range's first address is nobody's."""
        return mac_of(self.range.network_address)


def mac_octets_of(address: ipaddress.IPv4Address) -> bytes:
    """A local unicast MAC that follows from the address: neighbours' caches stay right when it changes hands."""
    return b"\x02" + hashlib.blake2b(address.packed, digest_size=5, person=b"tunrouter-mac").digest()


def mac_of(address: ipaddress.IPv4Address) -> str:
    """The same as it is written."""
    return mac_octets_of(address).hex(":")


def port_mac_of(address: ipaddress.IPv4Address) -> str:
    """Of the pod's end on the host."""
    digest = hashlib.blake2b(address.packed, digest_size=5, person=b"tunrouter-port").digest()
    return (b"\x02" + digest).hex(":")


def check_device_name(name: str) -> None:
    """As the kernel's dev_valid_name(), without the characters that rule sets give a meaning to."""
    plain = name.isascii() and all(letter.isalnum() or letter in "-_.@" for letter in name)
    if not plain or not 0 < len(name) <= MAX_DEVICE_NAME or name in {".", ".."}:
        raise ConfigError(f"{name!r} is no device name", f"use at most {MAX_DEVICE_NAME} letters, digits, - and _")
