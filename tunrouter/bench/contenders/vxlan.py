"""Kernel VXLAN (RFC 7348), routed as flannel does: no encryption, no process, the price of encapsulation alone.

It can pass bare veth: its device joins TCP segments again (GRO cells) where the underlay's card was told not to.
"""

from __future__ import annotations

import platform
from typing import Final

from tunrouter.bench.contenders.rival import Rival
from tunrouter.bench.contenders.site import Site

VNI: Final = 42
PORT: Final = 4789
OVERHEAD: Final = 50
"""IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14."""


class Vxlan(Rival):
    name = "vxlan"

    def obtain(self) -> str:
        return f"Linux {platform.release()}"

    def mtu(self, underlay: int) -> int:
        return underlay - OVERHEAD

    def join(self, here: Site, there: Site) -> None:
        local, remote = here.host.address, there.host.address
        here.namespace.ip(
            f"link add vxlan0 type vxlan id {VNI} dstport {PORT} local {local} remote {remote} dev eth0",
            f"link set vxlan0 mtu {self.mtu(self.lab.fabric.mtu)} addrgenmode none up",
            f"address add 10.41.0.{here.host.number}/24 dev vxlan0",
            f"route add {there.network} via 10.41.0.{there.host.number}",
        )
