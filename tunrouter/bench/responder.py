"""The far end of `tunrouter bench PEER`: `python -m tunrouter.bench.responder ADDRESS`, started by the peer's agent.

It reads its token from stdin, prints its ports as one JSON line (`Ports`), serves one client by `exchange`, and prints
one last line (`Served`).

Law: it listens on ADDRESS alone, and opens nothing without the token. It ends when its client leaves, when none came in
`CLIENT_SECONDS`, after `LIFE_SECONDS` whatever happens, and with the agent: stdin's end, or the kernel's signal. The
last line stands before the client can see the end, so the agent knows first.
"""

from __future__ import annotations

import hmac
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from tunrouter.agent.process import die_with_parent
from tunrouter.bench import exchange
from tunrouter.bench.datagrams import BUFFER_BYTES as UDP_BUFFER_BYTES
from tunrouter.bench.datagrams import LONGEST, POLL_SECONDS, SO_RCVBUFFORCE, Tally
from tunrouter.bench.exchange import Ports, Served

CLIENT_SECONDS: Final = 5.0
LIFE_SECONDS: Final = 120.0
OPENING_SECONDS: Final = 2.0
"""For a connection to show the token."""
CONNECTIONS: Final = 32
"""At once; beyond them the oldest that has not shown the token goes, or else the newest."""
BATCHES: Final = 16
"""Of datagrams, before the connections are looked at."""
FOREVER: Final = float("inf")
_DEAD_PEER: Final = ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3))
"""A client whose host has vanished is noticed in five seconds."""

Clock = Callable[[], float]


class Role(Protocol):
    """What a connection is for, once it has shown the token."""

    events: int
    deadline: float
    """After which the connection is closed."""

    def ready(self) -> bool:
        """Does what can be done now; False: the connection has done its work."""


class Sink:
    events = selectors.EVENT_READ
    deadline = FOREVER

    def __init__(self, stream: socket.socket, clock: Clock, buffer: memoryview) -> None:
        self._stream, self._clock, self._buffer = stream, clock, buffer
        self._received = 0
        self._first = self._last = 0.0

    def ready(self) -> bool:
        count = self._stream.recv_into(self._buffer)
        if count:
            self._last = self._clock()
            self._first = self._first or self._last
            self._received += count
            return True
        self._stream.send(exchange.REPLY.pack(self._received, int((self._last - self._first) * 1e9), 0))
        return False


class Source:
    events = selectors.EVENT_WRITE

    def __init__(self, stream: socket.socket, clock: Clock, buffer: memoryview, seconds: float) -> None:
        self._stream, self._clock, self._buffer = stream, clock, buffer
        self.deadline = clock() + seconds

    def ready(self) -> bool:
        if self._clock() < self.deadline:
            self._stream.send(self._buffer)
            return True
        return False


class Control:
    """The client itself: commands about datagrams, and the end of everything."""

    events = selectors.EVENT_READ
    deadline = FOREVER

    def __init__(self, stream: socket.socket, flow: Flow) -> None:
        self._stream, self._flow = stream, flow
        for option, value in _DEAD_PEER:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.reply()

    def ready(self) -> bool:
        match self._stream.recv(1):
            case exchange.ECHO:
                self._flow.echo()
                self.reply()
            case exchange.COUNT:
                self._flow.count()
                self.reply()
            case exchange.RESULT if self._flow.tally is not None:
                self._flow.report = self.reply
            case _:
                return False
        return True

    def reply(self, first: int = 0, second: int = 0, third: int = 0) -> None:
        self._stream.send(exchange.REPLY.pack(first, second, third))


class Opening:
    """A connection that has not shown the token."""

    def __init__(self, now: float) -> None:
        self.shown = b""
        self.stranger = True
        self.deadline = now + OPENING_SECONDS


class Flow:
    """The UDP socket: nobody's, then its client's alone; echoes, or counts."""

    def __init__(self, receiver: socket.socket, token: bytes) -> None:
        self._socket, self._token = receiver, token
        self._open = False
        self.strangers = 0
        self.tally: Tally | None = None
        self.report: Callable[[int, int, int], None] | None = None
        """Who waits for the result."""

    def echo(self) -> None:
        self.tally = self.report = None

    def count(self) -> None:
        self.report = None
        self.tally = Tally(self._socket)
        self._drain(self.tally)
        self.tally = Tally(self._socket)

    def ready(self) -> None:
        """While nothing is counted: some datagrams."""
        for _ in range(BATCHES):
            try:
                datagram, sender = self._socket.recvfrom(LONGEST)
                if not self._open:
                    self._admit(datagram, sender)
                if self._open:
                    self._socket.send(datagram)
            except BlockingIOError:
                return
            except OSError:
                continue  # what the network says of an earlier datagram; the client counts what comes back

    def _admit(self, datagram: bytes, sender: tuple[str, int]) -> None:
        if hmac.compare_digest(datagram[: exchange.TOKEN_BYTES], self._token):
            self._socket.connect(sender)
            self._open = True
        else:
            self.strangers += 1

    def poll(self) -> None:
        """While datagrams are counted: those that are there, and the result once there are no more."""
        if self.tally is None:
            return
        if not self._drain(self.tally) and self.report is not None and self.tally.quiet:
            counted = self.tally.result()
            self.report(counted.received, int(counted.seconds * 1e9), counted.overrun)
            self.echo()

    def _drain(self, tally: Tally) -> bool:
        """Whether something may be left."""
        return all(tally.drain() for _ in range(BATCHES))


class Responder:
    """`step` until `ended` says why."""

    def __init__(self, address: str, token: bytes, *, clock: Clock = time.monotonic) -> None:
        self._token, self._clock = token, clock
        self._listener = socket.create_server((address, 0), backlog=CONNECTIONS)
        self._listener.setblocking(False)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 0))
        self._udp.setblocking(False)
        self._udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, UDP_BUFFER_BYTES)
        self._flow = Flow(self._udp, token)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._udp, selectors.EVENT_READ, self._flow.ready)
        self._roles: dict[socket.socket, Role | Opening] = {}
        self._client: socket.socket | None = None
        self._strangers = 0
        self._payload = memoryview(bytearray(os.urandom(exchange.BLOCK)))
        self._scratch = memoryview(bytearray(exchange.BLOCK))
        started = clock()
        self._client_by, self._end_at = started + CLIENT_SECONDS, started + LIFE_SECONDS
        self.ended = ""
        self.ports = Ports(self._listener.getsockname()[1], self._udp.getsockname()[1])

    @property
    def strangers(self) -> int:
        return self._strangers + self._flow.strangers

    def watch(self, descriptor: int) -> None:
        """Whose end is ours."""
        self._selector.register(descriptor, selectors.EVENT_READ, lambda: self._end("the agent is gone"))

    def step(self) -> None:
        """One wakeup."""
        counting = self._flow.tally is not None
        if counting == (self._udp in self._selector.get_map()):
            if counting:
                self._selector.unregister(self._udp)
            else:
                self._selector.register(self._udp, selectors.EVENT_READ, self._flow.ready)
        pause = max(0.0, self._deadline() - self._clock())
        for key, _ in self._selector.select(POLL_SECONDS if counting else pause):
            key.data()
        self._poll()
        self._expire(self._clock())

    def _poll(self) -> None:
        try:
            self._flow.poll()
        except OSError as error:
            # The client is gone, or the way back to it: there is nobody to measure with.
            self._end(f"the client cannot be reached: {error.strerror}")

    def _deadline(self) -> float:
        client_by = FOREVER if self._client is not None else self._client_by
        return min(client_by, self._end_at, *(role.deadline for role in self._roles.values()), FOREVER)

    def _expire(self, now: float) -> None:
        for stream in [stream for stream, role in self._roles.items() if now >= role.deadline]:
            self._close(stream)
        if self._client is None and now >= self._client_by:
            self._end("no client came")
        elif now >= self._end_at:
            self._end("its time is over")

    def _end(self, why: str) -> None:
        self.ended = self.ended or why

    # --- connections -------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            return  # it left before we came
        if len(self._roles) >= CONNECTIONS:
            unopened = [other for other, role in self._roles.items() if isinstance(role, Opening)]
            self._close(unopened[0] if unopened else stream)
        if stream.fileno() >= 0:
            stream.setblocking(False)
            self._roles[stream] = Opening(self._clock())
            self._selector.register(stream, selectors.EVENT_READ, lambda: self._ready(stream))

    def _ready(self, stream: socket.socket) -> None:
        role = self._roles.get(stream)
        try:
            if isinstance(role, Opening):
                self._read_opening(stream, role)
            elif role is not None and not role.ready():
                self._close(stream)
        except BlockingIOError:
            return
        except OSError:
            self._close(stream)

    def _read_opening(self, stream: socket.socket, opening: Opening) -> None:
        part = stream.recv(exchange.OPENING.size - len(opening.shown))
        opening.shown += part
        if not part:
            self._close(stream)
        elif len(opening.shown) == exchange.OPENING.size:
            token, number, milliseconds = exchange.OPENING.unpack(opening.shown)
            opening.stranger = not hmac.compare_digest(token, self._token)
            role = None if opening.stranger else self._role(stream, number, milliseconds / 1e3)
            if role is None:
                self._close(stream)
            else:
                self._roles[stream] = role
                self._selector.modify(stream, role.events, lambda: self._ready(stream))

    def _role(self, stream: socket.socket, number: int, seconds: float) -> Role | None:
        """None: this cannot be had."""
        if number == exchange.CONTROL and self._client is None:
            self._client = stream
            return Control(stream, self._flow)
        if number == exchange.SINK and self._client is not None:
            return Sink(stream, self._clock, self._scratch)
        if number == exchange.SOURCE and self._client is not None and seconds <= exchange.STREAM_SECONDS:
            return Source(stream, self._clock, self._payload, seconds)
        return None

    def _close(self, stream: socket.socket) -> None:
        """A client's own connection stays open to the last: its end tells the client that we are gone."""
        role = self._roles.pop(stream, None)
        self._strangers += isinstance(role, Opening) and role.stranger
        if stream in self._selector.get_map():
            self._selector.unregister(stream)
        if stream is self._client:
            self._end("the client left")
        else:
            stream.close()

    # --- the end -----------------------------------------------------------------------------------------------------
    def stop_listening(self) -> None:
        """Everything but the client's own connection, which still says that we are there."""
        for stream in [stream for stream in self._roles if stream is not self._client]:
            self._close(stream)
        self._listener.close()
        self._udp.close()

    def close(self) -> None:
        self.stop_listening()
        self._selector.close()
        if self._client is not None:
            self._client.close()


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent()
    (address,) = argv
    token = os.read(sys.stdin.fileno(), exchange.TOKEN_BYTES)
    try:
        responder = Responder(address, token)
    except OSError as error:
        sys.stderr.write(f"the responder cannot listen on {address}: {error.strerror}\n")
        return 1
    responder.watch(sys.stdin.fileno())
    _say(responder.ports)
    while not responder.ended:
        responder.step()
    responder.stop_listening()
    _say(Served(responder.ended, responder.strangers))
    sys.stdout.close()
    responder.close()
    return 0


def _say(what: msgspec.Struct) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
