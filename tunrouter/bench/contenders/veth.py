"""Bare veth: the same pods, bridges and underlay with plain routes between the hosts. What no tunnel can pass."""

from __future__ import annotations

import platform

from tunrouter.bench.contenders.rival import Rival
from tunrouter.bench.contenders.site import Site


class Veth(Rival):
    name = "veth"

    def obtain(self) -> str:
        return f"Linux {platform.release()}"

    def mtu(self, underlay: int) -> int:
        return underlay

    def join(self, here: Site, there: Site) -> None:
        here.namespace.ip(f"route add {there.network} via {there.host.address}")
