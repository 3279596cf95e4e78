"""A `tr_io` for the compiled kernel that reads and writes the fakes: the same wires that the reference has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tunrouter.core import bounds, seam
from tunrouter.dataplane import sockaddr
from tunrouter.dataplane._kernel import ffi
from tunrouter.dataplane.compiled import CompiledKernel, open_nacl
from tunrouter.dataplane.kernel import Emit, Tun, Udp

ROOM = 70_000
SEGMENTS = 64


def take_read(waiting: deque[tuple[bytes, seam.Endpoint]]) -> list[bytes]:
    """The datagrams that a host with GRO gives in one read, taken from the head of those that wait."""
    data, sender = waiting.popleft()
    read, size = [data], len(data)
    while waiting and waiting[0][1] == sender and 0 < len(waiting[0][0]) <= len(data) and len(read) < SEGMENTS:
        if (len(read) + 1) * len(data) > bounds.MAX_FRAME:
            break
        more, _ = waiting.popleft()
        read.append(more)
        if len(more) < size:
            break
    return read


class FakeIo:
    def __init__(self, tun: Tun, udps: Sequence[Udp]) -> None:
        self._tun = tun
        self._udps = {udp.version: udp for udp in udps}
        self._waiting: dict[int, deque[tuple[bytes, seam.Endpoint]]] = {version: deque() for version in self._udps}
        self._frame = bytearray(ROOM)
        self.table = ffi.new("tr_io *")
        self._kept = [
            self._set("read", "int32_t(void *, uint8_t *, uint32_t)", self._read),
            self._set("write", "int32_t(void *, const tr_part *, uint32_t)", self._write),
            self._set("receive", "int32_t(void *, uint32_t, tr_slot *, uint32_t)", self._receive),
            self._set("send", "int32_t(void *, uint32_t, const tr_wagon *, uint32_t)", self._send),
        ]

    def _set(self, name: str, kind: str, function: Callable[..., int]) -> Any:
        def call(_self: Any, *arguments: Any) -> int:
            try:
                return function(*arguments)
            except OSError as error:
                return -(error.errno or 5)

        made = ffi.callback(kind, call)
        setattr(self.table, name, made)
        return made

    def _read(self, to: Any, room: int) -> int:
        size = self._tun.read_into(memoryview(self._frame)[:room])
        ffi.memmove(to, self._frame, size)
        return size

    def _write(self, parts: Any, count: int) -> int:
        self._tun.write([bytes(ffi.buffer(parts[i].data, parts[i].size)) for i in range(count)])
        return 1

    def _receive(self, version: int, slots: Any, room: int) -> int:
        """As a host with GRO: equal datagrams of one sender share a read. What finds no slot waits."""
        udp, waiting = self._udps[version], self._waiting[version]
        while len(waiting) < room * SEGMENTS and (found := list(udp.receive())):
            waiting.extend((bytes(udp.buffer[at : at + size]), sender) for at, size, sender in found)
        count = 0
        while waiting and count < room:
            self._fill(slots[count], waiting)
            count += 1
        return count

    @staticmethod
    def _fill(slot: Any, waiting: deque[tuple[bytes, seam.Endpoint]]) -> None:
        sender = waiting[0][1]
        read = take_read(waiting)
        data = b"".join(read)
        ffi.memmove(slot.data, data, len(data))
        name = sockaddr.pack(sender)
        slot.size, slot.segment = len(data), len(read[0]) if len(read) > 1 else 0
        ffi.memmove(getattr(slot, "from").name, name, len(name))
        getattr(slot, "from").size = len(name)

    def _send(self, version: int, wagons: Any, count: int) -> int:
        """One wagon: the kernel calls again for the others."""
        wagon = wagons[0]
        data = bytes(ffi.buffer(wagon.data, wagon.size))
        endpoint = sockaddr.unpack(bytes(ffi.buffer(wagon.to.name, 28)))
        if wagon.size > wagon.segment:
            self._udps[version].send_train(memoryview(data), wagon.segment, endpoint)
        else:
            self._udps[version].send(data, endpoint)
        return min(count, 1)

    def close(self) -> None:
        self._kept.clear()


def compiled(tun: Tun, udps: Sequence[Udp], emit: Emit) -> CompiledKernel:
    return CompiledKernel(tun, udps, emit, FakeIo(tun, udps))


def narrow(tun: Tun, udps: Sequence[Udp], emit: Emit) -> CompiledKernel:
    """As on a processor that can run none of our own ciphers."""
    return CompiledKernel(tun, udps, emit, FakeIo(tun, udps), open_nacl(wide=0))
