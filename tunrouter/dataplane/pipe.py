"""One end of the seam's pipe: messages over a SOCK_SEQPACKET pair, which keeps their limits and never splits them.

Law: what carries state waits for room, in order; what is lossy (`seam.LOSSY`) is dropped when the pipe is full, and
counted. Nothing lossy waits behind state. Raw handshakes are dropped first, when half of the pipe stands unread: a
flood of them leaves room for what live sessions need.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from tunrouter.core import bounds, seam
from tunrouter.errors import ProtocolError

Received = TypeVar("Received")
_PIPE_BYTES: Final = 1 << 20
_INT: Final = struct.Struct("i")


class PipeEnd(Generic[Received]):
    """One end, non-blocking; drives no loop. Its owner waits for `fileno` and calls `flush` while `wants_write`."""

    def __init__(self, end: socket.socket, decode: Callable[[bytes], Received]) -> None:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES // 2)  # the kernel doubles it
        self._end = end
        self._decode = decode
        self._backlog: deque[bytes] = deque()
        self.dropped = 0
        """Lossy messages that found no room."""
        self.dropped_raw = 0
        """Handshakes that found half of the pipe unread."""
        self.malformed = 0
        """What arrived and was no message: the two ends are not of one build."""
        self.closed = False
        """The other end is gone."""

    def fileno(self) -> int:
        return self._end.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._backlog)

    def send(self, message: seam.ToWorker | seam.ToControl) -> None:
        """Sends, keeps or drops; raises ProtocolError when nobody reads and more state would wait than may."""
        lossy = isinstance(message, seam.LOSSY)
        if self._backlog:
            self.flush()
        if self.closed:
            return
        if isinstance(message, seam.Raw) and self._unread() > _PIPE_BYTES // 2:
            self.dropped_raw += 1
            return
        if self._backlog and lossy:
            self.dropped += 1
            return
        data = seam.encode(message)
        if self._backlog or not self._try(data):
            if lossy:
                self.dropped += 1
            elif len(self._backlog) >= bounds.SEAM_BACKLOG:
                raise ProtocolError("the other end of the seam does not read")
            else:
                self._backlog.append(data)

    def _unread(self) -> int:
        """Bytes, with the kernel's own cost, that the other end has not read."""
        return int(_INT.unpack(fcntl.ioctl(self._end, termios.TIOCOUTQ, bytes(_INT.size)))[0])

    def flush(self) -> None:
        """Sends what waits, as far as there is room."""
        backlog = self._backlog
        while backlog and self._try(backlog[0]):
            backlog.popleft()

    def _try(self, data: bytes) -> bool:
        """False if there is no room now."""
        try:
            self._end.send(data)
        except (BlockingIOError, InterruptedError):
            return False
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True
            self._backlog.clear()
        return True

    def receive(self) -> list[Received]:
        """At most bounds.WAKEUP_BATCH messages. What is none is counted: the messages before and behind it matter."""
        messages: list[Received] = []
        try:
            while len(messages) < bounds.WAKEUP_BATCH:
                data = self._end.recv(bounds.SEAM_MESSAGE_BYTES)
                if not data:
                    self.closed = True
                    break
                try:
                    messages.append(self._decode(data))
                except ProtocolError:
                    self.malformed += 1
        except (BlockingIOError, InterruptedError):
            pass
        except ConnectionResetError:
            self.closed = True
        return messages

    def close(self) -> None:
        self._end.close()


def open_pipe() -> tuple[PipeEnd[seam.ToControl], PipeEnd[seam.ToWorker]]:
    """Control's end and the worker's end."""
    control, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return PipeEnd(control, seam.decode_to_control), PipeEnd(worker, seam.decode_to_worker)
