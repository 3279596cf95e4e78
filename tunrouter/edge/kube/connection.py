"""One HTTP/1.1 connection to the API server: a request, its answer in parts, then the next. h11 speaks.

Law: every wait has an end, and every way to fail is Unreachable, told in one line. A peer that is gone without a word
is found by the kernel: keepalive while nothing is under way, and a bound on what stays unacknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import Final, NamedTuple

import h11

from tunrouter.edge.kube.access import Access
from tunrouter.edge.kube.faults import SilentError, UnreachableError

HEAD_BYTES: Final = 64 << 10
READ_BYTES: Final = 256 << 10
IDLE_SECONDS: Final = 30.0
"""A balancer on the way may have forgotten a connection that was idle for longer."""
PROBES: Final = 3


class Patience(NamedTuple):
    """Seconds."""

    connect: float = 3.0
    """TLS as well. What was sent before kube-proxy is up is lost for good, so it is not waited for long."""
    answer: float = 10.0
    """To an answer's head, and then between its parts."""
    whole: float = 60.0
    """For all of an answer that is no watch."""
    silence: float = 90.0
    """Of a watch: a server has a bookmark to tell every minute, but of kinds that never changed since it runs."""
    keepalive: int = 10
    """Until the kernel asks an idle peer whether it lives, and between its three questions."""


class ClosedError(UnreachableError):
    """The connection ended before anything was answered: a kept one may have been closed since its last request."""


class Connection:
    """Made by `connect`. After any error it is only to be closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: str) -> None:
        self._reader = reader
        self._writer = writer
        self._server = server
        self._speech = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._idle_since = 0.0
        self._answered = False
        """Something came back for the request under way."""

    @property
    def usable(self) -> bool:
        """Between requests: neither closed by the other side, as far as we have heard, nor idle for too long."""
        idle = asyncio.get_running_loop().time() - self._idle_since
        return idle < IDLE_SECONDS and not self._reader.at_eof() and not self._writer.is_closing()

    async def ask(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, seconds: float
    ) -> h11.Response:
        """Sends the request whole; the head of its answer."""
        self._answered = False
        try:
            async with asyncio.timeout(seconds):
                self._write(h11.Request(method=method, target=target, headers=headers))
                if body:
                    self._write(h11.Data(data=body))
                self._write(h11.EndOfMessage())
                await self._writer.drain()
                event = await self._event()
        except OSError as error:
            raise self._lost(error, UnreachableError(f"{self._server} did not answer within {seconds:g} s")) from None
        except h11.LocalProtocolError as error:
            raise UnreachableError(f"{self._server} cannot be asked with this token: {error}") from None
        if not isinstance(event, h11.Response):
            raise self._broken(f"{self._server} closed the connection without an answer")
        return event

    async def part(self, seconds: float) -> bytes:
        """Some of the body; empty at its end."""
        try:
            async with asyncio.timeout(seconds):
                event = await self._event()
        except OSError as error:
            raise self._lost(error, SilentError(f"{self._server} said nothing for {seconds:g} s")) from None
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return b""

    def recycle(self) -> bool:
        """After the end of an answer: whether another request may follow."""
        if self._speech.our_state is not h11.DONE or self._speech.their_state is not h11.DONE:
            return False
        self._speech.start_next_cycle()
        self._idle_since = asyncio.get_running_loop().time()
        return self.usable

    def close(self) -> None:
        """At once: nothing that matters is under way."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _write(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        data = self._speech.send(event)
        if data:
            self._writer.write(data)

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        """The next but for announcements (1xx). Raises UnreachableError for what is no HTTP, or ends too early."""
        while True:
            try:
                event = self._speech.next_event()
                if event is h11.NEED_DATA:
                    data = await self._reader.read(READ_BYTES)
                    self._answered = self._answered or bool(data)
                    self._speech.receive_data(data)
                    continue
            except h11.RemoteProtocolError as error:
                raise self._broken(f"{self._server} broke off, or speaks no HTTP: {error}") from None
            if not isinstance(event, h11.InformationalResponse):
                return event  # type: ignore[return-value]

    def _lost(self, error: OSError, late: UnreachableError) -> UnreachableError:
        """The loop's own timeouts have no number, unlike the kernel's, which has asked the peer in vain."""
        if isinstance(error, TimeoutError) and not error.errno:
            return late
        return self._broken(f"the connection to {self._server} broke: {error.strerror or error}")

    def _broken(self, what: str) -> UnreachableError:
        return UnreachableError(what) if self._answered else ClosedError(what)


async def connect(access: Access, patience: Patience) -> Connection:
    """Raises UnreachableError."""
    writer = None
    try:
        async with asyncio.timeout(patience.connect):
            reader, writer = await asyncio.open_connection(
                access.host, access.port, ssl=access.context(), limit=READ_BYTES
            )
        _watch_over(writer, patience.keepalive)
    except TimeoutError:
        raise UnreachableError(f"{access} did not accept within {patience.connect:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise UnreachableError(f"{access} shows a certificate that is not trusted: {error.verify_message}") from None
    except OSError as error:
        if writer is not None:
            writer.transport.abort()
        raise UnreachableError(f"{access} is not reached: {_words(error)}") from None
    except UnicodeError as error:
        raise UnreachableError(f"{access} is not reached: its name is none: {error}") from None
    return Connection(reader, writer, str(access))


def _words(error: OSError) -> str:
    """Of several addresses' errors asyncio makes one text; the loops word a refused connection differently."""
    if isinstance(error, socket.gaierror | ssl.SSLError) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _watch_over(writer: asyncio.StreamWriter, seconds: int) -> None:
    """A descriptor of our own: uvloop's stand-in for the socket sets no options."""
    with contextlib.closing(socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds * PROBES)
