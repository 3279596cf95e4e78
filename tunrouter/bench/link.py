"""The near end of `tunrouter bench PEER`: streams, datagrams and round trips between this process and a responder.

Law: every figure is taken where the traffic arrives. No socket waits for ever, and every way to fail is one line that
says what to look at.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NoReturn, Protocol

from tunrouter.bench import datagrams, exchange
from tunrouter.bench.instruments import IP_AND_UDP, Trial
from tunrouter.errors import HostError

CONNECT_SECONDS: Final = 4.0
STALL_SECONDS: Final = 10.0
"""Without a byte."""
FLOW_SECONDS: Final = 0.25
FLOW_TRIES: Final = 12
LEAVE_SECONDS: Final = 3.0
IP_MTU: Final = 14
_TIMEVAL: Final = struct.Struct("ll")


@dataclass(frozen=True)
class Responder:
    """Where one listens for us, and what opens it."""

    name: str
    address: str
    tcp: int
    udp: int
    token: bytes
    device: str
    """The tunnel's, which its firewall sees us come from."""


@dataclass(frozen=True)
class Delivered:
    """What arrived of one stream or of several."""

    bytes: int
    seconds: float
    """From the first byte to the last."""

    @property
    def mbits(self) -> float:
        return self.bytes * 8 / self.seconds / 1e6 if self.seconds else 0.0


