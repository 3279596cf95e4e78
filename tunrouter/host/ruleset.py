"""The text of our nftables: `inet tunrouter` for what is routed, `bridge tunrouter` for what the ports may send.

Law: the two tables are always replaced together in one transaction, so there is no moment with half of them; pods that
come and go change elements of a set. They hold no counters, so that equal rule sets have equal fingerprints.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final

from tunrouter.edge.netlink.nft import Elements
from tunrouter.host.plan import HostPlan, mac_octets_of, mac_of

NAME: Final = "tunrouter"
TABLES: Final = (("inet", NAME), ("bridge", NAME))
POLICIES: Final = ("inet", "tunrouter-policy")
"""Another process's: what it left is removed, and nothing else is done to it."""
PORT_PREFIX: Final = "vethwe"
PODS: Final = Elements("bridge", NAME, "pods", frozenset())
"""Which port may use which address, with the MAC that follows from it."""
IFNAMSIZ: Final = 16


Port = tuple[str, ipaddress.IPv4Address]
"""A pod's device on the bridge, and the address it may use."""


def ruleset(plan: HostPlan, gateway: ipaddress.IPv4Address | None, fenced: Collection[ipaddress.IPv4Address]) -> str:
    """One transaction that replaces both tables; they permit nothing to any pod yet.

    `gateway` speaks for this host in the tunnel; without one the host is silent there. Nothing goes to or comes from
    pods with `fenced` addresses.
    """
    # `table` before `delete table`: the deletion must not fail where there is none yet.
    replaced = "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family, name in TABLES)
    return replaced + _routed(plan, gateway, fenced) + _bridged(plan)


def permissions(ports: Collection[Port]) -> str:
    """What gives these to the tables of `ruleset`."""
    listed = ", ".join(f'"{port}" . {address} . {mac_of(address)}' for port, address in sorted(ports))
    return f"add element {PODS.family} {PODS.table} {PODS.name} {{ {listed} }}\n" if ports else ""


def permitted(ports: Collection[Port]) -> Elements:
    """The same as the kernel holds it: each part fills whole registers of four bytes."""
    return PODS._replace(keys=frozenset(_key(port, address) for port, address in ports))


def _key(port: str, address: ipaddress.IPv4Address) -> bytes:
    return port.encode().ljust(IFNAMSIZ, b"\0") + address.packed + mac_octets_of(address) + b"\0\0"


def _routed(plan: HostPlan, gateway: ipaddress.IPv4Address | None, fenced: Collection[ipaddress.IPv4Address]) -> str:
    pods, bridge, tun = plan.range, plan.bridge, plan.tun
    strangers, host, translated = _as_gateway(plan, gateway)
    fence, fence_in, fence_out = _fence(plan, fenced)
    return f"""
table inet {NAME} {{
  {fence}
  # Every datagram of every peer passes here, so there is one chain for all that arrives, the most frequent first.
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    udp dport {plan.port} fib daddr type local goto to-tunnel
    iifname "{tun}" ip saddr != {pods} drop
    # A pod's address comes from a pod or out of the tunnel: whoever sends one over the underlay is not who he says.
    iifname != {{ "lo", "{bridge}", "{tun}" }} ip saddr {pods} drop
    {fence_in}
  }}
  chain to-tunnel {{
    # Nothing inside the tunnel may talk to the tunnel itself. One flow entry a peer would cost a look-up a packet.
    iifname {{ "{bridge}", "{tun}" }} drop
    notrack
  }}
  chain untracked-out {{
    type filter hook output priority raw; policy accept;
    udp sport {plan.port} fib saddr type local notrack
  }}
  chain forward {{
    type filter hook forward priority mangle; policy accept;
    # While two nodes disagree on an owner a packet would go round between them.
    iifname "{tun}" oifname "{tun}" drop
    iifname "{tun}" meta nfproto ipv6 drop
    {strangers}
    {fence_out}
    oifname "{tun}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    iifname "{tun}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
  }}
  chain output {{
    type filter hook output priority mangle; policy accept;
    # The tunnel's own datagrams inside the tunnel would be sealed again and again.
    oifname "{tun}" udp sport {plan.port} drop
    {host}
    {fence_out}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {translated}
    ip saddr {pods} ip daddr != {{ {pods}, 224.0.0.0/4 }} oifname != {{ "lo", "{bridge}", "{tun}" }} masquerade
  }}
}}
"""


def _as_gateway(plan: HostPlan, gateway: ipaddress.IPv4Address | None) -> tuple[str, str, str]:
    """Rules for what others, and this host itself, send into the tunnel: translated, or without a gateway refused."""
    if gateway is None:
        refuse = "reject with icmpx type host-unreachable"
        return f'oifname "{plan.tun}" ip saddr != {plan.range} {refuse}', f'oifname "{plan.tun}" {refuse}', ""
    return "", "", f'oifname "{plan.tun}" ip saddr != {plan.range} snat ip to {gateway}'


def _fence(plan: HostPlan, fenced: Collection[ipaddress.IPv4Address]) -> tuple[str, str, str]:
    """The set of the addresses, the rule for what comes from there, and the one for what would go there.

    Packets for the same addresses at their new owner's leave by another device. Without any there is no rule, for each
    costs a look a packet.
    """
    if not fenced:
        return "", "", ""
    fence = f"set fenced {{ type ipv4_addr; elements = {{ {', '.join(map(str, sorted(fenced)))} }}; }}"
    return fence, f'iifname "{plan.bridge}" ip saddr @fenced drop', f'oifname "{plan.bridge}" ip daddr @fenced drop'


def _bridged(plan: HostPlan) -> str:
    return f"""
table bridge {NAME} {{
  set pods {{
    type ifname . ipv4_addr . ether_addr
  }}
  chain prerouting {{
    # Before br_netfilter (0), which may rewrite addresses.
    type filter hook prerouting priority -300; policy accept;
    iifname != "{PORT_PREFIX}*" accept
    # What goes to the gateway is routed, where policies see it. Whatever goes elsewhere, broadcasts included, would be
    # bridged to other pods, past those that match their addresses, or past all while the mode changes. The host's
    # loopback is no pod's to reach even where portmap has opened it (route_localnet).
    ether type ip ether daddr {plan.bridge_mac} ip daddr != 127.0.0.0/8 iifname . ip saddr . ether saddr @pods accept
    # Whoever says that he is at another's MAC, or at everybody's, has his own traffic sent there.
    ether type arp iifname . arp saddr ip . ether saddr @pods iifname . arp saddr ip . arp saddr ether @pods accept
    drop
  }}
  chain forward {{
    # Between ports that are not isolated only what iptables translated may pass. The source MAC is not looked at:
    # translated frames keep the pod's.
    type filter hook forward priority -200; policy accept;
    iifname "{PORT_PREFIX}*" ether type != ip drop
  }}
}}
"""
