"""A client, a server, and between them a namespace that forwards: what its kernel sees of real packets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final, TypeVar

from tunrouter.bench.namespaces import PREFIX, Namespace, owner
from tunrouter.edge import netns

T = TypeVar("T")
SCTP: Final = 132
CLIENT, SERVER = "10.1.0.2", "10.2.0.2"
CLIENT6, SERVER6 = "fd01::2", "fd02::2"


class Lab:
    """`eth1` of the router leads to the client, `eth2` to the server."""

    def __init__(self) -> None:
        names = (f"{PREFIX}-{owner()}-ct{role}" for role in ("client", "router", "server"))
        self.client, self.router, self.server = self.all = [Namespace(name) for name in names]

    def make(self) -> None:
        for namespace in self.all:
            namespace.create()
            namespace.sysctl("net.ipv6.conf.default.accept_dad", 0)
        for number, end in ((1, self.client), (2, self.server)):
            self.router.ip(
                f"link add name eth{number} type veth peer name eth0 netns {end.name}",
                f"addr add 10.{number}.0.1/24 dev eth{number}",
                f"addr add fd0{number}::1/64 dev eth{number} nodad",
                f"link set eth{number} up",
            )
            end.ip(
                f"addr add 10.{number}.0.2/24 dev eth0",
                f"addr add fd0{number}::2/64 dev eth0 nodad",
                "link set eth0 up",
                f"route add default via 10.{number}.0.1",
                f"route add default via fd0{number}::1",
            )
        for key in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            self.router.sysctl(f"net.{key}", 1)

    def nft(self, commands: str) -> None:
        self.router.run("nft", "-f", "-", stdin=commands)

    def remove(self) -> None:
        for namespace in self.all:
            namespace.delete()


def inside(of: Namespace, work: Callable[[], T]) -> T:
    with netns.Namespace(str(of.path)) as namespace:
        return netns.within(namespace, work)


def opened(of: Namespace, family: int, kind: int, protocol: int = 0) -> socket.socket:
    found = inside(of, lambda: socket.socket(family, kind, protocol))
    found.settimeout(2)
    return found


def sctp_init(source_port: int, destination_port: int) -> bytes:
    """The first packet of an association; conntrack looks at its checksum."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 7, 65535, 1, 1, 7)
    head = struct.pack(">HHI", source_port, destination_port, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def crc32c(data: bytes) -> int:
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF
