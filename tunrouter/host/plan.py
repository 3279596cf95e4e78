"""What this host shall look like: one frozen value, from which devices, routes, switches and rules all follow."""

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
    block: ipaddress.IPv4Network
    """This node's part of the range."""
    mtu: int
    """Of the TUN, the bridge and every pod, in bytes of the inner packet."""
    port: int = 6783
    bridge: str = "weave"
    tun: str = "tunrouter0"
    bridge_address: ipaddress.IPv4Address | None = None
    """The pods' gateway: the block's first usable address, which None means."""
    manage_firewall: bool = True

    def __post_init__(self) -> None:
        for name in (self.bridge, self.tun):
            check_device_name(name)
        if not self.block.subnet_of(self.range):
            raise ConfigError(f"block {self.block} is not part of the range {self.range}", "choose one inside it")
        if self.block.prefixlen > 30:
            raise ConfigError(f"block {self.block} has no room for pods", "choose a /29 or larger")
        if self.gateway not in self.block:
            raise ConfigError(f"bridge address {self.gateway} is not in the block {self.block}", "leave it out")

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        return self.bridge_address or self.block.network_address + 1

    @property
    def gateway_mac(self) -> str:
        return mac_of(self.gateway)


def mac_of(address: ipaddress.IPv4Address) -> str:
    """A local unicast MAC that follows from the address: neighbours' caches stay right when it changes hands."""
    digest = hashlib.blake2b(address.packed, digest_size=5, person=b"tunrouter-mac").digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest)


def check_device_name(name: str) -> None:
    """As the kernel's dev_valid_name(), without the characters that rule sets give a meaning to."""
    plain = name.isascii() and all(letter.isalnum() or letter in "-_.@" for letter in name)
    if not plain or not 0 < len(name) <= MAX_DEVICE_NAME or name in {".", ".."}:
        raise ConfigError(f"{name!r} is no device name", f"use at most {MAX_DEVICE_NAME} letters, digits, - and _")
