"""The agent's side of its API: a unix socket that answers JSON lines under asyncio or uvloop.

Law: receiving a request and sending its answer are bounded in size and time, and so is the number of clients; how long
the work itself takes is the handler's affair. A client that sends garbage, too much, nothing, or leaves early is closed
alone. Work that has begun is finished even when its client has gone.

One agent a socket: the lock file beside it is held for life, so the kernel frees it however the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from tunrouter.edge.api.messages import CHANGING, VERSION, Answer, Call, Failure
from tunrouter.edge.api.policing import ENFORCING, PolicyCall
from tunrouter.errors import HostError, TunrouterError

REQUEST_BYTES: Final = (1 << 20) + (64 << 10)
"""A CNI configuration may have a mebibyte."""
SECONDS: Final = 5.0
"""To send one request line, and to take its answer."""
CLIENTS: Final = 256
"""At once: a runtime that starts all its pods again asks for each."""
BACKLOG: Final = 256
MODE: Final = 0o660
GROUP: Final = "tunrouter"
"""Members of this group, if it exists, may ask; only root may change."""

T = TypeVar("T")
Handler = Callable[[T], Awaitable[Any]]
"""Answers a call with a msgspec struct, or None; raises TunrouterError."""


class Language(NamedTuple, Generic[T]):
    """Who answers, the calls that are understood, and which of them only root may make."""

    who: str
    calls: msgspec.json.Decoder[T]
    changing: Any
    """A union of types."""


AGENT: Final[Language[Call]] = Language("the agent", msgspec.json.Decoder(Call), CHANGING)
POLICING: Final[Language[PolicyCall]] = Language("weave-npc", msgspec.json.Decoder(PolicyCall), ENFORCING)

_ACCEPT_TURNS: Final = 4
"""Turns of the loop from a connection's acceptance to our hearing of it, and to the end of it when that is too late."""
_PEERCRED: Final = struct.Struct("3i")
_encoder: Final = msgspec.json.Encoder()
_log: Final = logging.getLogger(__name__)


class _Envelope(msgspec.Struct):
    """A request whose call is not looked at before its version."""

    version: int
    call: msgspec.Raw


_envelopes: Final = msgspec.json.Decoder(_Envelope)


async def serve(
    path: Path,
    handler: Handler[T],
    language: Language[T] = AGENT,  # type: ignore[assignment]
    *,
    seconds: float = SECONDS,
    clients: int = CLIENTS,
    group: str = GROUP,
) -> Server[T]:
    """Listens on `path` until `Server.close`; raises HostError if somebody already does."""
    lock = _lock(path)
    try:
        listener = _listen(path, group)
    except BaseException:
        os.close(lock)
        raise
    server = Server(path, lock, handler, language, seconds, clients)
    await server.start(listener)
    return server


def _lock(path: Path) -> int:
    try:
        _make_directory(path.parent)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}", "run as root, or choose another run_dir") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 16, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise _already(path, f"pid {holder}") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _make_directory(path: Path) -> None:
    """Passable for the group whatever the umask; an existing one stays as it is."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(parents=True)
        path.chmod(0o755)


def _already(path: Path, who: str) -> HostError:
    return HostError(f"an agent already runs on {path} ({who})", "stop it first, or set another run_dir")


def _listen(path: Path, group: str) -> socket.socket:
    """The bound socket; only what nobody listens on is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The file appears with this mode (less the umask), so at no time can others open it.
        os.fchmod(listener.fileno(), MODE)
        listener.bind(str(path))
        _give_to_group(path, group)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise HostError(f"{path}: {error.strerror or error}", "make run_dir a short path that root may write") from None
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise HostError(f"{path} is not a socket", "remove it, or set another run_dir")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        else:
            raise _already(path, "another program")


def _give_to_group(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        _log.debug("no group %s: only root may use %s", group, path)
    path.chmod(MODE)


class Server(Generic[T]):
    """The listening socket and its clients."""

    def __init__(
        self, path: Path, lock: int, handler: Handler[T], language: Language[T], seconds: float, clients: int
    ) -> None:
        self._path = path
        self._lock = lock
        self._handler = handler
        self._language = language
        self._seconds = seconds
        self._limit = clients
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._listening: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        self._listening = await asyncio.start_unix_server(
            self._connected, sock=listener, limit=REQUEST_BYTES, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Stops listening, closes every client and takes the socket away. Calls under way are cancelled."""
        if self._listening is None:
            return
        listening, self._listening = self._listening, None
        listening.close()
        self._path.unlink(missing_ok=True)
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        clients = dict(self._clients)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in clients.values()), return_exceptions=True)
        os.close(self._lock)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._listening is None:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._clients[task] = writer
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        """Also after a task that was cancelled before its first step."""
        writer = self._clients.pop(task)
        if writer.transport.get_write_buffer_size():
            # A client that does not read must not hold what is left to send.
            writer.transport.abort()
        writer.close()
        if not task.cancelled() and (error := task.exception()):
            _log.debug("an API client left: %r", error)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) > self._limit:
            await self._send(writer, _failed(f"{self._language.who} has too many clients", "try again"))
            return
        uid = _uid(writer)
        asked = False
        while (line := await self._receive(reader, writer, asked)) is not None:
            await self._send(writer, await self._answer(line, uid))
            asked = True

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bool) -> bytes | None:
        """One line; None when the client is done, slow or beyond the limit. Who has asked before may just stop."""
        try:
            async with asyncio.timeout(self._seconds):
                return await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except TimeoutError:
            if not asked:
                await self._send(writer, _failed(f"no request within {self._seconds:g} s", "ask at once"))
        except asyncio.LimitOverrunError:
            await self._send(writer, _failed(f"the request exceeds {REQUEST_BYTES >> 10} KiB", "ask for less"))
        return None

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        writer.transport.set_write_buffer_limits(0)
        writer.write(_encoder.encode(answer) + b"\n")
        async with asyncio.timeout(self._seconds):
            await writer.drain()

    async def _answer(self, line: bytes, uid: int) -> Answer:
        try:
            call = self._decode(line)
            if isinstance(call, self._language.changing) and uid != 0:
                return _failed("only root may change the network", "run the command with sudo")
            result = await self._handler(call)
            return Answer(VERSION, result=msgspec.Raw(_encoder.encode(result)))
        except TunrouterError as error:
            return Answer(VERSION, error=Failure(error.what, error.fix, error.exit_code))
        except Exception:
            _log.exception("an API call failed")
            return _failed(
                f"{self._language.who} could not do this: an internal error", f"see {self._language.who}'s log"
            )

    def _decode(self, line: bytes) -> T:
        """Raises TunrouterError."""
        try:
            envelope = _envelopes.decode(line)
            if envelope.version != VERSION:
                raise TunrouterError(
                    f"{self._language.who} speaks API version {VERSION}, the request {envelope.version}",
                    f"use the command of {self._language.who}'s version, or restart it after an upgrade",
                )
            return self._language.calls.decode(envelope.call)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise TunrouterError(f"not a request: {error}", "ask as docs/api.md describes") from None


def _failed(what: str, fix: str) -> Answer:
    return Answer(VERSION, error=Failure(what, fix))


def _uid(writer: asyncio.StreamWriter) -> int:
    """The client's user as the kernel knows it."""
    connection = writer.get_extra_info("socket")
    with contextlib.closing(socket.socket(fileno=os.dup(connection.fileno()))) as own:
        return int(_PEERCRED.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))[1])
