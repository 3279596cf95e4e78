"""Netlink's envelope: messages and attributes as bytes, and a socket that asks and is answered.

     0               4       6       8               12              16
    ┌───────────────┬───────┬───────┬───────────────┬───────────────┬─────────┬─────────────────────────┐
    │ length        │ type  │ flags │ sequence      │ port          │ body …  │ length, kind, value … × │
    └───────────────┴───────┴───────┴───────────────┴───────────────┴─────────┴─────────────────────────┘

Law (netlink(7), linux/netlink.h): numbers are the host's, messages and attributes begin at multiples of four bytes. An
answer is read to its end, so none is ever taken for another's; what the kernel says was interrupted is no answer.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple, Self

REQUEST, ACK, DUMP = 1, 4, 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
INTERRUPTED: Final = 0x10
ERROR, DONE = 2, 3
NESTED: Final = 0x8000
KIND: Final = 0x3FFF
"""Of an attribute, without what says how it is to be read."""
RECEIVE_BYTES: Final = 1 << 18
SECONDS: Final = 5.0
TRIES: Final = 10
AT_ONCE: Final = 64
"""Messages before their answers are read: what does not fit the socket's buffer is lost."""
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
SO_RCVBUFFORCE: Final = 33
DRAIN_LIMIT: Final = 1024
"""Notifications read at one wake-up; what is left wakes the reader again."""

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NUMBER: Final = struct.Struct("=I")


class Message(NamedTuple):
    kind: int
    flags: int
    body: bytes


class LostError(OSError):
    """Answers are lost, or there are none: nobody knows what was carried out."""


class Wire:
    """One socket of one netlink family, in the namespace that the creating thread is in. Raises OSError."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.bind((0, 0))
        self._socket.settimeout(SECONDS)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, flags: int = ACK) -> list[bytes]:
        """Bodies of what is answered; with DUMP all there are.

        Raises OSError: InterruptedError if they change faster than they can be read.
        """
        for _ in range(TRIES):
            self._send([Message(kind, REQUEST | flags, body)])
            try:
                return list(self._answers(self._sequence))
            except InterruptedError:
                continue
        raise InterruptedError(errno.EINTR, "they change too fast to be listed")

    def tell(self, *messages: Message, but: Collection[int] = ()) -> None:
        """All are carried out, one after the other, whether those before fail or not.

        Raises the first's OSError; those of the codes `but` are no failures.
        """
        parts = (messages[first : first + AT_ONCE] for first in range(0, len(messages), AT_ONCE))
        codes = [code for part in parts for code in self._told(part)]
        if failed := [code for code in codes if code not in but]:
            raise _refusal(failed[0])

    def _told(self, messages: Sequence[Message]) -> list[int]:
        """What went wrong with each that did."""
        self._send([message._replace(flags=message.flags | REQUEST | ACK) for message in messages])
        codes = []
        for sequence in range(self._sequence - len(messages) + 1, self._sequence + 1):
            try:
                list(self._answers(sequence))
            except LostError:
                raise
            except OSError as error:
                codes.append(error.errno or errno.EIO)
        return codes

    def tell_at_once(self, first: Message, *messages: Message, last: Message) -> None:
        """As one transaction of nfnetlink, from `first` to `last`: all are carried out, or none. Raises OSError."""
        self._send([first, *(message._replace(flags=message.flags | REQUEST | ACK) for message in messages), last])
        begin = self._sequence - len(messages) - 1
        pending, codes = set(range(begin + 1, self._sequence)), [0]
        while pending:
            for kind, _, sequence, body in messages_of(self._received()):
                if kind != ERROR or not begin <= sequence <= self._sequence:
                    continue
                if sequence == begin:
                    pending.clear()  # a refusal of the whole, after which nobody else is answered
                pending.discard(sequence)
                codes.append(_code(body))
        if any(codes):
            raise _refusal(next(filter(None, codes)))

    def _send(self, messages: Sequence[Message]) -> None:
        data = b""
        for message in messages:
            self._sequence += 1
            head = _HEADER.pack(_HEADER.size + len(message.body), message.kind, message.flags, self._sequence, 0)
            data += head + message.body
        self._socket.send(data)

    def _received(self) -> bytes:
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise LostError(errno.ETIMEDOUT, "the kernel does not answer") from None
        except OSError as error:
            raise LostError(error.errno, error.strerror) from None

    def _answers(self, wanted: int) -> Iterator[bytes]:
        """The bodies of what is answered to one request; what is left of others, that were given up, goes unread."""
        interrupted = False
        while True:
            for kind, flags, sequence, body in messages_of(self._received()):
                if sequence != wanted:
                    continue
                interrupted |= bool(flags & INTERRUPTED)
                if kind not in {ERROR, DONE}:
                    yield body
                    continue
                if code := _code(body):
                    raise _refusal(code)
                if interrupted:
                    raise _refusal(errno.EINTR)
                return


class Hearing:
    """A socket that is readable when something was told to its groups. Raises OSError.

    `buffer` is how many bytes of news may wait, where it is more than the system's.
    """

    def __init__(self, family: int, groups: Sequence[int], buffer: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.bind((0, 0))
        if buffer:
            enlarge(self._socket, buffer)
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Empties the socket, or nearly: what is left is still news. True if there was something, or it was lost."""
        seen = False
        for _ in waiting(self._socket):
            seen = True
        return seen

    def close(self) -> None:
        self._socket.close()


def waiting(of: socket.socket) -> Iterator[bytes | None]:
    """What waits in a socket that does not block, but for what exceeds the limit; None where something was lost."""
    for _ in range(DRAIN_LIMIT):
        try:
            yield of.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None


def enlarge(of: socket.socket, buffer: int) -> None:
    """What waits in a socket may be so many bytes; fewer where nobody may exceed the system's limit."""
    try:
        of.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
    except PermissionError:
        of.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)


# --- reading ---------------------------------------------------------------------------------------------------------
def messages_of(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, sequence and body of each."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    view, offset = memoryview(data), 0
    while offset + _ATTRIBUTE.size <= len(view):
        length, kind = _ATTRIBUTE.unpack_from(view, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & KIND, view[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def text_of(data: memoryview | None) -> str:
    return bytes(data or b"").rstrip(b"\0").decode(errors="replace")


def number_of(data: memoryview | None) -> int:
    return int(_NUMBER.unpack(data)[0]) if data is not None and len(data) == _NUMBER.size else 0


def _code(body: bytes) -> int:
    """What an acknowledgement, or the end of a dump, says; 0: all is well."""
    return max(-int.from_bytes(body[:4], sys.byteorder, signed=True), 0)


def _refusal(code: int) -> OSError:
    """Raised at once: whoever keeps it keeps all that its callers have, pods' namespaces as well."""
    return OSError(code, os.strerror(code))


# --- writing ---------------------------------------------------------------------------------------------------------
def attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + b"\0" * (-len(data) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def mac(kind: int, value: str) -> bytes:
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, _NUMBER.pack(value))


def flag(kind: int, *, on: bool) -> bytes:
    """One byte."""
    return attribute(kind, bytes([on]))


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))
