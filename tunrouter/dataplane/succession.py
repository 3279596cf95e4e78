"""How a worker passes from an agent that is gone to the next one: over a unix socket, with the descriptors it holds.

    worker  listens on PATH ──> Hello, its UDP sockets ──> what it was left with ──> messages of the seam
    agent   connects ─────────> ends it, or is its control from now on

Law: only a process of the same user is served. An agent of the same build that wants the same data plane takes the
worker; one of another build takes its sockets, for a worker of its own that ends this one once its program has started
(so a `Hello` only ever gets fields more). Nobody is waited for longer than `WAIT_SECONDS`; what hangs is killed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tunrouter.core import seam
from tunrouter.dataplane.pipe import PipeEnd

ORPHAN_SECONDS: Final = 10.0
"""How long packets are moved without an agent: several times what one needs to start."""
WAIT_SECONDS: Final = 2.0
MAX_HELLO: Final = 1024
MAX_SOCKETS: Final = 2
"""One a family."""
_CREDENTIALS: Final = struct.Struct("=iII")
"""Process, user and group, as SO_PEERCRED has them."""


class Misfit(Exception):  # noqa: N818  (no error: it was dealt with)
    """Who listened served something else, or hung; it was ended."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """What a worker says of itself, with its UDP sockets beside it."""

    charter: str
    """Of its control."""
    build: str
    """What code it runs."""
    offloads: tuple[str, ...]
    """Of the TUN device."""


class Succession:
    """The worker's end; it listens only while there is no agent."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        build: str,
        offloads: tuple[str, ...],
        sockets: Sequence[int],
        *,
        waits: Callable[[bool], None] = lambda on: None,
    ) -> None:
        """`waits` is told when it begins to listen and when that is over."""
        self._loop = loop
        self._waits = waits
        self._path = path
        self._build = build
        self._offloads = offloads
        self._sockets = sockets
        self._hello = b""
        self._listener: socket.socket | None = None

    def open(self, charter: str, found: Callable[[socket.socket], None]) -> None:
        """Until `close`, or an agent is `found`. Raises OSError."""
        self._hello = msgspec.msgpack.encode(Hello(charter, self._build, self._offloads))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            listener.bind(self._path)
            os.chmod(self._path, 0o600)
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._waits(True)
        self._loop.add_reader(listener.fileno(), self._accept, listener, found)

    def _accept(self, listener: socket.socket, found: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):  # who knocked is gone again
            heir, _ = listener.accept()
            if _credentials(heir)[1] != os.geteuid():
                heir.close()
                return
            socket.send_fds(heir, [self._hello], self._sockets)
            self.close()
            found(heir)

    def close(self) -> None:
        """Idempotent."""
        if self._listener is None:
            return
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = None
        self._waits(False)
        with suppress(FileNotFoundError):
            os.unlink(self._path)


class Heirloom(NamedTuple):
    """A worker that an earlier agent left behind."""

    pid: int
    process: int
    """A descriptor of the process (pidfd)."""
    pipe: PipeEnd[seam.ToControl]
    sockets: list[socket.socket]
    """One a family."""
    build: str
    offloads: tuple[str, ...]


def claim(path: Path, charter: str) -> Heirloom | None:
    """The worker that listens there; None if none does yet. Blocks. Raises Misfit for one that it had to end."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(WAIT_SECONDS)
    try:
        line.connect(str(path))
        pid, user, _ = _credentials(line)
        process = os.pidfd_open(pid)
    except (OSError, TimeoutError):
        line.close()
        return None
    if user != os.geteuid():  # nobody of ours: it is not for us to end it
        line.close()
        os.close(process)
        return None
    sockets: list[socket.socket] = []
    try:
        said, descriptors, _, _ = socket.recv_fds(line, MAX_HELLO, MAX_SOCKETS)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        hello = msgspec.msgpack.decode(said, type=Hello)
        if hello.charter == charter and sockets:
            pipe = PipeEnd(line, seam.decode_to_control)
            return Heirloom(pid, process, pipe, sockets, hello.build, hello.offloads)
    except (OSError, TimeoutError, msgspec.MsgspecError):
        pass  # it hangs, or it is of another build
    for held in (line, *sockets):
        held.close()
    end(process)
    raise Misfit


def end(process: int) -> None:
    """Kills it and returns when it is gone, its descriptors with it; closes `process`."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    select.select([process], [], [], WAIT_SECONDS)
    os.close(process)


def abandon(heirloom: Heirloom) -> None:
    """It is not wanted after all."""
    heirloom.pipe.close()
    for held in heirloom.sockets:
        held.close()
    end(heirloom.process)


def _credentials(connected: socket.socket) -> tuple[int, int, int]:
    pid, user, group = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, user, group
