"""A host in a network namespace: what the tests of this folder set up, break and look at.

    outside (192.0.2.2) ── eth0 192.0.2.1 ┤ host ├ weave 10.32.1.1 ── pods
                                                 └ tunrouter0

Names carry the pid, and everything goes away with the namespaces. Code that looks at "this host" runs in one thread
that has entered the host's namespace, as the agent's netlink thread is in the agent's.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import select
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

import msgspec
from pyroute2.netns import setns

from tunrouter.host import Attached, Host, HostPlan, Unwanted, Wanted

T = TypeVar("T")
VNET_HEADER = 10
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind((sys.argv[3], 0))
    s.sendto(b"data", (sys.argv[1], int(sys.argv[2])))
"""
LISTEN = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", int(sys.argv[1])))
    s.settimeout(0.5)
    print("ready", flush=True)
    try:
        s.recv(100)
        print("got", flush=True)
    except TimeoutError:
        print("nothing", flush=True)
"""

_numbers = itertools.count()

PLAN = HostPlan(range=IPv4Network("10.32.0.0/12"), mtu=1376)
BLOCK = IPv4Network("10.32.1.0/24")
GATEWAY = BLOCK[1]


def run(*arguments: str, check: bool = True, text: str | None = None) -> str:
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, check=False, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


class Namespace:
    def __init__(self, role: str) -> None:
        self.name = f"tr{role}{os.getpid()}x{next(_numbers)}"
        self.path = f"/run/netns/{self.name}"
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        return run("ip", "netns", "exec", self.name, *arguments, check=check, text=text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )

    def pings(self, address: str, *options: str) -> bool:
        return ", 0% packet loss" in self.run("ping", "-c1", "-W1", *options, address, check=False)

    def remove(self) -> None:
        run("ip", "netns", "del", self.name, check=False)


def attach(host: Host, path: str, name: str, address: IPv4Address, interface: str, mtu: int) -> Attached:
    """One pod. Raises TunrouterError."""
    results: list[Attached | Exception] = []
    wanted = Wanted(host.open(path), name, address, interface, mtu)
    host.attach([wanted], lambda _, result: results.append(result))
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


def detach(host: Host, path: str, name: str, interface: str) -> list[Attached]:
    """One pod. Raises TunrouterError."""
    results: list[list[Attached] | Exception] = []
    host.detach([Unwanted(path, name, interface)], lambda _, result: results.append(result))
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


class Lab:
    """The host's namespace with its uplink and its TUN, and a thread inside it."""

    def __init__(self, plan: HostPlan = PLAN) -> None:
        self.plan = plan
        self.namespaces: list[Namespace] = []
        self.host_ns = self._namespace("h")
        self.outside = self._namespace("o")
        self._inside = ThreadPoolExecutor(1, initializer=self._enter)
        self._hosts: list[Host] = []
        uplink = f"up{os.getpid() % 100000}"
        run("ip", "link", "add", uplink, "netns", self.host_ns.name, "type", "veth", "peer", "name", "eth0", "netns",
            self.outside.name)  # fmt: skip
        self.host_ns.run("ip", "link", "set", uplink, "name", "eth0")
        for side, address in ((self.host_ns, "192.0.2.1"), (self.outside, "192.0.2.2")):
            side.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
            side.run("ip", "link", "set", "eth0", "up")
        self.host_ns.run("ip", "route", "add", "default", "via", "192.0.2.2")
        self.nf_call(0)
        self.host_ns.run("ip", "tuntap", "add", "mode", "tun", "multi_queue", "vnet_hdr", "name", plan.tun)

    def inside(self, work: Callable[[], T]) -> T:
        return self._inside.submit(work).result(timeout=60)

    def host(self, *blocks: IPv4Network, **changes: object) -> Host:
        """One that owns `blocks`; none given: `BLOCK`."""
        plan = msgspec.structs.replace(self.plan, **changes)
        found = self.inside(lambda: Host(plan))
        self.inside(lambda: found.own(blocks or (BLOCK,)))
        self._hosts.append(found)
        return found

    def pod(self, host: Host, address: str, interface: str = "eth0") -> Namespace:
        found = self._namespace("p")
        self.inside(lambda: attach(host, found.path, found.name, IPv4Address(address), interface, self.plan.mtu))
        return found

    def nf_call(self, value: int) -> None:
        self.sysctl("net.bridge.bridge-nf-call-iptables", value)

    def sysctl(self, name: str, value: int) -> None:
        self.host_ns.run("sysctl", "-qw", f"{name}={value}")

    def state(self) -> str:
        """All that anybody can see of the host's network, without counters and ages."""
        run_in = self.host_ns.run
        parts = [run_in("ip", "-o", "link"), run_in("ip", "-o", "addr"), run_in("ip", "route", "show", "table", "all")]
        parts += [run_in("nft", "-s", "list", "ruleset"), run_in("iptables-legacy-save")]
        parts += [run_in("bridge", "-d", "link")]
        parts += [run_in("sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.all.send_redirects")]
        lines = (line for part in parts for line in part.splitlines() if not line.startswith(("#", ":")))
        # The kernel finds out about carriers, and whether nobody else has an address, when it has time.
        return re.sub(r"NO-CARRIER,|,LOWER_UP| state \w+| tentative| linkdown", "", "\n".join(lines))

    def routes(self) -> str:
        return self.host_ns.run("ip", "route", "show").replace(" linkdown", "")

    def close(self) -> None:
        for host in self._hosts:
            self.inside(host.close)
        self._inside.shutdown()
        for namespace in self.namespaces:
            namespace.remove()

    def _namespace(self, role: str) -> Namespace:
        found = Namespace(role)
        self.namespaces.append(found)
        return found

    def _enter(self) -> None:
        descriptor = os.open(self.host_ns.path, os.O_RDONLY | os.O_CLOEXEC)
        setns(descriptor)
        os.close(descriptor)


