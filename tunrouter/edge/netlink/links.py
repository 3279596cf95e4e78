"""Looking at network devices: rtnetlink's RTM_GETLINK, of which only what we use is read.

Law (rtnetlink(7), linux/if_link.h): a listing that the kernel says was interrupted by a change is asked for again. A
node has a device for each of its pods and looks at them all when one comes or goes; a library that makes an object of
every attribute takes ten times as long.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from tunrouter.errors import HostError

RTM_GETLINK: Final = 18
REQUEST, ACK, DUMP = 1, 4, 0x300
INTERRUPTED: Final = 0x10
ERROR, DONE = 2, 3
IFF_UP: Final = 1
ADDRESS, NAME, MTU, MASTER, QUEUE, INFO, ALIAS = 1, 3, 4, 10, 13, 18, 20  # IFLA_*
KIND, PORT_KIND, PORT_DATA = 1, 4, 5  # IFLA_INFO_*
PORT_HAIRPIN, PORT_ISOLATED = 4, 33  # IFLA_BRPORT_*
NESTED: Final = 0x3FFF
RECEIVE_BYTES: Final = 1 << 18
TRIES: Final = 10
SECONDS: Final = 5.0

_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NUMBER: Final = struct.Struct("=I")


class Link(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    name: str
    kind: str
    """`bridge`, `veth`, `tun`, …; empty for hardware."""
    mac: str
    mtu: int
    queue: int
    up: bool
    master: int
    """Index of the bridge this is a port of, or 0."""
    alias: str
    isolated: bool = False
    hairpin: bool = False


class Links:
    """One socket in the namespace that the creating thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(SECONDS)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def one(self, name: str) -> Link | None:
        """None if there is no device of this name. Raises HostError."""
        wanted = name.encode() + b"\0"
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(wanted), NAME) + wanted + b"\0" * (-len(wanted) % 4)
        try:
            return next(iter(list(self._exchange(REQUEST | ACK, attribute))), None)
        except OSError as error:
            if error.errno in {errno.ENODEV, errno.ERANGE, errno.EINVAL}:
                return None
            raise _cannot(f"cannot look at {name}", error) from None

    def all(self) -> list[Link]:
        """Raises HostError."""
        for _ in range(TRIES):
            try:
                return list(self._exchange(REQUEST | DUMP, b""))
            except InterruptedError:
                continue
            except OSError as error:
                raise _cannot("cannot list the network devices", error) from None
        raise HostError("the network devices change too fast to be listed", "see: ip -o link")

    def _exchange(self, flags: int, attributes: bytes) -> Iterator[Link]:
        self._sequence += 1
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attributes
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), RTM_GETLINK, flags, self._sequence, 0) + body)
        interrupted = False
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, said, sequence, _ = _HEADER.unpack_from(data, offset)
                payload = memoryview(data)[offset + _HEADER.size : offset + length]
                offset += max((length + 3) & ~3, _HEADER.size)
                if sequence != self._sequence:
                    continue  # of an exchange that was given up
                interrupted |= bool(said & INTERRUPTED)
                if kind == DONE and interrupted:
                    raise InterruptedError
                if kind == DONE:
                    if (code := int.from_bytes(payload[:4], sys.byteorder, signed=True)) < 0:
                        raise OSError(-code, os.strerror(-code))
                    return
                if kind == ERROR:
                    if code := -struct.unpack_from("=i", payload)[0]:
                        raise OSError(code, os.strerror(code))
                    return
                yield _read(payload)


def _read(payload: memoryview) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    found = dict(_attributes(payload[_LINK.size :]))
    info = dict(_attributes(found.get(INFO, memoryview(b""))))
    port = dict(_attributes(info[PORT_DATA])) if _text(info.get(PORT_KIND)) == "bridge" and PORT_DATA in info else {}
    return Link(
        index=index,
        name=_text(found.get(NAME)),
        kind=_text(info.get(KIND)),
        mac=bytes(found.get(ADDRESS, b"")).hex(":"),
        mtu=_number(found.get(MTU)),
        queue=_number(found.get(QUEUE)),
        up=bool(flags & IFF_UP),
        master=_number(found.get(MASTER)),
        alias=_text(found.get(ALIAS)),
        isolated=any(port.get(PORT_ISOLATED, b"")),
        hairpin=any(port.get(PORT_HAIRPIN, b"")),
    )


def _attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & NESTED, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _text(data: memoryview | None) -> str:
    return bytes(data or b"").rstrip(b"\0").decode(errors="replace")


def _number(data: memoryview | None) -> int:
    return int(_NUMBER.unpack(data)[0]) if data is not None and len(data) == _NUMBER.size else 0


def _cannot(doing: str, error: OSError) -> HostError:
    return HostError(f"{doing}: {error.strerror or error}", "see dmesg, then try again")
