"""One end of the seam's pipe: messages over a SOCK_SEQPACKET pair, which keeps their limits and never splits them.

Law: what carries state waits for room, in order; what is lossy (`seam.LOSSY`) is dropped when the pipe is full, and
counted. Nothing lossy waits behind state. What others can make any number of is dropped first, when half of the pipe
stands unread: raw handshakes, and what members have relayed. Then `Used`, whose sender sends them again: neither a
flood nor a report of thousands of sessions crowds out the heartbeats of live ones. A message too large for the other
end is refused: cut off, it would be none. `Retired` waits like state, but is dropped where no more may wait: it is the
last word of keys, and they are gone whether it is heard or not.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import termios
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from tunrouter.core import bounds, seam
from tunrouter.errors import ProtocolError

Received = TypeVar("Received")
_PIPE_BYTES: Final = 1 << 20
_INT: Final = struct.Struct("i")
_FLOODS: Final = (seam.Raw, seam.HopWanted, seam.Astray, seam.Relayed)
_NO_ROOM: Final = (errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM)
"""Now: of the pipe, or of the kernel's memory."""


class PipeEnd(Generic[Received]):
    """One end, non-blocking; drives no loop. Its owner waits for `fileno` and calls `flush` while `wants_write`.

    Any thread may send.
    """

    def __init__(self, end: socket.socket, decode: Callable[[bytes], Received]) -> None:
        room = _prepare(end)
        self._shares: dict[type, int] = {**dict.fromkeys(_FLOODS, room // 2), seam.Used: room * 3 // 4}
        """How much may stand unread when one of these is sent."""
        self._end = end
        self._decode = decode
        self._backlog: deque[bytes] = deque()
        self._sending = threading.RLock()
        self._most = bounds.SEAM_BACKLOG
        self.dropped = 0
        """Lossy messages that found no room and are not sent again."""
        self.dropped_raw = 0
        """Handshakes that found no room, or half of the pipe unread."""
        self.malformed = 0
        """What arrived and was no message: the two ends are not of one build."""
        self.closed = False
        """The other end is gone."""
        self.unheard: Callable[[seam.ToWorker | seam.ToControl], None] = lambda message: None
        """Gets what is sent when it is; called by whatever thread sends."""

    def fileno(self) -> int:
        return self._end.fileno()

    def renew(self, end: socket.socket) -> None:
        """Another one's other end, in place of one that is gone."""
        with self._sending:
            self._end.close()
            self._end = end
            _prepare(end)
            self._backlog.clear()
            self.closed = False

    @property
    def wants_write(self) -> bool:
        return bool(self._backlog)

    def send(self, message: seam.ToWorker | seam.ToControl) -> bool:
        """Sends or keeps, else drops and is False.

        Raises ProtocolError for a message that is too large, and when nobody reads and more state would wait than may.
        """
        with self._sending:
            return self._send(message)

    def _send(self, message: seam.ToWorker | seam.ToControl) -> bool:
        if self._backlog:
            self.flush()
        if self.closed:
            self.unheard(message)
            return True
        share = self._shares.get(type(message))
        if share is not None and self._unread() > share:
            return self._drop(message)
        lossy = isinstance(message, seam.LOSSY)
        if self._backlog and lossy:
            return self._drop(message)
        data = seam.encode(message)
        if len(data) > bounds.SEAM_MESSAGE_BYTES:
            raise ProtocolError(f"{type(message).__name__} of {len(data)} bytes does not fit the seam")
        if self._backlog or not self._try(data):
            if lossy:
                return self._drop(message)
            if len(self._backlog) >= self._most:
                if isinstance(message, seam.Retired):
                    return self._drop(message)
                raise ProtocolError("the other end of the seam does not read")
            self._backlog.append(data)
        return True

    def tell(self, state: Sequence[seam.ToWorker]) -> None:
        """Sends all that a newborn must know; as much more may wait as it is."""
        self._most += len(state)
        for message in state:
            self.send(message)

    def _drop(self, message: seam.ToWorker | seam.ToControl) -> bool:
        if isinstance(message, seam.Raw):
            self.dropped_raw += 1
        elif not isinstance(message, seam.Used):  # nothing is lost: it is sent again
            self.dropped += 1
        return False

    def _unread(self) -> int:
        """Bytes, with the kernel's own cost, that the other end has not read."""
        return int(_INT.unpack(fcntl.ioctl(self._end, termios.TIOCOUTQ, bytes(_INT.size)))[0])

    def flush(self) -> None:
        """Sends what waits, as far as there is room."""
        backlog = self._backlog
        with self._sending:
            while backlog and self._try(backlog[0]):
                backlog.popleft()

    def _try(self, data: bytes) -> bool:
        """False if there is no room now."""
        try:
            self._end.send(data)
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True
            self._backlog.clear()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return False
        return True

    def receive(self) -> list[Received]:
        """At most bounds.WAKEUP_BATCH messages. What is none is counted: the messages before and behind it matter."""
        messages: list[Received] = []
        try:
            while len(messages) < bounds.WAKEUP_BATCH:
                data = self._receive()
                if not data:
                    self.closed = True
                    break
                try:
                    messages.append(self._decode(data))
                except ProtocolError:
                    self.malformed += 1
        except (BlockingIOError, InterruptedError):
            pass
        return messages

    def _receive(self) -> bytes:
        """The next message; none at the end. An end that had not read everything says so before its last words."""
        try:
            return self._end.recv(bounds.SEAM_MESSAGE_BYTES)
        except ConnectionResetError:
            return self._end.recv(bounds.SEAM_MESSAGE_BYTES)

    def close(self) -> None:
        self._end.close()


def _prepare(end: socket.socket) -> int:
    """How many bytes may stand unread."""
    end.setblocking(False)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES // 2)  # the kernel doubles it
    return end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)  # net.core.wmem_max may allow less


def open_pipe() -> tuple[PipeEnd[seam.ToControl], PipeEnd[seam.ToWorker]]:
    """Control's end and the worker's end."""
    control, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return PipeEnd(control, seam.decode_to_control), PipeEnd(worker, seam.decode_to_worker)


def inherited_end(descriptor: int) -> PipeEnd[seam.ToWorker]:
    """The worker's end in a process of its own."""
    return PipeEnd(socket.socket(fileno=descriptor), seam.decode_to_worker)