class Link:
    """A context; its end is told to the responder, which then ends."""

    def __init__(self, responder: Responder) -> None:
        """Raises HostError."""
        self._responder = responder
        self._flow: socket.socket | None = None
        self._control = self._open(exchange.CONTROL)
        try:
            self._reply(self._control)
        except BaseException:
            self._control.close()
            raise

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._flow is not None:
            self._flow.close()
        with self._control:
            if kind is None:
                self._leave()

    def _leave(self) -> None:
        """Until the responder is gone, so that the next one can be asked for at once."""
        _limit(self._control, LEAVE_SECONDS)
        try:
            self._control.shutdown(socket.SHUT_WR)
            self._control.recv(1)
        except OSError:
            return  # gone already

    # --- streams -----------------------------------------------------------------------------------------------------
    def streams(self, *, up: int, down: int, seconds: float) -> tuple[Delivered, Delivered]:
        """So many TCP streams each way, together; what arrived there, and what arrived here."""
        flows: list[_Stream] = []
        try:
            flows += [_Upload(self._open(exchange.SINK), seconds) for _ in range(up)]
            flows += [_Download(self._open(exchange.SOURCE, seconds)) for _ in range(down)]
            _together(flows)
        finally:
            for flow in flows:
                flow.close()
        for flow in flows:
            if flow.error is not None:
                self._fail("a stream", flow.error)
        return _sum(flows[:up]), _sum(flows[up:])

    # --- datagrams ---------------------------------------------------------------------------------------------------
    @property
    def largest_payload(self) -> int:
        """Of a datagram that leaves this host in one piece, as far as its kernel knows."""
        return self._datagrams().getsockopt(socket.IPPROTO_IP, IP_MTU) - IP_AND_UDP

    def trial(self, size: int, rate: float, seconds: float) -> Trial:
        sender = self._datagrams()
        try:
            self._command(exchange.COUNT)
            sent = datagrams.send_on(sender, size, rate, seconds)
            received, nanoseconds, overrun = self._command(exchange.RESULT)
        except OSError as error:
            self._fail("counting datagrams", error)
        return Trial(rate, sent.sent, received, overrun, max(sent.seconds, nanoseconds / 1e9))

    def round_trips(self, size: int, seconds: float) -> list[int]:
        """In nanoseconds, sorted, one in flight."""
        sender = self._datagrams()
        self._command(exchange.ECHO)
        try:
            pinged = datagrams.ping_on(sender, size, seconds)
        except OSError as error:
            self._fail("a round trip", error)
        if not pinged.round_trips:
            raise HostError(f"no echo came back from {self._responder.name}; {pinged.lost} were lost")
        return sorted(pinged.round_trips)

    def _datagrams(self) -> socket.socket:
        """The socket whose datagrams the responder takes."""
        if self._flow is None:
            self._flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._flow.connect((self._responder.address, self._responder.udp))
            _limit(self._flow, FLOW_SECONDS)
            self._introduce(self._flow)
        return self._flow

    def _introduce(self, flow: socket.socket) -> None:
        for _ in range(FLOW_TRIES):
            try:
                flow.send(self._responder.token)
                if flow.recv(exchange.TOKEN_BYTES) == self._responder.token:
                    return
            except BlockingIOError:
                continue
            except OSError as error:
                self._fail("a datagram", error)
        raise HostError(f"no datagram comes back from {self._where(self._responder.udp)}", self._firewall)

    # --- the responder -----------------------------------------------------------------------------------------------
    def _command(self, command: bytes) -> tuple[int, int, int]:
        try:
            self._control.send(command)
        except OSError as error:
            self._fail("a command", error)
        return self._reply(self._control)

    def _reply(self, stream: socket.socket) -> tuple[int, int, int]:
        try:
            return _read_reply(stream)
        except OSError as error:
            self._fail("an answer", error)

    def _open(self, role: int, seconds: float = 0.0) -> socket.socket:
        responder = self._responder
        where = self._where(responder.tcp)
        try:
            stream = socket.create_connection((responder.address, responder.tcp), timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise HostError(f"connection to {where} timed out", self._firewall) from None
        except OSError as error:
            raise HostError(f"connection to {where}: {error.strerror}", self._firewall) from None
        stream.settimeout(None)
        _limit(stream, STALL_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            stream.send(exchange.OPENING.pack(responder.token, role, int(seconds * 1e3)))
        except OSError as error:
            stream.close()
            self._fail("a connection", error)
        return stream

    def _where(self, port: int) -> str:
        return f"{self._responder.name} ({self._responder.address}:{port})"

    @property
    def _firewall(self) -> str:
        return f"does the peer's firewall accept traffic from {self._responder.device}?"

    def _fail(self, what: str, error: OSError) -> NoReturn:
        name = self._responder.name
        if isinstance(error, BlockingIOError):
            raise HostError(f"{what} stalled: nothing came from {name} for {STALL_SECONDS:g} s") from None
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            raise HostError(f"{what} broke off: the responder on {name} is gone", "see the log of its agent") from None
        raise HostError(f"{what}: {error.strerror or error}") from None


# --- one stream ------------------------------------------------------------------------------------------------------
class _Stream(Protocol):
    error: OSError | None
    delivered: Delivered

    def run(self) -> None: ...

    def close(self) -> None: ...


class _Flow:
    """`run` on a thread of its own, until it is done or `close` is called."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self.error: OSError | None = None
        self.delivered = Delivered(0, 0.0)

    def run(self) -> None:
        try:
            self.delivered = self._transfer()
        except OSError as error:
            self.error = error

    def _transfer(self) -> Delivered:
        raise NotImplementedError

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
        self._stream.close()


class _Upload(_Flow):
    def __init__(self, stream: socket.socket, seconds: float) -> None:
        super().__init__(stream)
        self._seconds = seconds

    def _transfer(self) -> Delivered:
        block = memoryview(bytearray(exchange.BLOCK))
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            self._stream.send(block)
        self._stream.shutdown(socket.SHUT_WR)
        received, nanoseconds, _ = _read_reply(self._stream)
        return Delivered(received, nanoseconds / 1e9)


class _Download(_Flow):
    def _transfer(self) -> Delivered:
        block = memoryview(bytearray(exchange.BLOCK))
        received, first, last = 0, 0.0, 0.0
        while count := self._stream.recv_into(block):
            last = time.monotonic()
            first = first or last
            received += count
        return Delivered(received, last - first)


def _together(flows: Sequence[_Stream]) -> None:
    threads = [threading.Thread(target=flow.run, daemon=True) for flow in flows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _sum(flows: Sequence[_Stream]) -> Delivered:
    """Of streams that ran together."""
    parts = [flow.delivered for flow in flows]
    return Delivered(sum(part.bytes for part in parts), max((part.seconds for part in parts), default=0.0))


def _read_reply(stream: socket.socket) -> tuple[int, int, int]:
    data = b""
    while len(data) < exchange.REPLY.size:
        part = stream.recv(exchange.REPLY.size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    first, second, third = exchange.REPLY.unpack(data)
    return first, second, third


def _limit(stream: socket.socket, seconds: float) -> None:
    """The kernel's timeouts: Python's own would ask the kernel before every block whether there is room."""
    timeval = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
