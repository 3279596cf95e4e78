"""Who reaches whom, asked of the kernel: every cell (source, destination, protocol, port) of a lab at once.

    source ── TCP connect │ UDP datagram │ SCTP INIT ──> destination, which answers with the address that it sees

Law: a cell is open if its answer came, and closed if it was asked twice and none came for longer than the slowest of
the others took. No question shares its ports with an earlier one, for conntrack would let it pass as established.
Listeners and questions are sockets of the test's own process, opened inside the namespaces; where the kernel has no
SCTP, INIT and INIT ACK are packets that are written here.
"""

from __future__ import annotations

import errno
import itertools
import os
import selectors
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final, Literal, NamedTuple

from tests.policy import sctp
from tunrouter.bench.namespaces import Namespace
from tunrouter.edge import netns

Protocol = Literal["TCP", "UDP", "SCTP"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("TCP", "UDP", "SCTP")
PORTS: Final = (80, 81)
"""Somebody listens there in every place."""
QUIET_SECONDS: Final = 0.25
"""Nothing came for so long, and for twice as long as the slowest answer took: nothing will come."""
SLOW_SECONDS: Final = 1.5
"""A SYN that was lost is sent again after one second."""
_ports = itertools.cycle(range(10_000, 32_000))
"""Below those that the kernel chooses by itself."""


class Cell(NamedTuple):
    source: str
    """The name of a place."""
    address: str
    protocol: Protocol
    port: int


class Listeners:
    """On `PORTS` of every place, for the three protocols, in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._end, self._ended = os.pipe()
        self._selector.register(self._end, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="listeners")

    def start(self) -> None:
        self._thread.start()

    def listen(self, namespace: Namespace, ports: Iterable[int]) -> None:
        with netns.Namespace(str(namespace.path)) as entered:
            opened = netns.within(entered, lambda: [*_listening(tuple(ports))])
        for each in opened:
            self._selector.register(each, selectors.EVENT_READ)

    def close(self) -> None:
        os.close(self._ended)
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._end)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if not isinstance(key.fileobj, socket.socket):
                    return
                _answer(key.fileobj)


def _listening(ports: tuple[int, ...]) -> Iterator[socket.socket]:
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            opened = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setsockopt(socket.IPPROTO_IP, sctp.IP_PKTINFO, 1)
            opened.bind(("", port))
            if kind == socket.SOCK_STREAM:
                opened.listen(1024)
            yield opened
    yield sctp.raw()


def _answer(heard: socket.socket) -> None:
    """Whoever asks is told its address; one that went meanwhile is not."""
    try:
        if heard.type == socket.SOCK_STREAM:
            connection, peer = heard.accept()
            with connection:
                connection.send(peer[0].encode())
        elif heard.type == socket.SOCK_DGRAM:
            _, ancillary, _, peer = heard.recvmsg(100, 100)
            heard.sendmsg([peer[0].encode()], [sctp.source(ancillary[0][2][8:12])], 0, peer)
        else:
            sctp.answer(heard, PORTS)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EPERM):
            raise


class Prober:
    """Asks from places; `with` makes them listen, too."""

    def __init__(self, places: Mapping[str, Namespace]) -> None:
        self._places: dict[str, Namespace] = {}
        self._listeners = Listeners()
        self._wanted = dict(places)

    def __enter__(self) -> Prober:
        for name, namespace in self._wanted.items():
            self.add(name, namespace)
        self._listeners.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listeners.close()

    def add(self, name: str, namespace: Namespace, ports: Iterable[int] = PORTS) -> None:
        self._listeners.listen(namespace, ports)
        self._places[name] = namespace

    def remove(self, name: str) -> None:
        """Nobody asks from there any more; its listeners go with the others."""
        del self._places[name]

    def ask(self, cells: Iterable[Cell], *, rounds: int = 2, quiet: float = QUIET_SECONDS) -> dict[Cell, str]:
        """Those that are open, each with the source that the destination sees."""
        left = set(cells)
        found: dict[Cell, str] = {}
        for _ in range(rounds):
            with Round(self._places, left) as asked:
                found |= asked.answers(quiet)
            left -= found.keys()
        return found

    def wrong(self, expected: Mapping[Cell, bool]) -> dict[Cell, bool]:
        """Cells that are not as expected, with what they are; one that should be open is given time."""
        found = self.ask(expected)
        missing = [cell for cell, is_open in expected.items() if is_open and cell not in found]
        if missing:
            found |= self.ask(missing, rounds=1, quiet=SLOW_SECONDS)
        return {cell: cell in found for cell, is_open in expected.items() if is_open != (cell in found)}

    def opens(self, cell: Cell, *, quiet: float = QUIET_SECONDS) -> bool:
        return cell in self.ask([cell], rounds=1, quiet=quiet)


class Round:
    """One question for each cell, all at once."""

    def __init__(self, places: Mapping[str, Namespace], cells: Iterable[Cell]) -> None:
        self._places = places
        self._by_source: dict[str, list[Cell]] = defaultdict(list)
        for cell in sorted(cells):
            self._by_source[cell.source].append(cell)
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._found: dict[Cell, str] = {}
        self._left = 0

    def __enter__(self) -> Round:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for each in self._sockets:
            each.close()

    def answers(self, quiet: float) -> dict[Cell, str]:
        for source, cells in self._by_source.items():
            with netns.Namespace(str(self._places[source].path)) as entered:
                netns.within(entered, partial(self._question, cells))
        began = last = time.monotonic()
        slowest = 0.0
        wanted = sum(map(len, self._by_source.values()))
        while len(self._found) < wanted and (left := last + max(quiet, 2 * slowest) - time.monotonic()) > 0:
            before = len(self._found)
            for key, _ in self._selector.select(left):
                self._hear(key)
            if len(self._found) > before:
                last = time.monotonic()
                slowest = last - began
        return self._found

    def _question(self, cells: list[Cell]) -> None:
        datagrams = {(cell.address, cell.port): cell for cell in cells if cell.protocol == "UDP"}
        inits = {(cell.address, cell.port): cell for cell in cells if cell.protocol == "SCTP"}
        if inits:
            port = next(_ports)
            raw = self._open(sctp.raw(), (port, inits))
            for to in inits:
                _send(raw, sctp.init(port, to[1]), (to[0], 0))
        if datagrams:
            udp = self._open(_bound(socket.SOCK_DGRAM), (0, datagrams))
            for to in datagrams:
                _send(udp, b"?", to)
        for cell in cells:
            if cell.protocol == "TCP":
                self._open(_bound(socket.SOCK_STREAM), (0, {(cell.address, cell.port): cell})).connect_ex(
                    (cell.address, cell.port)
                )

    def _open(self, opened: socket.socket, asked: tuple[int, dict[tuple[str, int], Cell]]) -> socket.socket:
        self._sockets.append(opened)
        self._selector.register(opened, selectors.EVENT_READ, asked)
        return opened

    def _hear(self, key: selectors.SelectorKey) -> None:
        opened, (port, asked) = key.fileobj, key.data
        assert isinstance(opened, socket.socket)
        try:
            if opened.type == socket.SOCK_RAW:
                if (heard := sctp.acknowledged(opened, port)) and heard[0] in asked:
                    self._found[asked[heard[0]]] = heard[1]
            elif opened.type == socket.SOCK_DGRAM:
                said, source = opened.recvfrom(100)
                if source in asked:
                    self._found[asked[source]] = said.decode()
            else:
                self._selector.unregister(opened)
                if said := opened.recv(100):
                    (cell,) = asked.values()
                    self._found[cell] = said.decode()
        except OSError as error:
            if error.errno in (errno.EBADF, errno.EINVAL):
                raise


def _bound(kind: int) -> socket.socket:
    """To a port that nobody asked from before."""
    opened = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    opened.bind(("", next(_ports)))
    if kind == socket.SOCK_STREAM:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return opened


def _send(opened: socket.socket, said: bytes, to: tuple[str, int]) -> None:
    """What the own host does not let out is as lost as what is dropped on the way."""
    try:
        opened.sendto(said, to)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED):
            raise
