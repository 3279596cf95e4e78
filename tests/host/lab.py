"""A host in a network namespace: what the tests of this folder set up, break and look at.

    outside (192.0.2.2) ── eth0 192.0.2.1 ┤ host ├ weave 10.32.1.1 ── pods
                                                 └ tunrouter0

Names carry the pid, and everything goes away with the namespaces. Code that looks at "this host" runs in one thread that
has entered the host's namespace, as the agent's netlink thread is in the agent's.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

import msgspec
from pyroute2.netns import setns

from tunrouter.host import Host, HostPlan

T = TypeVar("T")
_numbers = itertools.count()

PLAN = HostPlan(range=IPv4Network("10.32.0.0/12"), block=IPv4Network("10.32.1.0/24"), mtu=1376)


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

    def host(self, **changes: object) -> Host:
        plan = msgspec.structs.replace(self.plan, **changes)  # type: ignore[type-var]
        found = self.inside(lambda: Host(plan))
        self._hosts.append(found)
        return found

    def pod(self, host: Host, address: str, interface: str = "eth0") -> Namespace:
        found = self._namespace("p")
        self.inside(lambda: host.attach(found.path, found.name, IPv4Address(address), interface, self.plan.mtu))
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
        return "\n".join(line for part in parts for line in part.splitlines() if not line.startswith(("#", ":")))

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


__all__ = ["PLAN", "Lab", "Namespace", "run", "threading", "wait_until"]
