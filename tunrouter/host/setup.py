"""The host as the plan wants it: set up once, then kept so.

Law: every method is idempotent and blocks, and all are called from one thread without an event loop. `repair` is called
on every notification and every two seconds, so it looks before it acts, and looks without a fork: the generation of the
rule sets, the notifications of the routing socket, a handful of files under /proc.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from tunrouter.edge import netns, nft, sysctl
from tunrouter.edge.firewall import Firewall
from tunrouter.edge.netlink import Netlink, Watch
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import pods, switches
from tunrouter.host.blocks import Blocks, blocks_of
from tunrouter.host.plan import HostPlan
from tunrouter.host.pods import Attached, Unwanted, Wanted
from tunrouter.host.preflight import check_place, check_tools
from tunrouter.host.ruleset import TABLES, ruleset
from tunrouter.host.strangers import Strangers, foreign_ports
from tunrouter.host.tables import Tables
from tunrouter.host.ways import Ways

NF_CALL: Final = "net/bridge/bridge-nf-call-iptables"
QUEUE: Final = 1000


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
        self._strangers = Strangers(self._netlink, plan.range, plan.bridge, plan.tun)
        self._fenced: frozenset[ipaddress.IPv4Address] = frozenset()
        self._exposed: frozenset[ipaddress.IPv4Address] = frozenset()
        self._pods: dict[str, Attached] = {}
        self._vanished: list[Attached] = []
        self._begun = False
        self._unfinished = False
        """The last attempt to shape the host failed half-way."""
        self._isolated = True
        self._generation = -1
        """Of the rule sets, others' included, when `repair` looked at them last."""
        self._before = ""

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
        return self._shape() if self._begun else []

    def fence(self, addresses: Collection[ipaddress.IPv4Address]) -> list[str]:
        """Traffic of pods with exactly these addresses is dropped from now on; before `apply` that is only noted."""
        self._fenced = frozenset(addresses)
        return self._shape() if self._begun else []

    def expose(self, addresses: Collection[ipaddress.IPv4Address]) -> list[str]:
        """This host has exactly these beside its gateways' from now on; before `apply` that is only noted."""
        self._exposed = frozenset(addresses)
        return self._shape() if self._begun else []

    def repair(self) -> list[str]:
        """Puts back what somebody changed since the last call; answers with what that was."""
        done = self._mode()
        if self._watch.drain() or self._unfinished:
            # The tables too: a pod that died took its port with it, but not the port's right to an address.
            done += self._shape()
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
        self._see(pods.attached(self._netlink))
        done = self._devices() + self._switches() + self._tables() + self._retire()
        self._strangers.look([*self._bridge_addresses(), *self._tun_addresses()])
        self._unfinished = False
        return done

    def _devices(self) -> list[str]:
        plan, netlink = self.plan, self._netlink
        # Pods hear of another MAC at once, not when they doubt the old one.
        sysctl.write_if_present(f"net/ipv4/conf/{plan.bridge}/arp_notify", 1)
        done = netlink.ensure_bridge(plan.bridge, plan.bridge_mac, plan.mtu)
        self._before = switches.remember(netlink, plan.bridge, self._before)
        done += netlink.ensure_addresses(plan.bridge, self._bridge_addresses())
        if netlink.link(plan.tun) is not None:
            sysctl.write_if_present(f"net/ipv6/conf/{plan.tun}/addr_gen_mode", 1)
            # The address comes before the first packet, so before the device is up: replies to what this host sends
            # into the tunnel must find their way back into it.
            done += netlink.ensure_addresses(plan.tun, self._tun_addresses())
            done += netlink.ensure_link(plan.tun, mtu=plan.mtu, queue=QUEUE)
        return done + self._ways.ensure() + self._ports()

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
        gateways = {pod.gateway for pod in self._pods.values() if pod.gateway is not None}
        return self._tun_addresses() | {ipaddress.IPv4Interface(address) for address in gateways | self._exposed}

    def _ports(self) -> list[str]:
        """Ports in the right mode, and back on the bridge if somebody took them off it or removed it."""
        joined = {link.name: link for link in self._netlink.ports(self.plan.bridge)}
        self._strangers.ports = foreign_ports(joined.values())
        done = []
        for name, pod in self._pods.items():
            if name not in joined:
                pods.join(self._netlink, self.plan, pod, isolated=self._isolated)
                done.append(f"port {name} on {self.plan.bridge}")
            elif self._netlink.ensure_port_mode(joined[name], isolated=self._isolated):
                done.append(f"port {name} {self.mode}")
        return done

    def _see(self, found: dict[str, Attached]) -> None:
        """These are the pods now."""
        self._vanished += [pod for port, pod in self._pods.items() if port not in found]
        self._pods = found

    def _mode(self) -> list[str]:
        isolated = _isolated()
        if isolated == self._isolated:
            return []
        self._isolated = isolated
        self._see(pods.attached(self._netlink))
        return [f"bridge mode {self.mode}", *self._ports()]

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
        if not self._written.ensure(text, frozenset((pod.port, pod.address) for pod in self._pods.values()), before):
            return []
        if self._generation == before and nft.generation() == before + 1:
            self._generation += 1  # nobody but us: there is nothing to look at
        return [f"table {family} {name}" for family, name in TABLES]

    def _allow(self) -> list[str]:
        return self._firewall.ensure(self._netlink.uplinks())

    # --- pods ----------------------------------------------------------------------------------------------------
    def attach(self, wanted: Sequence[Wanted], done: Callable[[int, Attached | Exception], None]) -> None:
        """Joins namespaces to the bridge; with the same values again that changes nothing, else the pod moves.

        `done` is told each one's number and what came of it, as soon as that is known.
        """
        with ExitStack() as stack:
            ready: dict[int, tuple[Attached, int]] = {}
            for number, one in enumerate(wanted):
                try:
                    descriptor = stack.enter_context(_container(one.path))
                    ready[number] = self._admit(one, descriptor), descriptor
                except Exception as error:
                    done(number, error)
            try:
                # The addresses are allowed before the pods can send their first packets.
                self._tables()
                for number in list(ready):
                    pod, descriptor = ready[number]
                    result = self._connect(pod, descriptor, wanted[number])
                    if result is pod:
                        del ready[number]
                    done(number, result)
            finally:
                if ready:
                    for pod, _ in ready.values():
                        self._look_at(pod.port)  # which is not there, unless it was before
                    self._tables()

    def _admit(self, one: Wanted, descriptor: int) -> Attached:
        """The pod that it will be, one of ours from now on. Raises TunrouterError."""
        port = pods.port_name(netns.inode(descriptor), one.interface)
        gateway = self._blocks.gateway
        pod = Attached(
            port=port, name=one.name, address=one.address, interface=one.interface, mtu=one.mtu, gateway=gateway
        )
        before = self._look_at(port)
        if before is not None and before.name != one.name:
            self._vanished.append(before)  # its container is called otherwise now
        pod = self._as_it_is(pod)
        ghosts = self._ghosts(pod)
        others = {port: other for port, other in self._pods.items() if port not in ghosts}
        pods.check(self._blocks, pod, others)
        for ghost in ghosts:
            self._netlink.delete_link(ghost)
        self._pods = others | {port: pod}
        return pod

    def _connect(self, pod: Attached, descriptor: int, one: Wanted) -> Attached | Exception:
        try:
            pods.connect(self._netlink, self.plan, pod, descriptor, one.routes, isolated=self._isolated)
        except Exception as error:
            return error
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

    def find(self, path: str, interface: str) -> Attached | None:
        """The pod that is attached from the namespace at `path`. Raises ConfigError if that is no container's."""
        with _container(path) as descriptor:
            return self._look_at(pods.port_name(netns.inode(descriptor), interface))

    def _look_at(self, port: str) -> Attached | None:
        """The pod of this port as the kernel has it now. A look at all of them would cost more with each."""
        link = self._netlink.link(port)
        pod = pods.from_link(link) if link is not None else None
        others = {other: there for other, there in self._pods.items() if other != port}
        self._see(others if pod is None else {**self._pods, port: pod})
        return pod

    def faults(self, path: str, interface: str, routes: Collection[ipaddress.IPv4Network]) -> list[str]:
        """What is not as `attach` left it, of the pod that is attached from the namespace at `path`."""
        with netns.namespace(path) as descriptor:
            pod = self._look_at(pods.port_name(netns.inode(descriptor), interface))
            if pod is None:
                return [f"{interface} is not attached"]
            joined = {link.name for link in self._netlink.ports(self.plan.bridge)}
            unplugged = [] if pod.port in joined else [f"{pod.port} is not on {self.plan.bridge}"]
            return unplugged + pods.faults(pod, descriptor, routes)

    def detach(self, unwanted: Sequence[Unwanted], done: Callable[[int, list[Attached] | Exception], None]) -> None:
        """Takes pods off the bridge; `done` is told each one's number and what was taken off."""
        removed: list[list[Attached] | Exception] = []
        for one in unwanted:
            try:
                removed.append(self._disconnect(one))
            except Exception as error:
                removed.append(error)
        try:
            self._tables()  # an address is free when nobody may use it any more
        except BaseException:
            # Whoever asked hears of an error, so these are told as those that went by themselves.
            self._vanished += [pod for result in removed if not isinstance(result, Exception) for pod in result]
            raise
        for number, result in enumerate(removed):
            done(number, result)

    def _disconnect(self, one: Unwanted) -> list[Attached]:
        ports = [port for port, pod in self._pods.items() if (pod.name, pod.interface) == (one.name, one.interface)]
        try:
            with netns.namespace(one.path) as descriptor:
                ports = [pods.port_name(netns.inode(descriptor), one.interface)]
        except ConfigError:
            pass  # gone: its name is all there is to go by
        there = {port: pod for port in ports if (pod := self._look_at(port)) is not None}
        removed = [port for port in there if self._netlink.delete_link(port)]
        self._pods = {port: pod for port, pod in self._pods.items() if port not in there}
        return [there[port] for port in removed]

    def attached(self) -> list[Attached]:
        return sorted(pods.attached(self._netlink).values(), key=lambda pod: pod.address)

    def vanished(self) -> list[Attached]:
        """Pods that went without being detached, since the last call."""
        gone, self._vanished = self._vanished, []
        return gone

    def holds(self, name: str, interface: str) -> bool:
        """Whether it is attached, as of the last look or `attach`."""
        return any((pod.name, pod.interface) == (name, interface) for pod in self._pods.values())

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
        return None if self._unfinished or not self._begun else self._blocks.gateway

    @property
    def mode(self) -> str:
        return "isolated" if self._isolated else "hairpin"

    @property
    def strangers(self) -> tuple[str, ...]:
        """Other networks in our place, each with what takes it away."""
        return self._strangers.complaints()

    def facts(self) -> Facts:
        """As of the last `apply`, `repair` or `attach`: asks the kernel nothing."""
        found = self._pods.values()
        return Facts(
            bridge_address=self._blocks.gateway_interface,
            bridge_mode=self.mode,
            attachments=len(found),
            firewall=tuple(self._firewall.complaints()),
            fenced=tuple(f"{pod.name} ({pod.address})" for pod in found if pod.address in self._fenced),
            strangers=self.strangers,
        )


@contextmanager
def _container(path: str) -> Iterator[int]:
    """A descriptor of the namespace at `path`. Raises ConfigError if it is none, or this host's own."""
    with netns.namespace(path) as descriptor:
        if netns.inode(descriptor) == netns.own_inode():
            raise ConfigError(f"{path} is this host's own network namespace", "give a container's")
        yield descriptor


def _isolated() -> bool:
    """Bridged frames do not pass iptables: ports may be kept apart, and only routing joins them."""
    return sysctl.read(NF_CALL) != "1"