class Tun:
    """The agent's side of the TUN: what the host sends into the tunnel, and what comes out of it."""

    def __init__(self, lab: Lab) -> None:
        self._descriptor = lab.inside(lambda: _open_tun(lab.plan.tun))
        lab.host_ns.run("ip", "link", "set", lab.plan.tun, "up")

    def packets(self, seconds: float = 2.0) -> Iterator[bytes]:
        """IP packets as they come, until none comes for `seconds`."""
        while select.select([self._descriptor], [], [], seconds)[0]:
            yield os.read(self._descriptor, 70_000)[VNET_HEADER:]

    def first(self, protocol: int, seconds: float = 2.0) -> bytes | None:
        return next((packet for packet in self.packets(seconds) if packet[0] >> 4 == 4 and packet[9] == protocol), None)

    def write(self, packet: bytes) -> None:
        os.write(self._descriptor, bytes(VNET_HEADER) + packet)

    def close(self) -> None:
        os.close(self._descriptor)


def _open_tun(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = 0x0001 | 0x1000 | 0x4000 | 0x0100  # IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(descriptor, 0x400454D0, 0x01 | 0x02 | 0x04)  # TUNSETOFFLOAD: checksums and TCP segments
    return descriptor


def udp(source: str, destination: str, port: int = 9, source_port: int = 9) -> bytes:
    """An IPv4 packet with a UDP datagram, as it comes out of the tunnel."""
    payload = struct.pack(">HHHH", source_port, port, 12, 0) + b"data"
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0) + ends
    words = sum(struct.unpack(">10H", header))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return header[:10] + struct.pack(">H", ~words & 0xFFFF) + header[12:] + payload


__all__ = ["BLOCK", "GATEWAY", "LISTEN", "PLAN", "SEND", "Lab", "Namespace", "Tun", "run", "udp", "wait_until"]
