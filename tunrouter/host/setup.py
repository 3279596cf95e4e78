"""The host as the plan wants it: set up once, then kept so.

Law: every method is idempotent and blocks, and all are called from one thread without an event loop. `repair` is called
on every notification and every two seconds, so it looks before it acts, and looks without a fork: the generation of the
rule sets, the notifications of the routing socket, a handful of files under /proc.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from tunrouter.edge import netns, sysctl
from tunrouter.edge.firewall import Firewall
from tunrouter.edge.netlink import Link, Netlink, Watch, nft
from tunrouter.edge.netns import Namespace
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import pods, switches
from tunrouter.host.blocks import Blocks, blocks_of
from tunrouter.host.plan import HostPlan
from tunrouter.host.pods import Attached, Unwanted, Wanted
from tunrouter.host.ports import MAX_PORTS, Ports
from tunrouter.host.preflight import check_place, check_tools
from tunrouter.host.ruleset import TABLES, ruleset
from tunrouter.host.strangers import Strangers, foreign_ports
from tunrouter.host.tables import Tables
from tunrouter.host.ways import Ways

NF_CALL: Final = "net/bridge/bridge-nf-call-iptables"
QUEUE: Final = 1000
FORWARDING_SECONDS: Final = 3.0
"""For all pods of a batch to take part in the bridge."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What `status` says of this host."""

    bridge_address: str
    """The pods' gateway with its block's length; empty while the node has no block."""
    bridge_mode: str
    """`isolated` or `hairpin`."""
    attachments: int
    firewall: tuple[str, ...]
    fenced: tuple[str, ...]
    """Pods whose traffic is dropped because their block was lost, each with its address."""
    strangers: tuple[str, ...]
    """Devices of other networks in our range or on our bridge, each with what takes it away."""


