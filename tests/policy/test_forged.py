"""Packets that no kernel would send: written by hand in a pod, and looked for where they must not arrive."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.policy.cluster import Cluster, Json
from tests.policy.probing import Prober
from tests.policy.written import ALL, EVERY, policy
from tunrouter.bench.namespaces import Namespace
from tunrouter.edge import netns

pytestmark = pytest.mark.root
QUIET_SECONDS = 0.3
UNREACHABLE = 3, 1
DENY = policy("x", ALL, "deny", EVERY)
DENY_IN = policy("y", ALL, "deny-in", ("Ingress",))
FORGED = [
    (DENY, "x/a", "outside", "y/b"),
    (DENY, "x/a", "outside", "host1"),
    (DENY, "x/a", "y/a", "y/b"),
    (DENY_IN, "z/a", "y/b", "x/a"),
    (DENY_IN, "z/b", "y/b", "x/a"),
]


@pytest.mark.parametrize(("forbidding", "forger", "one", "other"), FORGED)
def test_an_icmp_error_of_a_pod_is_about_its_own_connections(
    live: tuple[Cluster, Prober], forbidding: Json, forger: str, one: str, other: str
) -> None:
    """Else who may send nothing tells anybody anything, by errors about a connection of others."""
    found, _ = live
    found.enforce()
    source, ends = found.addresses[forger], (found.addresses[one], found.addresses[other])
    with opened(found.places[one], ends[1]) as port, raw(found.places[one]) as heard:
        found.enforce(forbidding)
        send(found.places[forger], ends[0], error(ends, (port, 80)))
        assert source not in senders(heard)


def test_an_icmp_error_of_a_pod_about_its_own_connection_passes(live: tuple[Cluster, Prober]) -> None:
    """Of who accepted it, and of who opened it."""
    found, _ = live
    found.enforce()
    ends = found.addresses["y/a"], found.addresses["x/a"]
    with opened(found.places["y/a"], ends[1]) as port:
        # The connection stays permitted, or it would be ended; an error as such is not.
        web = policy("y", ALL, "web-alone", ("Egress",), egress=[{"ports": [{"protocol": "UDP", "port": 80}]}])
        found.enforce(policy("x", ALL, "deny-out", ("Egress",)), web)
        with raw(found.places["y/a"]) as heard:
            send(found.places["x/a"], ends[0], error(ends, (port, 80)))
            assert ends[1] in senders(heard)
        with raw(found.places["x/a"]) as heard:
            send(found.places["y/a"], ends[1], error((ends[1], ends[0]), (80, port)))
            assert ends[0] in senders(heard)


def error(ends: tuple[str, str], ports: tuple[int, int]) -> bytes:
    """Host unreachable, about what the first of them sent to the other."""
    told = struct.pack("!HHHH", *ports, 40, 0) + b"secret".ljust(32)
    about = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 60, 1, 0, 64, 17, 0, *map(socket.inet_aton, ends))
    about = about[:10] + checksum(about) + about[12:]
    message = struct.pack("!BBHI", *UNREACHABLE, 0, 0) + about + told
    return message[:2] + checksum(message) + message[4:]


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


@contextlib.contextmanager
def opened(namespace: Namespace, address: str) -> Iterator[int]:
    """Something was asked there by UDP, and answered; from this port."""
    with netns.Namespace(str(namespace.path)) as entered:
        udp = netns.within(entered, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with udp:
        udp.settimeout(5)
        udp.sendto(b"?", (address, 80))
        udp.recv(100)
        yield udp.getsockname()[1]


@contextlib.contextmanager
def raw(namespace: Namespace) -> Iterator[socket.socket]:
    with netns.Namespace(str(namespace.path)) as entered:
        found = netns.within(entered, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    with found:
        found.settimeout(QUIET_SECONDS)
        yield found


def send(namespace: Namespace, to: str, message: bytes) -> None:
    with raw(namespace) as sender:
        sender.sendto(message, (to, 0))


def senders(heard: socket.socket) -> set[str]:
    """Of the errors, until it is quiet."""
    found = set()
    with contextlib.suppress(TimeoutError):
        while True:
            data, (source, _) = heard.recvfrom(1000)
            if data[20] == UNREACHABLE[0]:
                found.add(source)
    return found
