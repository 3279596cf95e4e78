"""The underlay between a lab's hosts: one bridge in a namespace of its own, and the faults that can be planted in it.

    host1 eth0 ══ host1 ┐                         ┌ host2 ══ eth0 host2
                        ├ underlay (the bridge) ──┤
    host3 eth0 ══ host3 ┘   nft forward hook      └ …

Law: the faults are a value, rendered as one nftables transaction; the bridge's forward hook sees every frame between
two hosts once. Where single packets are to be lost, the offloads must not be on: what leaves a host as one 64 KB
super-packet is also lost as one.

A veth pair has no wire, so by its nature one super-packet of up to 64 KB crosses it whole. Three modes stand for three
kinds of network card:

    off   what crosses is real datagrams of at most the MTU, and hosts receive them one by one
    gro   the same on the wire; the receiving host joins them again (GRO), as drivers of real cards do
    on    super-packets cross whole, as between virtual machines of one host
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from tunrouter.bench.namespaces import Namespace, run

BRIDGE: Final = "underlay"
MAC: Final = "02:00:00:00:00:fe"
GATEWAY: Final = "192.0.2.254"
"""Every host's default route, so that what leaks is seen on the wire; it forwards nothing."""
GATEWAY6: Final = "2001:db8::ffff"
"""The same of a host that has no IPv4."""
Offloads = Literal["off", "gro", "on"]
SENDING: Final = ("tso", "gso", "tx-udp-segmentation")
"""What lets a super-packet leave whole."""


@dataclass(frozen=True)
class Faults:
    loss_percent: float = 0.0
    cuts: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    """Directions (from, to) that are dead."""
    longest: int = 0
    """IP packets of more bytes vanish without a word; 0: no limit."""

    def ruleset(self) -> str:
        rules = [f'iifname "{sender}" oifname "{receiver}" counter drop' for sender, receiver in sorted(self.cuts)]
        if self.longest:
            rules += [f"meta protocol {family} meta length > {self.longest} counter drop" for family in ("ip", "ip6")]
        if self.loss_percent:
            # A thousandth of a percent is the grain of what can be asked for.
            rules.append(f"numgen random mod 100000 < {round(self.loss_percent * 1000)} counter drop")
        body = "".join(f"        {rule}\n" for rule in rules)
        return (
            "table bridge lab\ndelete table bridge lab\ntable bridge lab {\n    chain forward {\n"
            f"        type filter hook forward priority 0; policy accept;\n{body}    }}\n}}\n"
        )


def default_route(address: str) -> str:
    """`ip`'s command for a host with this address."""
    return f"route replace ::/0 via {GATEWAY6}" if ":" in address else f"route replace default via {GATEWAY}"


class Fabric:
    """The bridge namespace; `plug` joins a host's namespace to it."""

    def __init__(self, namespace: Namespace, *, mtu: int, offloads: Offloads) -> None:
        self.namespace = namespace
        self.mtu = mtu
        self.offloads = offloads
        self.faults = Faults()

    def create(self) -> None:
        self.namespace.create()
        self.namespace.ip(
            # Without one of its own it has the address of one of its ports, and another one when that port goes.
            f"link add {BRIDGE} address {MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {BRIDGE} mtu {self.mtu} addrgenmode none up",
            f"address add {GATEWAY}/24 dev {BRIDGE}",
            f"address add {GATEWAY6}/64 dev {BRIDGE} nodad",
        )
        # An underlay switches; its frames have no business in the inet hooks of a machine that routes.
        self.namespace.run("sysctl", "-qw", "-e", "net.bridge.bridge-nf-call-iptables=0",
                           "net.bridge.bridge-nf-call-ip6tables=0", "net.bridge.bridge-nf-call-arptables=0",
                           check=False)  # fmt: skip

    def plug(self, host: Namespace, port: str, *addresses: str) -> None:
        """One veth pair: `port` on the bridge, `eth0` with `addresses` in the host, the default route by the first."""
        self.namespace.ip(
            f"link add {port} mtu {self.mtu} type veth peer name eth0 mtu {self.mtu} netns {host.name}",
            f"link set {port} master {BRIDGE} addrgenmode none up",
        )
        host.ip(
            "link set eth0 addrgenmode none up",
            *(f"address add {address} dev eth0 {'nodad' if ':' in address else ''}" for address in addresses),
            default_route(addresses[0]),
        )
        if self.offloads != "on":
            off = [word for name in SENDING for word in (name, "off")]
            self.namespace.run("ethtool", "-K", port, *off, "gro", "off")
            # On a veth, GRO also means NAPI: the host takes frames in batches, as from a card.
            host.run("ethtool", "-K", "eth0", *off, "gro", "on" if self.offloads == "gro" else "off")

    def plant(self, faults: Faults) -> None:
        """Replaces all faults at once."""
        run(self.namespace.enter(["nft", "-f", "-"]), stdin=faults.ruleset())
        self.faults = faults

    def lose(self, percent: float) -> None:
        self.plant(replace(self.faults, loss_percent=percent))

    def shrink(self, longest: int) -> None:
        """From now on IP packets longer than `longest` bytes vanish silently, as behind a misconfigured hop."""
        self.plant(replace(self.faults, longest=longest))

    def cut(self, sender: str, receiver: str) -> None:
        self.plant(replace(self.faults, cuts=self.faults.cuts | {(sender, receiver)}))

    def heal(self) -> None:
        self.plant(Faults())

    def dropped(self) -> int:
        """Packets that the planted faults have swallowed since they were planted."""
        words = self.namespace.run("nft", "list", "table", "bridge", "lab").stdout.split()
        return sum(int(words[at + 1]) for at, word in enumerate(words) if word == "packets")