class Host:
    def __init__(self, plan: HostPlan) -> None:
        self.plan = plan
        self.monitor = nft.Monitor()
        """Readable when somebody changed a rule set: drain it and call `repair`."""
        self.links = Watch()
        """Readable when somebody changed a link, an address or a route: the same."""
        self._watch = Watch()
        self._netlink = Netlink()
        self._firewall = Firewall(
            bridge=plan.bridge, tun=plan.tun, network=plan.range, port=plan.port, manage=plan.manage_firewall
        )
        self._ways = Ways(plan, self._netlink)
        self._written = Tables()
        self._fenced: frozenset[ipaddress.IPv4Address] = frozenset()
        self._strangers = Strangers(self._netlink, plan.range, plan.bridge, plan.tun)
        self._exposed: frozenset[ipaddress.IPv4Address] = frozenset()
        self._ports = Ports(plan, self._netlink)
        self._begun = False
        self._gateway: ipaddress.IPv4Address | None = None
        self._unfinished = False
        """The last attempt to shape the host failed half-way."""
        self._isolated = True
        self._generation = -1
        """Of the rule sets, others' included, when `repair` looked at them last."""
        self._before = ""
        self._localnet = switches.Localnet(plan.bridge)

    @property
    def _blocks(self) -> Blocks:
        return self._ways.blocks

    def close(self) -> None:
        for part in (self.monitor, self.links, self._watch, self._netlink):
            part.close()

    # --- before anything is touched ------------------------------------------------------------------------------
    def preflight(self, peers: Sequence[str] = ()) -> None:
        """Raises for what would stop `apply`: rights, tools, the TUN driver, a bridge or a range that others use."""
        check_tools()
        check_place(self._netlink, self.plan.range, self.plan.bridge, self.plan.tun, peers)

    # --- setting up ----------------------------------------------------------------------------------------------
    def apply(self) -> list[str]:
        """Everything but the TUN itself, which must be there; answers with what had to be changed."""
        self._netlink.require(self.plan.tun)
        self._watch.drain()
        self._isolated = _isolated()
        # Taken before our own changes: whatever anybody changes from here on is looked at by the next `repair`.
        self._generation = nft.generation()
        self._begun = True
        self._ports.clear()
        pods.adopt(self._netlink, self.plan.bridge)
        return self._shape() + self._allow()

    def own(self, blocks: Sequence[ipaddress.IPv4Network]) -> list[str]:
        """Exactly these blocks are this node's from now on; before `apply` that is only noted.

        What fails half-way is finished by `repair`.
        """
        wanted = blocks_of(self.plan.range, blocks)
        if wanted == self._blocks:
            return []
        self._ways.own(wanted)
        if self._gateway != self._blocks.gateway:
            self._gateway = None
        return self._shape() if self._begun else []

    def fence(self, addresses: Collection[ipaddress.IPv4Address]) -> list[str]:
        """Traffic of pods with exactly these addresses is dropped from now on; before `apply` that is only noted."""
        self._fenced = frozenset(addresses)
        return self._shape() if self._begun else []

    def expose(self, addresses: Collection[ipaddress.IPv4Address]) -> list[str]:
        """This host has exactly these beside its gateways' from now on; before `apply` that is only noted."""
        self._exposed = frozenset(addresses)
        return self._shape() if self._begun else []

    def repair(self, *, links: bool = True) -> list[str]:
        """Puts back what somebody changed since the last call; answers with what that was.

        Without `links` those, addresses and routes are left for the next call: there may be many to look at.
        """
        done = self._mode()
        if (links and self._watch.drain()) or self._unfinished:
            # The tables too: a pod that died took its port with it, but not the port's right to an address.
            done += self._shape()
        elif links:
            self._localnet.look()
        done += self._switches()
        generation = nft.generation()
        if generation != self._generation:
            done += self._tables() + self._allow()
            self._generation = generation  # what changed meanwhile is looked at next time
        elif self._firewall.legacy_changed() or self._firewall.refused:
            done += self._allow()
        return done

    def _shape(self) -> list[str]:
        """All that follows from the blocks and the pods; what was before goes last, when nothing uses it any more."""
        self._unfinished = True
        links = self._ports.look()
        done = self._devices(links) + self._switches() + self._tables() + self._retire()
        self._strangers.look([*self._bridge_addresses(), *self._tun_addresses()])
        self._unfinished = False
        self._gateway = self._blocks.gateway
        return done

    def _devices(self, links: Sequence[Link]) -> list[str]:
        plan, netlink = self.plan, self._netlink
        # Pods hear of another MAC at once, not when they doubt the old one.
        sysctl.write_if_present(f"net/ipv4/conf/{plan.bridge}/arp_notify", 1)
        done = netlink.ensure_bridge(plan.bridge, plan.bridge_mac, plan.mtu)
        done += self._localnet.keep(netlink.require(plan.bridge).index)
        self._before = switches.remember(netlink, plan.bridge, self._before)
        done += netlink.ensure_addresses(plan.bridge, self._bridge_addresses())
        if netlink.link(plan.tun) is not None:
            sysctl.write_if_present(f"net/ipv6/conf/{plan.tun}/addr_gen_mode", 1)
            # The address comes before the first packet, so before the device is up: replies to what this host sends
            # into the tunnel must find their way back into it.
            done += netlink.ensure_addresses(plan.tun, self._tun_addresses())
            done += netlink.ensure_link(plan.tun, mtu=plan.mtu, queue=QUEUE)
        return done + self._ways.ensure() + self._plug(links)

    def _plug(self, links: Sequence[Link]) -> list[str]:
        """Ports in the right mode, on the bridge; `links` are all devices, as of now."""
        bridge = self._netlink.require(self.plan.bridge).index
        joined = [link for link in links if link.master == bridge]
        self._strangers.ports = foreign_ports(joined)
        return self._ports.ensure(bridge, joined, isolated=self._isolated)

    def _retire(self) -> list[str]:
        """Addresses of gateways that nobody has any more. They take the routes along whose source they are."""
        done = self._netlink.remove_addresses(self.plan.bridge, but=self._bridge_addresses())
        if self._netlink.link(self.plan.tun) is not None:
            done += self._netlink.remove_addresses(self.plan.tun, but=self._tun_addresses())
        return done

    def _tun_addresses(self) -> set[ipaddress.IPv4Interface]:
        """As /32: what lies behind a device is said by routes, which come and go without its addresses."""
        return {ipaddress.IPv4Interface(self._blocks.gateway)} if self._blocks.gateway else set()

    def _bridge_addresses(self) -> set[ipaddress.IPv4Interface]:
        """The gateway, all that pods were told is theirs, and what is exposed."""
        others = self._ports.gateways() | self._exposed
        return self._tun_addresses() | {ipaddress.IPv4Interface(address) for address in others}

    def _mode(self) -> list[str]:
        isolated = _isolated()
        if isolated == self._isolated:
            return []
        self._isolated = isolated
        return [f"bridge mode {self.mode}", *self._plug(self._ports.look())]

    def _switches(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._wanted_switches() if sysctl.write_if_present(name, value)]

    def _wanted_switches(self) -> list[tuple[str, int]]:
        wanted = list(switches.WANTED)
        for device in (self.plan.bridge, self.plan.tun):
            conf = f"net/ipv4/conf/{device}"
            # The larger of `all` and the device counts, so 2 (loose) is also the way out of a strict `all`.
            wanted += [(f"{conf}/rp_filter", 2), (f"{conf}/send_redirects", 0), (f"{conf}/forwarding", 1)]
            wanted.append((f"net/ipv6/conf/{device}/accept_ra", 0))
        wanted.append((f"net/ipv6/conf/{self.plan.tun}/disable_ipv6", 1))
        return wanted

    def _tables(self) -> list[str]:
        text = ruleset(self.plan, self._blocks.gateway, self._fenced)
        before = nft.generation()
        if not self._written.ensure(text, self._ports.permissions(), before):
            return []
        if self._generation == before and nft.generation() == before + 1:
            self._generation += 1  # nobody but us: there is nothing to look at
        return [f"table {family} {name}" for family, name in TABLES]

    def _allow(self) -> list[str]:
        return self._firewall.ensure(self._netlink.uplinks())

    # --- pods ----------------------------------------------------------------------------------------------------
    def attach(self, wanted: Sequence[Wanted], done: Callable[[int, Attached | Exception], None]) -> None:
        """Joins namespaces to the bridge; with the same values again that changes nothing, else the pod moves.

        `done` is told each one's number and what came of it, as soon as that is known. The namespaces are closed
        afterwards: whoever still held one would keep alive what its container has left.
        """
        ready: dict[int, Attached] = {}
        for number, one in enumerate(wanted):
            try:
                ready[number] = self._ports.admit(one, self._blocks)
            except Exception as error:
                done(number, error)
        try:
            # The addresses are allowed before the pods can send their first packets.
            self._tables()
            until = time.monotonic() + FORWARDING_SECONDS
            for number, pod in list(ready.items()):
                result = self._ports.connect(pod, wanted[number], isolated=self._isolated, until=until)
                if result is pod:
                    del ready[number]
                done(number, result)
        finally:
            for one in wanted:
                one.namespace.close()
            for pod in ready.values():
                self._ports.look_at(pod.port)  # which is not there, unless it was before
            if ready:
                self._tables()

    def open(self, path: str) -> Namespace:
        """The namespace at `path`. Raises ConfigError if it is none, or this host's own."""
        found = Namespace(path)
        if found.inode == netns.own_inode():
            raise ConfigError(f"{path} is this host's own network namespace", "give a container's")
        return found

    def find(self, namespace: Namespace, interface: str) -> Attached | None:
        """The pod that is attached from there."""
        return self._ports.find(namespace, interface)

    def faults(self, namespace: Namespace, interface: str, routes: Collection[ipaddress.IPv4Network]) -> list[str]:
        """What is not as `attach` left it, of the pod that is attached from there."""
        return self._ports.faults(namespace, interface, routes)

    def detach(self, unwanted: Sequence[Unwanted], done: Callable[[int, list[Attached] | Exception], None]) -> None:
        """Takes pods off the bridge; `done` is told each one's number and what was taken off.

        Without its port nobody may use an address, so they need not wait until the permissions are gone, too.
        """
        for number, result in enumerate(self._ports.take_off(unwanted)):
            done(number, result)
        self._unfinished = True
        self._tables()
        self._unfinished = False

    def attached(self) -> list[Attached]:
        self._ports.look()
        return sorted(self._ports.pods(), key=lambda pod: pod.address)

    def seen(self) -> Collection[Attached]:
        """The same, as of the last look or `attach`, in any order."""
        return self._ports.pods()

    def vanished(self) -> list[Attached]:
        """Pods that went without being detached, since the last call."""
        return self._ports.vanished()

    def holds(self, name: str, interface: str) -> bool:
        """Whether it is attached, as of the last look or `attach`."""
        return self._ports.holds(name, interface)

    # --- what the agent learns later -----------------------------------------------------------------------------
    def set_path_mtus(self, paths: Mapping[ipaddress.IPv4Network, int | None]) -> list[HostError]:
        """Inner packets to a prefix may have so many bytes; None, or as much as the TUN takes, removes the exception.

        Answers with what could not be; the others are set.
        """
        refused = [error for path in paths.items() if (error := self._ways.set_path_mtu(*path)) is not None]
        try:
            self._ways.ensure()
        except HostError as error:
            refused.append(error)
        return refused

    # --- what others ask -----------------------------------------------------------------------------------------
    @property
    def gateway(self) -> ipaddress.IPv4Address | None:
        """What pods are configured with now; None while the node has no block, or the host does not have it yet."""
        return self._gateway

    @property
    def mode(self) -> str:
        return "isolated" if self._isolated else "hairpin"

    @property
    def strangers(self) -> tuple[str, ...]:
        """Other networks in our place, each with what takes it away."""
        return self._strangers.complaints()

    @property
    def full(self) -> bool:
        """There is no port for another pod."""
        return len(self._ports) >= MAX_PORTS

    def facts(self) -> Facts:
        """As of the last `apply`, `repair` or `attach`: asks the kernel nothing."""
        return Facts(
            bridge_address=self._blocks.gateway_interface,
            bridge_mode=self.mode,
            attachments=len(self._ports),
            firewall=tuple(self._firewall.complaints()),
            fenced=tuple(f"{pod.name} ({pod.address})" for pod in self._ports.pods() if pod.address in self._fenced),
            strangers=self.strangers,
        )


def _isolated() -> bool:
    """Bridged frames do not pass iptables: ports may be kept apart, and only routing joins them."""
    return sysctl.read(NF_CALL) != "1"
