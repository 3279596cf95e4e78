"""This host's ports: which pods are on the bridge, and how they come and go.

    admit ──> one of ours, which may use its address ──> connect ──> on the bridge         take_off ──> gone, port first

Law: the kernel is asked, not remembered: what is known here is as of the last look, and every change begins with one. A
look is at one port, for a look at all of them would cost more with each. Who is admitted and not connected is taken
back by a look.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from typing import Final

import msgspec

from tunrouter.edge.netlink import Link, Netlink
from tunrouter.edge.netns import Namespace
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import pods
from tunrouter.host.blocks import Blocks
from tunrouter.host.plan import HostPlan, mac_octets_of
from tunrouter.host.pods import Attached, Unwanted, Wanted
from tunrouter.host.ruleset import Port

MAX_PORTS: Final = 1023
"""Of a bridge (BR_PORT_BITS)."""


class Ports:
    def __init__(self, plan: HostPlan, netlink: Netlink) -> None:
        self._plan = plan
        self._netlink = netlink
        self._pods: dict[str, Attached] = {}
        self._vanished: list[Attached] = []

    # --- what is there -----------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._pods)

    def pods(self) -> Collection[Attached]:
        """As of the last look."""
        return self._pods.values()

    def look(self) -> list[Link]:
        """At all of them; answers with all devices that there are."""
        links = self._netlink.links()
        self._see(pods.among(links))
        return links

    def look_at(self, port: str) -> Attached | None:
        """The pod of this port as the kernel has it now."""
        link = self._netlink.link(port)
        pod = pods.from_link(link) if link is not None else None
        others = {other: there for other, there in self._pods.items() if other != port}
        self._see(others if pod is None else {**others, port: pod})
        return pod

    def _see(self, found: dict[str, Attached]) -> None:
        """These are the pods now."""
        self._vanished += [pod for port, pod in self._pods.items() if port not in found]
        self._pods = found

    def find(self, namespace: Namespace, interface: str) -> Attached | None:
        """The pod that is attached from there."""
        return self.look_at(pods.port_name(namespace, interface))

    def holds(self, name: str, interface: str) -> bool:
        """Whether it is attached, as of the last look."""
        return any((pod.name, pod.interface) == (name, interface) for pod in self._pods.values())

    def vanished(self) -> list[Attached]:
        """Pods that went without being taken off, since the last call."""
        gone, self._vanished = self._vanished, []
        return gone

    def permissions(self) -> frozenset[Port]:
        return frozenset((port, pod.address) for port, pod in self._pods.items())

    def gateways(self) -> set[IPv4Address]:
        """All that pods were told is theirs."""
        return {pod.gateway for pod in self._pods.values() if pod.gateway is not None}

    def faults(self, namespace: Namespace, interface: str, routes: Collection[IPv4Network]) -> list[str]:
        """What is not as `connect` left it, of the pod that is attached from there."""
        pod = self.find(namespace, interface)
        if pod is None:
            return [f"{interface} is not attached"]
        port, bridge = self._netlink.link(pod.port), self._netlink.link(self._plan.bridge)
        joined = port is not None and bridge is not None and port.master == bridge.index
        unplugged = [] if joined else [f"{pod.port} is not on {self._plan.bridge}"]
        return unplugged + pods.faults(pod, namespace, routes)

    # --- one that comes ----------------------------------------------------------------------------------------------
    def admit(self, one: Wanted, blocks: Blocks) -> Attached:
        """The pod that it will be, one of ours from now on. Raises TunrouterError."""
        port = pods.port_name(one.namespace, one.interface)
        before = self.look_at(port)
        if before is not None and before.name != one.name:
            self._vanished.append(before)  # its container is called otherwise now
        pod = self._as_it_is(
            Attached(
                port=port,
                name=one.name,
                address=one.address,
                interface=one.interface,
                mtu=one.mtu,
                gateway=blocks.gateway,
            )
        )
        ghosts = self._ghosts(pod)
        others = {port: other for port, other in self._pods.items() if port not in ghosts}
        pods.check(blocks, pod, others)
        for ghost in ghosts:
            self._netlink.delete_link(ghost)
        self._pods = others | {port: pod}
        return pod

    def _as_it_is(self, pod: Attached) -> Attached:
        """One that is there already keeps the gateway that it was configured with."""
        there = self._pods.get(pod.port)
        if there is None or there.gateway is None:
            return pod
        return there if msgspec.structs.replace(there, gateway=pod.gateway) == pod else pod

    def _ghosts(self, pod: Attached) -> list[str]:
        """Ports of namespaces that its container has left for this one; the kernel takes its time to end them."""
        key = pod.name, pod.interface
        return [p for p, other in self._pods.items() if p != pod.port and (other.name, other.interface) == key]

    def connect(self, pod: Attached, one: Wanted, *, isolated: bool, until: float) -> Attached | Exception:
        try:
            pods.connect(self._netlink, self._plan, pod, one.namespace, one.routes, isolated=isolated, until=until)
        except Exception as error:
            return error
        return pod

    # --- those that go -----------------------------------------------------------------------------------------------
    def take_off(self, unwanted: Collection[Unwanted]) -> list[list[Attached] | Exception]:
        """What was there of each. The kernel waits once for all of them."""
        found: list[list[Attached] | Exception] = []
        for one in unwanted:
            try:
                found.append(self._of(one))
            except Exception as error:
                found.append(error)
        ports = {pod.port for each in found if not isinstance(each, Exception) for pod in each}
        self._netlink.pairs.delete([link for port in ports if (link := self._netlink.link(port)) is not None])
        self._pods = {port: pod for port, pod in self._pods.items() if port not in ports}
        return found

    def _of(self, one: Unwanted) -> list[Attached]:
        ports = [port for port, pod in self._pods.items() if (pod.name, pod.interface) == (one.name, one.interface)]
        try:
            with Namespace(one.path) as namespace:
                ports = [pods.port_name(namespace, one.interface)]
        except ConfigError:
            pass  # gone: its name is all there is to go by
        return [pod for port in ports if (pod := self.look_at(port)) is not None]

    # --- keeping them ------------------------------------------------------------------------------------------------
    def clear(self) -> None:
        """What an agent that was killed has left half made, or half deleted, goes."""
        self._netlink.pairs.delete_doomed()
        self._netlink.pairs.delete([link for link in self._netlink.links() if pods.is_half_made(link)])

    def ensure(self, bridge: int, links: Collection[Link], *, isolated: bool) -> list[str]:
        """As they were made, and back on the bridge of this index, on which `links` are."""
        joined = {link.name: link for link in links}
        neighbours = self._netlink.pairs.neighbours(bridge)
        done = []
        for name, pod in self._pods.items():
            link = joined.get(name)
            known = link is not None and (link.index, mac_octets_of(pod.address)) in neighbours
            try:
                if link is None or not known:
                    pods.join(self._netlink, self._plan, pod, isolated=isolated)
                    done.append(f"port {name} on {self._plan.bridge}")
                elif self._netlink.pairs.ensure_mode(link, isolated=isolated):
                    done.append(f"port {name} {'isolated' if isolated else 'hairpin'}")
            except HostError:
                if self._netlink.link(name) is not None:
                    raise
                # It went with its namespace meanwhile, and others' ports are still to be seen to.
        return done
