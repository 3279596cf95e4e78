"""One UDP socket per address family: a train out in one call (UDP_SEGMENT), a batch in in one (recvmmsg, UDP_GRO).

DF is set on everything and forged ICMP ignored (IP_PMTUDISC_PROBE): path MTU is found by our own probes. No
SO_REUSEADDR: a port that another program holds is an error, not a split of its traffic. Several workers share the port
by SO_REUSEPORT, and a classic BPF program gives each datagram to the worker whose lane its receiver index names; the
kernel numbers the sockets in the order in which they were bound, and again when one of them is closed. recvmmsg comes
through ctypes because a call per datagram costs more than opening a small box; Linux only, 64 bit, like the layouts
below.

    mmsghdr: name 8 | its length 4 + 4 | iovec 8 | their number 8 | control 8 | its length 8 | flags 4 + 4 | bytes 4 + 4
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Final

from tunrouter.core import bounds, seam
from tunrouter.dataplane.kernel import Buffer, Datagram, Memory
from tunrouter.errors import HostError

_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_INDEX_AT: Final = 4
"""Where the receiver index stands in a datagram; the program's offsets count from behind the UDP header."""
_LOAD_WORD: Final = 0x20
_MODULO: Final = 0x94
_RETURN_A: Final = 0x16
_INSTRUCTION: Final = struct.Struct("=HBBI")
_PROGRAM: Final = struct.Struct("@HP")

SLOT: Final = bounds.MAX_FRAME + 1 + 576
"""Bytes of buffer per read; not a power of two, so that the slots do not fight for the same lines of the cache."""
_NAME: Final = 32
"""A sockaddr_in6 has 28 bytes; 32 keep the names in step with 8-byte words."""
_SOCKADDR: Final = 28
_CONTROL: Final = 24
_MMSGHDR: Final = struct.Struct("=QI4xQQQQI4xI4x")
_IOVEC: Final = struct.Struct("=QQ")
_SIZE: Final = struct.Struct("=H")

_recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)


