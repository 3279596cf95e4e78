"""A router that translates addresses, with a host behind it: an access line, or a cloud's NAT gateway.

    host eth0 10.99.N.2 ══ inside 10.99.N.1 │ router │ eth0 192.0.2.(100+N) ══ underlay

Law: from outside nothing reaches the host but answers to what it sent, from where it sent that to; each destination
sees a source port of its own (RFC 4787: address- and port-dependent mapping and filtering, the worst there is).
"""

from __future__ import annotations

import sys
from typing import Final

from tunrouter.bench.fabric import Fabric
from tunrouter.bench.namespaces import Namespace

_RULES: Final = """
table ip translation {
    chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade fully-random; }
    chain in {
        type filter hook forward priority filter; policy drop;
        ct state established accept
        iifname "inside" accept
    }
}
"""
_FLUSH: Final = "from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket; s = NFCTSocket(); s.flush(); s.close()"


class Nat:
    def __init__(self, namespace: Namespace, number: int) -> None:
        self.namespace = namespace
        self.number = number
        self.outside = f"192.0.2.{100 + number}"
        self.hidden = f"10.99.{number}.2"
        """The host's address."""

    def create(self, fabric: Fabric, host: Namespace, port: str) -> None:
        self.namespace.create()
        fabric.plug(self.namespace, port, f"{self.outside}/24")
        self.namespace.ip(
            f"link add inside mtu {fabric.mtu} type veth peer name eth0 mtu {fabric.mtu} netns {host.name}",
            f"address add 10.99.{self.number}.1/24 dev inside",
            "link set inside up",
        )
        host.ip(
            f"address add {self.hidden}/24 dev eth0",
            "link set eth0 up",
            f"route add default via 10.99.{self.number}.1",
        )
        self.namespace.sysctl("net.ipv4.ip_forward", 1)
        self.namespace.run("nft", "-f", "-", stdin=_RULES)

    def forget_after(self, seconds: int) -> None:
        """How long a mapping lasts that nothing uses."""
        for kind in ("udp_timeout", "udp_timeout_stream"):
            self.namespace.sysctl(f"net.netfilter.nf_conntrack_{kind}", seconds)

    def forget(self) -> None:
        """All mappings, as when it is started anew."""
        self.namespace.run(sys.executable, "-c", _FLUSH)
