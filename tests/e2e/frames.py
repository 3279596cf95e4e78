"""Ethernet frames of a pod that keeps to no rule: made by hand, sent on a packet socket, watched for at another's.

Law: each frame carries a mark of its own, and its transport's ports or ids are never used twice: no answer to an
earlier one may have made the next one part of an established flow.
"""

from __future__ import annotations

import itertools
import re
import socket
import struct
import time
from ipaddress import IPv4Address
from typing import Final

from tests.e2e.services import open_in
from tunrouter.bench.lab import Pod
from tunrouter.bench.namespaces import Namespace

ETH_IP: Final = 0x0800
ETH_ARP: Final = 0x0806
ETH_VLAN: Final = 0x8100
ETH_ALL: Final = 0x0003
SYN: Final = 0x02
ECHO_REQUEST: Final = 8
MORE_FRAGMENTS: Final = 0x2000
MARK: Final = struct.Struct(">4sI")
ARRIVE_SECONDS: Final = 5.0
_numbers = itertools.count(20_000)


def mac(namespace: Namespace, device: str = "eth0") -> bytes:
    said = namespace.run("ip", "-o", "link", "show", "dev", device).stdout
    found = re.search(r"link/ether (\S+)", said)
    assert found is not None, said
    return bytes.fromhex(found[1].replace(":", ""))


class Forger:
    """Sends from inside `pod`, with its true addresses as the source."""

    def __init__(self, pod: Pod) -> None:
        self.ip = IPv4Address(pod.address).packed
        self.mac = mac(pod.namespace)
        self._socket = open_in(pod.namespace, socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind(("eth0", 0))

    def close(self) -> None:
        self._socket.close()

    def tcp(self, to: bytes, address: str, port: int = 80) -> bytes:
        """A SYN; answers with its mark, as all these do."""
        number, mark = _fresh()
        header = struct.pack(">HHIIBBHHH", number, port, number, 0, 5 << 4, SYN, 65535, 0, 0)
        return self._ip(to, address, socket.IPPROTO_TCP, self._summed(header + mark, 16, address, socket.IPPROTO_TCP))

    def udp(self, to: bytes, address: str, port: int = 53) -> bytes:
        number, mark = _fresh()
        return self._ip(to, address, socket.IPPROTO_UDP, self._datagram(number, port, mark, address))

    def icmp(self, to: bytes, address: str) -> bytes:
        number, mark = _fresh()
        message = struct.pack(">BBHHH", ECHO_REQUEST, 0, 0, number, 1) + mark
        whole = message[:2] + struct.pack(">H", _checksum(message)) + message[4:]
        return self._ip(to, address, socket.IPPROTO_ICMP, whole)

    def fragments(self, to: bytes, address: str) -> bytes:
        """A datagram in two."""
        number, mark = _fresh()
        whole = self._datagram(number, 53, mark * 2, address)
        self._ip(to, address, socket.IPPROTO_UDP, whole[:16], number=number, fragment=MORE_FRAGMENTS)
        return self._ip(to, address, socket.IPPROTO_UDP, whole[16:], number=number, fragment=2)

    def tagged(self, to: bytes, address: str) -> bytes:
        """With a priority tag (VLAN 0), which receivers take off."""
        number, mark = _fresh()
        packet = self._packet(address, socket.IPPROTO_UDP, self._datagram(number, 53, mark, address))
        self._frame(to, ETH_VLAN, struct.pack(">HH", 0, ETH_IP) + packet)
        return mark

    def arp(self, to: bytes, address: str) -> bytes:
        """A question for the address, the mark in the padding."""
        _, mark = _fresh()
        ends = self.mac + self.ip + bytes(6) + IPv4Address(address).packed
        self._frame(to, ETH_ARP, struct.pack(">HHBBH", 1, ETH_IP, 6, 4, 1) + ends + mark)
        return mark

    def _datagram(self, number: int, port: int, payload: bytes, address: str) -> bytes:
        header = struct.pack(">HHHH", number, port, 8 + len(payload), 0)
        return self._summed(header + payload, 6, address, socket.IPPROTO_UDP)

    def _summed(self, segment: bytes, at: int, address: str, protocol: int) -> bytes:
        ends = self.ip + IPv4Address(address).packed
        pseudo = ends + struct.pack(">BBH", 0, protocol, len(segment))
        return segment[:at] + struct.pack(">H", _checksum(pseudo + segment)) + segment[at + 2 :]

    def _packet(self, address: str, protocol: int, payload: bytes, number: int = 0, fragment: int = 0) -> bytes:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), number & 0xFFFF, fragment, 64, protocol, 0)
        header += self.ip + IPv4Address(address).packed
        return header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + payload

    def _ip(self, to: bytes, address: str, protocol: int, payload: bytes, number: int = 0, fragment: int = 0) -> bytes:
        self._frame(to, ETH_IP, self._packet(address, protocol, payload, number, fragment))
        return payload[-MARK.size :]

    def _frame(self, to: bytes, kind: int, payload: bytes) -> None:
        self._socket.send(to + self.mac + struct.pack(">H", kind) + payload.ljust(46, b"\0"))


class Watch:
    """All that arrives at a pod's interface."""

    def __init__(self, pod: Pod) -> None:
        self._seen = bytearray()
        self._socket = open_in(pod.namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
        self._socket.bind(("eth0", ETH_ALL))

    def close(self) -> None:
        self._socket.close()

    def saw(self, mark: bytes) -> bool:
        """So far."""
        self._socket.setblocking(False)
        while self._take():
            pass
        return mark in self._seen

    def wait_for(self, mark: bytes) -> bool:
        """Whether it comes in time."""
        deadline = time.monotonic() + ARRIVE_SECONDS
        while mark not in self._seen and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            self._take()
        return mark in self._seen

    def _take(self) -> bool:
        try:
            frame, source = self._socket.recvfrom(2048)
        except (BlockingIOError, TimeoutError):
            return False
        if source[2] != socket.PACKET_OUTGOING:
            self._seen += frame
        return True


def _fresh() -> tuple[int, bytes]:
    number = next(_numbers)
    return number, MARK.pack(b"mark", number)


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