class _Slots:
    """Memory for a batch of reads, and the kernel's description of it, restored before each call.

    Eight megabytes, of which only the pages that were once filled exist: hence a map and no bytearray.
    """

    def __init__(self, count: int) -> None:
        self.buffer = mmap.mmap(-1, count * SLOT)
        self.names = bytearray(count * _NAME)
        self.controls = bytearray(count * _CONTROL)
        self._vectors = bytearray(count * _IOVEC.size)
        self._headers = bytearray(count * _MMSGHDR.size)
        base, vector = _address(self.buffer), _address(self._vectors)
        name, control = _address(self.names), _address(self.controls)
        for i in range(count):
            _IOVEC.pack_into(self._vectors, i * _IOVEC.size, base + i * SLOT, bounds.MAX_FRAME)
            fields = (name + i * _NAME, _SOCKADDR, vector + i * _IOVEC.size, 1, control + i * _CONTROL, _CONTROL, 0, 0)
            _MMSGHDR.pack_into(self._headers, i * _MMSGHDR.size, *fields)
        self.headers_at = _address(self._headers)
        self._pristine = bytes(self._headers)
        self._no_controls = bytes(self.controls)
        words = memoryview(self._headers).cast("I")
        self.lengths = words[14::16]
        self.heads = memoryview(self.names).cast("Q")[:: _NAME // 8]
        """The first eight bytes of each sender's name: all that an IPv4 one says."""
        self.sizes = memoryview(self.controls).cast("I")[4 :: _CONTROL // 4]
        self.offsets = range(0, count * SLOT, SLOT)

    def restore(self) -> None:
        self._headers[:] = self._pristine
        self.controls[:] = self._no_controls


def _address(buffer: Memory) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class UdpSocket:
    """One bound socket, non-blocking."""

    def __init__(self, bound: socket.socket) -> None:
        bound.setblocking(False)
        self._socket = bound
        self._fd = bound.fileno()
        self.version = 6 if bound.family == socket.AF_INET6 else 4
        self.port: int = bound.getsockname()[1]
        self._slots = _Slots(bounds.RECEIVE_BATCH)
        self.buffer: Memory = self._slots.buffer
        self._senders: dict[int | bytes, seam.Endpoint] = {}

    def fileno(self) -> int:
        return self._fd

    def send(self, data: Buffer, endpoint: seam.Endpoint) -> None:
        self._socket.sendto(data, endpoint)

    def send_train(self, train: memoryview, size: int, endpoint: seam.Endpoint) -> None:
        self._socket.sendmsg([train], [(socket.IPPROTO_UDP, _UDP_SEGMENT, _SIZE.pack(size))], 0, endpoint)

    def receive(self) -> Iterable[Datagram]:
        """Reads one batch; raises OSError for what is not "nothing there" (it stands for an earlier send, too)."""
        slots = self._slots
        slots.restore()
        count = _recvmmsg(self._fd, slots.headers_at, bounds.RECEIVE_BATCH, 0, None)
        if count <= 0:
            number = ctypes.get_errno()
            if count == 0 or number in (errno.EAGAIN, errno.EINTR):
                return ()
            raise OSError(number, os.strerror(number))
        lengths = slots.lengths[:count].tolist()
        sources = self._sources(count)
        if any(slots.sizes[:count]):
            return self._split(lengths, slots.sizes[:count].tolist(), sources)
        return zip(slots.offsets, lengths, sources, strict=False)

    def _sources(self, count: int) -> Iterable[seam.Endpoint]:
        names, heads = self._slots.names, self._slots.heads[:count].tolist()
        keys: Sequence[int | bytes] = heads
        if self.version == 6:
            keys = [bytes(names[at : at + _SOCKADDR]) for at in range(0, count * _NAME, _NAME)]
        if keys.count(keys[0]) == count:
            return repeat(self._senders.get(keys[0]) or self._sender(keys[0], 0), count)
        known = self._senders.get
        return [known(key) or self._sender(key, i) for i, key in enumerate(keys)]

    def _sender(self, key: int | bytes, i: int) -> seam.Endpoint:
        if len(self._senders) >= bounds.MAX_SOURCES:
            self._senders.clear()
        endpoint = self._senders[key] = _endpoint(bytes(self._slots.names[i * _NAME : i * _NAME + _SOCKADDR]))
        return endpoint

    @staticmethod
    def _split(lengths: list[int], sizes: list[int], sources: Iterable[seam.Endpoint]) -> Iterable[Datagram]:
        """The datagrams of reads that the kernel had coalesced: each of `size` bytes, the last perhaps shorter."""
        found = []
        start = 0
        for length, size, source in zip(lengths, sizes, sources, strict=False):
            if size:
                end = start + length
                found += [(at, min(size, end - at), source) for at in range(start, end, size)]
            else:
                found.append((start, length, source))
            start += SLOT
        return found

    def close(self) -> None:
        self._socket.close()


def _endpoint(name: bytes) -> seam.Endpoint:
    """A sockaddr as an endpoint; a link-local address keeps its scope."""
    family, port = struct.unpack_from("=H", name)[0], struct.unpack_from(">H", name, 2)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    address = socket.inet_ntop(socket.AF_INET6, name[8:24])
    scope = struct.unpack_from("=I", name, 24)[0]
    return (f"{address}%{scope}" if scope else address), port


def open_udp(version: int, port: int, address: str = "") -> UdpSocket:
    """Binds the family's one socket to `port`. Raises HostError with the next step."""
    return UdpSocket(_bind(version, port, address))


def bind_group(version: int, port: int, address: str, count: int) -> list[socket.socket]:
    """One socket for each of `count` workers, which must stay open together. Raises HostError with the next step."""
    alone = _bind(version, port, address)  # who else holds the port, shared or not, is found out here
    if count == 1:
        return [alone]
    port = alone.getsockname()[1]
    alone.close()
    group: list[socket.socket] = []
    try:
        for _ in range(count):
            group.append(_bind(version, port, address, shared=True))
        _steer(group)
    except HostError:
        for bound in group:
            bound.close()
        raise
    return group


def _steer(group: list[socket.socket]) -> None:
    """Socket number = receiver index modulo their count; what is too short to have one goes to the first."""
    steps = (_LOAD_WORD, _INDEX_AT), (_MODULO, len(group)), (_RETURN_A, 0)
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(step, 0, 0, value) for step, value in steps))
    try:
        program = _PROGRAM.pack(len(steps), ctypes.addressof(code))
        group[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
    except OSError as error:
        raise HostError(f"cannot steer datagrams to workers: {error.strerror}", "run with --workers 1") from None


def _bind(version: int, port: int, address: str, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise HostError(f"no IPv{version} UDP socket: {error.strerror}", f"enable IPv{version} on this host") from None
    try:
        _configure(bound, version)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address, port))  # the empty address is all of the family's
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            fix = f"find who holds it with `ss -ulpn 'sport = :{port}'`, stop it, or choose another port with --port"
            raise HostError(f"UDP port {port} is in use", fix) from None
        raise HostError(f"cannot bind UDP port {port}: {error.strerror}", "check the address and your rights") from None
    return bound


def _configure(bound: socket.socket, version: int) -> None:
    if version == 6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        bound.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            bound.setsockopt(socket.SOL_SOCKET, forced, bounds.SOCKET_BUFFER)
        except PermissionError:
            bound.setsockopt(socket.SOL_SOCKET, plain, bounds.SOCKET_BUFFER)
    with suppress(OSError):  # Linux < 5.0: each datagram is read by itself
        bound.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
