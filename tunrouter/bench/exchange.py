"""What the two ends of `tunrouter bench PEER` say to each other through the tunnel: client and responder.

    TCP, the first bytes of every connection     token 16 | role u8 | milliseconds u32
      CONTROL   one at a time; its end is the client's. Then commands of one byte, each answered by a `REPLY`:
                  ECHO     datagrams come back
                  COUNT    datagrams are counted from now on
                  RESULT   once they have stopped: how many, nanoseconds from first to last, overruns of the socket
      SINK      takes bytes until their end, then a `REPLY`: how many, nanoseconds from first to last, 0
      SOURCE    gives bytes for that long
    UDP, the first datagram of the flow          token 16 | anything

A connection's opening to CONTROL is answered by a `REPLY` of zeros, the flow's first datagram by itself.

Law: who does not know the token gets nothing but the end of its connection, and the responder never sends more than it
was asked for: a datagram for a datagram, and no stream longer than `STREAM_SECONDS`.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

TOKEN_BYTES: Final = 16
OPENING: Final = struct.Struct(f">{TOKEN_BYTES}sBI")
REPLY: Final = struct.Struct(">QQQ")

CONTROL: Final = 1
SINK: Final = 2
SOURCE: Final = 3

ECHO: Final = b"E"
COUNT: Final = b"C"
RESULT: Final = b"R"

STREAM_SECONDS: Final = 30.0
BLOCK: Final = 256 << 10
"""Of a stream, handed to the kernel or taken from it at a time."""


class Ports(msgspec.Struct, frozen=True):
    """The responder's first words to its agent."""

    tcp: int
    udp: int


class Served(msgspec.Struct, frozen=True):
    """Its last."""

    end: str
    """Why it ends."""
    strangers: int
    """Connections and datagrams that did not show the token."""
