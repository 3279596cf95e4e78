"""This node's blocks on this host: which address is the pods' gateway, and which addresses are no pod's.

Law: the gateway is the first usable address of the node's first block. The first usable address of every block is kept
free for it, since any block may be the first one day.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import msgspec

from tunrouter.errors import ConfigError


class Blocks(msgspec.Struct, frozen=True):
    """In the node's order; there may be none."""

    all: tuple[IPv4Network, ...] = ()

    @property
    def gateway(self) -> IPv4Address | None:
        """None while the node has no block."""
        return first_usable(self.all[0]) if self.all else None

    @property
    def gateway_interface(self) -> str:
        """The gateway with its block's length; empty if there is none."""
        return f"{self.gateway}/{self.all[0].prefixlen}" if self.all else ""

    def of(self, address: IPv4Address) -> IPv4Network | None:
        """The block that holds `address`."""
        return next((block for block in self.all if address in block), None)

    def overlapping(self, prefix: IPv4Network) -> IPv4Network | None:
        return next((block for block in self.all if block.overlaps(prefix)), None)

    def __str__(self) -> str:
        return ", ".join(map(str, self.all)) or "no block"


def blocks_of(network: IPv4Network, blocks: Sequence[IPv4Network]) -> Blocks:
    """Raises ConfigError for what cannot be blocks of the range `network`."""
    for block in blocks:
        if not block.subnet_of(network):
            raise ConfigError(f"block {block} is not part of the range {network}", "choose one inside it")
        if block.prefixlen > 30:
            raise ConfigError(f"block {block} has no room for pods", "choose a /29 or larger")
    return Blocks(tuple(blocks))


def first_usable(block: IPv4Network) -> IPv4Address:
    return block.network_address + 1


def is_usable(address: IPv4Address, block: IPv4Network) -> bool:
    """Whether a pod may have it."""
    return address in block and address not in (block.network_address, first_usable(block), block.broadcast_address)
