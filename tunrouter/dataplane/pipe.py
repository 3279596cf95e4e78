"""One end of the seam's pipe: messages over a SOCK_SEQPACKET pair, which keeps their limits and never splits them.

Law: what carries state waits for room, in order; what is lossy (`seam.LOSSY`) is dropped when the pipe is full and counted
by `dropped`. Nothing lossy overtakes or waits behind state. Raw handshakes are dropped first: they share the pipe only
while less than half of their backlog stands in it unread.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from tunrouter.core import bounds, seam
from tunrouter.errors import ProtocolError

Received = TypeVar("Received")
_PIPE_BYTES: Final = 1 << 20


class PipeEnd(Generic[Received]):
    """One end, non-blocking; drives no loop. Its owner waits for `fileno` and calls `flush` while `wants_write`."""

    def __init__(self, end: socket.socket, decode: Callable[[bytes], Received]) -> None:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
        self._end = end
        self._decode = decode
        self._backlog: deque[bytes] = deque()
        self.dropped = 0
        """Lossy messages that found no room."""
        self.closed = False
        """The other end is gone."""

    def fileno(self) -> int:
        return self._end.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._backlog)

    def send(self, message: seam.ToWorker | seam.ToControl) -> None:
        """Sends, keeps or drops; raises ProtocolError if the other end has not read for so long that state overflows."""
        lossy = isinstance(message, seam.LOSSY)
        if self._backlog:
            self.flush()
        if self.closed:
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
        """At most bounds.WAKEUP_BATCH messages; raises ProtocolError for one that is none."""
        messages: list[Received] = []
        try:
            while len(messages) < bounds.WAKEUP_BATCH:
                data = self._end.recv(bounds.SEAM_MESSAGE_BYTES)
                if not data:
                    self.closed = True
                    break
                messages.append(self._decode(data))
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
