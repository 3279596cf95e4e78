"""Connections that go on: what is said many times a second on one, and when it was last heard.

Law: they are opened while they may be, and never opened again. What is heard, is heard from the other end.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final, Literal

from tunrouter.bench.namespaces import Namespace, lines_until, stop, wait_until
from tunrouter.edge import netns

Kind = Literal["tcp", "tcp-pushed", "udp", "udp-pushed", "ping"]
KINDS: Final[tuple[Kind, ...]] = ("tcp", "tcp-pushed", "udp", "udp-pushed", "ping")
"""Who speaks: the client; the server, unasked; the client, who is answered; the server, after one datagram; ping."""
PAUSE: Final = 0.02
FIRST_PORT: Final = 9000
TCP_THIN_LINEAR_TIMEOUTS: Final = 16


def impatient(opened: socket.socket) -> None:
    """What is measured is how long the way is shut, to which TCP's backoff would add as much again.

    Timeouts that grow late are for congestion controls that know a slow start.
    """
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    opened.setsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Flow:
    """From `client` to `server`, which is asked at `address` and `port`, and listens there if not said otherwise."""

    def __init__(self, name: str, kind: Kind, client: Namespace, server: Namespace, address: str, port: int,
                 listens: int | None = None) -> None:  # fmt: skip
        self.name = f"{name}, {kind}"
        self.port = listens or port
        self.heard: list[float] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._open(kind, client, server, (address, port), listens or port)
        for thread in self._threads:
            thread.start()
        wait_until(f"{self.name} speaks", lambda: self.heard, 5)

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    # --- what is heard -----------------------------------------------------------------------------------------------
    def heard_since(self, moment: float) -> bool:
        return self.heard[-1] > moment

    def gap(self, since: float) -> float:
        """The longest silence after a moment."""
        times = [since, *(one for one in self.heard if one > since), time.monotonic()]
        return max(after - before for before, after in pairwise(times))

    def ended(self, *, quiet: float = 1.5) -> bool:
        return time.monotonic() - self.heard[-1] > quiet

    # --- how ---------------------------------------------------------------------------------------------------------
    def _open(self, kind: Kind, client: Namespace, server: Namespace, to: tuple[str, int], listens: int) -> None:
        if kind == "ping":
            self._start(lambda: self._ping(client, to[0]))
        elif kind.startswith("udp"):
            there = self._socket(server, socket.SOCK_DGRAM, listens)
            here = self._socket(client, socket.SOCK_DGRAM)
            here.connect(to)
            self._start(lambda: self._hear(here))
            if kind == "udp-pushed":
                here.send(b"?")
                _, peer = there.recvfrom(10)
                self._start(lambda: self._say(there, peer))
            else:
                self._start(lambda: self._echo(there))
                self._start(lambda: self._say(here))
        else:
            listener = self._socket(server, socket.SOCK_STREAM, listens)
            listener.listen()
            here = self._socket(client, socket.SOCK_STREAM)
            impatient(here)
            here.connect(to)
            there, _ = listener.accept()
            impatient(there)
            there.settimeout(PAUSE)
            self._sockets.append(there)
            self._start(lambda: self._say(there if kind == "tcp-pushed" else here))
            self._start(lambda: self._hear(here if kind == "tcp-pushed" else there))

    def _socket(self, namespace: Namespace, kind: int, port: int = 0) -> socket.socket:
        with netns.Namespace(str(namespace.path)) as entered:
            opened = netns.within(entered, lambda: socket.socket(socket.AF_INET, kind))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port:
            opened.bind(("", port))
        opened.settimeout(2)
        self._sockets.append(opened)
        return opened

    def _start(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work, name=self.name, daemon=True))

    def _say(self, opened: socket.socket, peer: tuple[str, int] | None = None) -> None:
        while not self._over.wait(PAUSE):
            try:
                opened.sendto(b".", peer) if peer else opened.send(b".")
            except OSError:
                continue  # full, or refused: nothing is heard at the other end

    def _hear(self, opened: socket.socket) -> None:
        opened.settimeout(PAUSE)
        while not self._over.is_set():
            try:
                if not opened.recv(1000):
                    return
                self.heard.append(time.monotonic())
            except OSError:
                self._over.wait(PAUSE)

    def _echo(self, opened: socket.socket) -> None:
        opened.settimeout(PAUSE)
        while not self._over.is_set():
            try:
                said, peer = opened.recvfrom(1000)
                opened.sendto(said, peer)
            except OSError:
                self._over.wait(PAUSE)

    def _ping(self, client: Namespace, address: str) -> None:
        process = client.spawn("ping", "-n", "-i", str(PAUSE), address)
        try:
            while not self._over.is_set():
                for line in lines_until(process, time.monotonic() + 0.1):
                    if re.search(r"icmp_seq=\d+ .*time=", line):
                        self.heard.append(time.monotonic())
        finally:
            stop(process)
