"""The packets that rules of this namespace log: nftables' `log group N`, iptables' NFLOG.

    NFULA_PACKET_HDR, NFULA_PREFIX, NFULA_IFINDEX_INDEV, _OUTDEV, NFULA_PAYLOAD ─ IP header, its transport's …

Law (nfnetlink_log.h): a group of a namespace has one reader. The kernel gathers packets for a moment and hands them
over together. A packet says what its sender likes: what cannot be read is counted, as is what came faster than it was
read.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, NamedTuple

from tunrouter.edge.netlink.wire import (
    Message,
    Wire,
    attribute,
    attributes,
    enlarge,
    messages_of,
    text_of,
    waiting,
)
from tunrouter.errors import HostError

NETLINK_NETFILTER: Final = 12
PACKET, CONFIG = 4 << 8, 4 << 8 | 1  # NFNL_SUBSYS_ULOG, NFULNL_MSG_*
COMMAND, MODE, TIMEOUT, THRESHOLD = 1, 2, 4, 5  # NFULA_CFG_*
BIND: Final = 1
COPY_PACKET: Final = 2
IN, OUT, PAYLOAD, PREFIX = 4, 5, 9, 10  # NFULA_IFINDEX_INDEV, _OUTDEV, NFULA_*
COPIED: Final = 96
"""Bytes of a packet: an IPv6 header, a few of its extensions and a TCP header."""
TOGETHER: Final = 32
"""Packets that the kernel gathers, at most."""
HUNDREDTHS: Final = 10
"""Of a second that it gathers them, at most."""
BUFFER: Final = 1 << 20
READERS: Final = Path("/proc/thread-self/net/netfilter/nfnetlink_log")
OWN: Final = Path("/proc/thread-self/ns/net")

_GENERIC: Final = struct.Struct(">BBH")
_MODE: Final = struct.Struct(">IBx")
_PORTS: Final = struct.Struct(">HH")

TCP, ICMP, ICMP6 = 6, 1, 58
WITH_PORTS: Final = frozenset((TCP, 17, 33, 132, 136))
"""TCP, UDP, DCCP, SCTP, UDP-Lite."""
TCP_FLAGS: Final = 13
"""Where in its header they are."""
FRAGMENT, AUTHENTICATION = 44, 51
EXTENSIONS: Final = frozenset((0, 43, FRAGMENT, AUTHENTICATION, 60))
"""Of IPv6: hop-by-hop, routing, fragment, authentication, destination."""

Address = IPv4Address | IPv6Address


class Logged(NamedTuple):
    prefix: str
    protocol: int
    source: Address
    destination: Address
    source_port: int
    """0, both, of what has none, and of fragments behind the first."""
    destination_port: int
    incoming: int
    """The interface's index; 0 where there is none."""
    outgoing: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int


class Log(Wire):
    """Readable when packets were logged to `group`, in the namespace that the creating thread is in. Raises HostError.

    Nothing is asked of it later: it does not block any more, and its answers are packets.
    """

    def __init__(self, group: int) -> None:
        self.unread = 0
        """Packets whose headers are damaged, or longer than what was copied."""
        self.lost = 0
        """Times that packets came faster than they were read."""
        try:
            super().__init__(NETLINK_NETFILTER)
        except OSError as error:
            raise _cannot(group, error) from None
        try:
            enlarge(self._socket, BUFFER)
            self.tell(Message(CONFIG, 0, _binding(group)))
            self._socket.setblocking(False)
        except OSError as error:
            self.close()
            raise _cannot(group, error) from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def packets(self) -> Iterator[Logged]:
        """Since the last time; what is left, where there are very many, wakes the reader again."""
        for data in waiting(self._socket):
            if data is None:
                self.lost += 1
                continue
            for kind, _, _, body in messages_of(data):
                if kind != PACKET:
                    continue
                logged = read(body)
                if logged is None:
                    self.unread += 1
                else:
                    yield logged


def _binding(group: int) -> bytes:
    return (
        _GENERIC.pack(0, 0, group)
        + attribute(COMMAND, bytes([BIND]))
        + attribute(MODE, _MODE.pack(COPIED, COPY_PACKET))
        + attribute(TIMEOUT, HUNDREDTHS.to_bytes(4, "big"))
        + attribute(THRESHOLD, TOGETHER.to_bytes(4, "big"))
    )


