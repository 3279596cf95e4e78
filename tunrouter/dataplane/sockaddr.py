"""Endpoints as the kernel writes them: sockaddr_in (16 bytes) and sockaddr_in6 (28 bytes), which keeps its scope.

An endpoint by relay is no socket's: to the compiled kernel it is written as AF_UNSPEC and the node's number (12 bytes).
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import Final

from tunrouter.core import bounds, seam

_V4: Final = struct.Struct("=H2s4s8x")
_V6: Final = struct.Struct("=H2sI16sI")
_RELAYED: Final = struct.Struct(">HxxQ")
SIZES: Final = {4: _V4.size, 6: _V6.size}


@lru_cache(bounds.MAX_SOURCES)
def pack(endpoint: seam.Endpoint) -> bytes:
    """Raises OSError for what is no address."""
    if node := seam.relay_target(endpoint):
        return _RELAYED.pack(socket.AF_UNSPEC, node)
    address, port = endpoint
    if ":" not in address:
        return _V4.pack(socket.AF_INET, port.to_bytes(2, "big"), socket.inet_pton(socket.AF_INET, address))
    host, _, scope = address.partition("%")
    number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope) if scope else 0
    return _V6.pack(socket.AF_INET6, port.to_bytes(2, "big"), 0, socket.inet_pton(socket.AF_INET6, host), number)


@lru_cache(bounds.MAX_SOURCES)
def unpack(name: bytes) -> seam.Endpoint:
    """Of a sockaddr of either family, which may be followed by other bytes."""
    (family,) = struct.unpack_from("=H", name)
    if family == socket.AF_UNSPEC:
        return seam.relayed(_RELAYED.unpack_from(name)[1])
    if family == socket.AF_INET:
        _, port, address = _V4.unpack_from(name)
        return socket.inet_ntop(socket.AF_INET, address), int.from_bytes(port, "big")
    _, port, _, address, scope = _V6.unpack_from(name)
    text = socket.inet_ntop(socket.AF_INET6, address)
    return (f"{text}%{scope}" if scope else text), int.from_bytes(port, "big")
