"""Frames that a pod has no right to send, each with a mark that names it.

    Ethernet: door (whom it is for), sender ── IPv4, ARP, or anything else

Law: a frame is whole and correct but for what it pretends, so that it can fail for no other reason.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tests.dataplane.frames import TCP, UDP, network, pseudo, slow_sum, transport
from tests.runtimes.inside import Talk, mark

IPV4, ARP, IPV6, VLAN, STACKED, PPPOE, EAPOL, EXPERIMENT, LLDP = (
    0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x8863, 0x888E, 0x88B5, 0x88CC,
)  # fmt: skip
BROADCAST: Final = b"\xff" * 6
GROUP: Final = bytes.fromhex("01005e000001")
"""All hosts, 224.0.0.1."""
GROUP6: Final = bytes.fromhex("333300000001")
SLOW: Final = bytes.fromhex("0180c2000002")
NEAREST: Final = bytes.fromhex("0180c200000e")
"""Of neighbour bridges (IEEE 802.1D): Linux hands up what is for them as if the port were none of a bridge's."""
ICMP, ICMPV6 = 1, 58
PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "ICMP": ICMP}
SYN, RST = 2, 4
PORT: Final = 40404
REQUEST, REPLY = 1, 2
ROUTER_ADVERTISEMENT: Final = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
NEIGHBOUR_ADVERTISEMENT: Final = struct.pack(">BBHI", 136, 0, 0, 0x20000000) + IPv6Address("fe80::1").packed
LINK_LOCAL, ALL_NODES = IPv6Address("fe80::bad").packed, IPv6Address("ff02::1").packed
DHCP_OFFER: Final = struct.pack(">BBBBIHHIIII16s192sI", 2, 1, 6, 0, 7, 0, 0x8000, 0, 0x0A200163, 0, 0, b"", b"",
                                0x63825363) + bytes((53, 1, 2, 3, 4, 10, 32, 1, 99, 255))  # fmt: skip


def ether(door: bytes, sender: bytes, kind: int, payload: bytes) -> bytes:
    return door + sender + struct.pack(">H", kind) + payload


def ends(source: str, target: str) -> tuple[bytes, bytes]:
    return IPv4Address(source).packed, IPv4Address(target).packed


def packet(protocol: int, source: str, target: str, payload: bytes, port: int = PORT) -> bytes:
    """A TCP connection's first, a datagram, or an echo request."""
    between = ends(source, target)
    if protocol == ICMP:
        head, rest = struct.pack(">BB", 8, 0), struct.pack(">HH", 4040, 1) + payload
        return network(between, ICMP, head + struct.pack(">H", slow_sum(head + rest) ^ 0xFFFF) + rest)
    body = transport(between, protocol, payload, partial=False, ports=(PORT, port), acknowledge=0, flags=SYN)
    return network(between, protocol, body)


def packets(sources: Mapping[str, str], targets: Mapping[str, str], senders: Mapping[str, bytes],
            doors: Mapping[str, bytes], *, port: int = PORT) -> Iterator[bytes]:  # fmt: skip
    """Every protocol from every source to every target, by every pair of MACs; all by their names."""
    for source, target, sender, door, protocol in itertools.product(sources, targets, senders, doors, PROTOCOLS):
        name = f"{protocol} from {source} at {sender} to {target}, port {port}, at {door}"
        payload = packet(PROTOCOLS[protocol], sources[source], targets[target], mark(name), port)
        yield ether(doors[door], senders[sender], IPV4, payload)


def resets(talks: Iterable[Talk], senders: Mapping[str, bytes], door: bytes) -> Iterator[bytes]:
    """What ends a connection of somebody else, were it believed."""
    for talk, sender in itertools.product(talks, senders):
        near, far = talk.near.getsockname(), talk.near.getpeername()
        between = ends(near[0], far[0])
        body = transport(between, TCP, mark(f"end of {talk} at {sender}"), partial=False, ports=(near[1], far[1]),
                         sequence=talk.sequence, acknowledge=0, flags=RST)  # fmt: skip
        yield ether(door, senders[sender], IPV4, network(between, TCP, body))


def claims(addresses: Mapping[str, str], owner: bytes, sender: bytes, doors: Mapping[str, bytes]) -> Iterator[bytes]:
    """ARP: each address is `owner`'s, as a question, as an answer, and told to all unasked."""
    for address, door, asked in itertools.product(addresses, doors, addresses):
        for operation, word in ((REQUEST, "asks"), (REPLY, "answers")):
            name = f"ARP {word}: {address} is {owner.hex(':')}, for {asked} at {door}"
            mine, theirs = ends(addresses[address], addresses[asked])
            body = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation) + owner + mine + doors[door] + theirs
            yield ether(doors[door], sender, ARP, body + mark(name))


def icmpv6(message: bytes, payload: bytes) -> bytes:
    body = message + payload
    check = slow_sum(pseudo(LINK_LOCAL, ALL_NODES, ICMPV6, len(body)) + body) ^ 0xFFFF
    body = body[:2] + struct.pack(">H", check) + body[4:]
    return struct.pack(">IHBB", 6 << 28, len(body), ICMPV6, 255) + LINK_LOCAL + ALL_NODES + body


def others(sender: bytes, source: str, target: str, doors: Mapping[str, bytes]) -> Iterator[bytes]:
    """What is neither IPv4 nor ARP, or hides it behind a tag."""
    for door, mac in doors.items():
        for message, word in ((ROUTER_ADVERTISEMENT, "router"), (NEIGHBOUR_ADVERTISEMENT, "neighbour")):
            yield ether(mac, sender, IPV6, icmpv6(message, mark(f"IPv6 {word} advertisement at {door}")))
        for kind in (PPPOE, EAPOL, EXPERIMENT, LLDP):
            yield ether(mac, sender, kind, mark(f"{kind:#06x} at {door}"))
        for tags in ((VLAN, 0), (VLAN, 5), (STACKED, 0), (STACKED, 5), (STACKED, 5, VLAN, 6)):
            name = f"tagged {' '.join(f'{tag:#x}' for tag in tags)} at {door}"
            inner = struct.pack(">H", IPV4) + packet(UDP, source, target, mark(name))
            yield mac + sender + struct.pack(f">{len(tags)}H", *tags) + inner


def offers(sources: Mapping[str, str], sender: bytes, doors: Mapping[str, bytes]) -> Iterator[bytes]:
    """DHCP: what a machine that looks for an address would take for one."""
    for source, door in itertools.product(sources, doors):
        between = ends(sources[source], "255.255.255.255")
        body = transport(
            between, UDP, DHCP_OFFER + mark(f"offer from {source} at {door}"), partial=False, ports=(67, 68)
        )
        yield ether(doors[door], sender, IPV4, network(between, UDP, body))