# --- reading ---------------------------------------------------------------------------------------------------------
def read(body: bytes) -> Logged | None:
    """None if its headers cannot be read."""
    found = dict(attributes(body[_GENERIC.size :]))
    packet = bytes(found.get(PAYLOAD, b""))
    network = _NETWORKS.get(packet[0] >> 4, _neither)(packet) if packet else None
    transport = _transport(network.protocol, network.rest) if network else None
    if network is None or transport is None:
        return None
    return Logged(
        prefix=text_of(found.get(PREFIX)),
        protocol=network.protocol,
        source=network.source,
        destination=network.destination,
        incoming=int.from_bytes(found.get(IN, b""), "big"),
        outgoing=int.from_bytes(found.get(OUT, b""), "big"),
        **transport._asdict(),
    )


class _Network(NamedTuple):
    protocol: int
    source: Address
    destination: Address
    rest: bytes | None
    """Behind the header; None of a fragment that has no beginning."""


class _Transport(NamedTuple):
    source_port: int = 0
    destination_port: int = 0
    tcp_flags: int = 0
    icmp_type: int = 0
    icmp_code: int = 0


def _v4(packet: bytes) -> _Network | None:
    header = (packet[0] & 15) * 4
    if header < 20 or len(packet) < header:
        return None
    first = not int.from_bytes(packet[6:8], "big") & 0x1FFF
    ends = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    return _Network(packet[9], *ends, packet[header:] if first else None)


def _v6(packet: bytes) -> _Network | None:
    if len(packet) < 40:
        return None
    ends = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    kind, rest = packet[6], packet[40:]
    while kind in EXTENSIONS:
        if len(rest) < 8:
            return None
        if kind == FRAGMENT and int.from_bytes(rest[2:4], "big") >> 3:
            return _Network(rest[0], *ends, None)
        size = 8 if kind == FRAGMENT else (rest[1] + 2) * 4 if kind == AUTHENTICATION else (rest[1] + 1) * 8
        if len(rest) < size:
            return None
        kind, rest = rest[0], rest[size:]
    return _Network(kind, *ends, rest)


def _neither(_: bytes) -> None:
    return None


_NETWORKS: Final = {4: _v4, 6: _v6}


def _transport(protocol: int, rest: bytes | None) -> _Transport | None:
    if rest is None:
        return _Transport()
    needed = {TCP: TCP_FLAGS + 1, ICMP: 2, ICMP6: 2}.get(protocol, 4 if protocol in WITH_PORTS else 0)
    if len(rest) < needed:
        return None
    if protocol in {ICMP, ICMP6}:
        return _Transport(icmp_type=rest[0], icmp_code=rest[1])
    if protocol not in WITH_PORTS:
        return _Transport()
    source, destination = _PORTS.unpack_from(rest)
    return _Transport(source, destination, rest[TCP_FLAGS] if protocol == TCP else 0)


# --- refusing --------------------------------------------------------------------------------------------------------
def _cannot(group: int, error: OSError) -> HostError:
    """The kernel says of a group that is taken what it says of a right that is missing."""
    reader = _reader(group)
    if error.errno in {errno.EPERM, errno.EBUSY} and reader:
        return HostError(f"NFLOG group {group} is taken by {reader}", "stop that program, or let it read another group")
    right = error.errno == errno.EPERM
    needed = "give the process CAP_NET_ADMIN" if right else "use a kernel with CONFIG_NETFILTER_NETLINK_LOG"
    return HostError(f"cannot read NFLOG group {group}: {error.strerror or error}", needed)


def _reader(group: int) -> str:
    """Who reads it; empty if nobody does. A socket's port is its process's id, unless that was taken."""
    try:
        lines = [line.split() for line in READERS.read_text().splitlines()]
    except OSError:
        return ""
    port = next((line[1] for line in lines if line[0] == str(group)), "")
    process = Path("/proc", port)
    try:
        if (process / "ns/net").stat().st_ino == OWN.stat().st_ino:
            return f"{(process / 'comm').read_text().strip()} (process {port})"
    except OSError:
        return "another program" if port else ""  # it has ended, or is of a container
    return "another program" if port else ""
