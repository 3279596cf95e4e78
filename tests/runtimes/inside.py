"""Sockets of this process in the networks of pods, of hosts and of the outside.

Law: a socket belongs to the namespace in which it was made, whoever uses it. What is sent by one that was made in a
pod's leaves by the pod's own end of the pair, whatever program made it; so a pod's attacks and talks need no programs
in its image.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

from tests.runtimes.runtime import Pod
from tunrouter.bench.fabric import BRIDGE, GATEWAY
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import run
from tunrouter.edge import netns

ALL: Final = 0x0003  # ETH_P_ALL
TALK_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.2
SO_RCVBUFFORCE: Final = 33
BUFFER: Final = 1 << 24
FRAME: Final = 1 << 16
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
SEND_QUEUE, REPAIR, REPAIR_OFF = 2, 1, -1
T = TypeVar("T")


class Place(NamedTuple):
    """A namespace, and the device and the address by which it is met."""

    name: str
    path: Path
    device: str
    address: str

    def __str__(self) -> str:
        return self.name

    def within(self, work: Callable[[], T]) -> T:
        with netns.Namespace(str(self.path)) as namespace:
            return netns.within(namespace, work)

    def run(self, *argv: str) -> str:
        return run(["nsenter", f"--net={self.path}", "--", *argv]).stdout

    @property
    def mac(self) -> bytes:
        (link,) = json.loads(self.run("ip", "-j", "link", "show", self.device))
        return bytes.fromhex(link["address"].replace(":", ""))

    def neighbours(self) -> dict[tuple[str, str], str]:
        """Whom it knows, by device and address, with their MACs."""
        known = json.loads(self.run("ip", "-j", "neigh"))
        return {(each["dev"], each["dst"]): each["lladdr"] for each in known if "lladdr" in each}


def in_pod(pod: Pod, name: str) -> Place:
    return Place(name, pod.namespace, "eth0", pod.address)


def on_host(host: Host) -> Place:
    """By its bridge, the pods' gateway."""
    return Place(str(host), host.namespace.path, "weave", f"10.32.{host.number}.1")


def outside(lab: Lab) -> Place:
    return Place("outside", lab.fabric.namespace.path, BRIDGE, GATEWAY)


# --- frames ----------------------------------------------------------------------------------------------------------
MARK: Final = re.compile(rb"<<([^<>]*)>>")


def mark(name: str) -> bytes:
    return f"<<{name}>>".encode()


def marks(frames: Iterable[bytes]) -> set[str]:
    return {found.decode() for frame in frames for found in MARK.findall(frame)}


class Wire:
    """Frames as they are sent and seen by a device; or, with kinds (EtherTypes), as the host's stack is handed them.

    A context. The stack is handed what bridges and rules of ports have let pass, by whatever device it came.
    """

    def __init__(self, place: Place, *kinds: int) -> None:
        self.place = place
        self._sockets = self._open(kinds)
        self._seen: set[str] = set()

    def _open(self, kinds: Sequence[int]) -> list[socket.socket]:
        return self.place.within(lambda: [_packets(self.place.device, kind) for kind in kinds or (ALL,)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()

    def send(self, frame: bytes) -> None:
        self._sockets[0].send(frame)

    def seen(self) -> set[str]:
        """The marks of all frames so far."""
        for each in self._sockets:
            self._seen |= marks(_drained(each))
        return self._seen


class Intake(Wire):
    """Of IPv4, what is taken in after all rules: kinds are its protocols."""

    def _open(self, kinds: Sequence[int]) -> list[socket.socket]:
        return self.place.within(lambda: [_raw(socket.AF_INET, kind) for kind in kinds])


def _packets(device: str, kind: int) -> socket.socket:
    found = _raw(socket.AF_PACKET, socket.htons(kind))
    if kind == ALL:
        found.bind((device, 0))
    return found


def _raw(family: int, protocol: int) -> socket.socket:
    found = socket.socket(family, socket.SOCK_RAW, protocol)
    found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    found.setblocking(False)
    return found


def _drained(packets: socket.socket) -> Iterator[bytes]:
    try:
        while True:
            yield packets.recv(FRAME)
    except BlockingIOError:
        return


# --- talks -----------------------------------------------------------------------------------------------------------
class Talk:
    """A TCP connection with both ends in our hands; a context."""

    def __init__(self, client: Place, server: Place, *, address: str = "", port: int = 0, listens: int = 0) -> None:
        """To the server's address, or to an address and port that lead to the one where it listens."""
        self.client, self.server = client, server
        with server.within(lambda: socket.create_server(("", listens))) as listener:
            listener.settimeout(TALK_SECONDS)
            asked = (address or server.address, port or listener.getsockname()[1])
            self.near = client.within(lambda: socket.create_connection(asked, TALK_SECONDS))
            self.far, self.caller = listener.accept()
        self.far.settimeout(TALK_SECONDS)
        self._round = 0

    def __str__(self) -> str:
        return f"{self.client} with {self.server}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.near.close()
        self.far.close()

    def stop(self) -> None:
        """Whoever sends on it is told."""
        self.near.shutdown(socket.SHUT_RDWR)

    def go_on(self) -> None:
        """There and back on this very connection, which was never broken."""
        self._round += 1
        word = f"{self._round:08}".encode()
        try:
            for sender, receiver in ((self.near, self.far), (self.far, self.near)):
                sender.sendall(word)
                assert receiver.recv(len(word), socket.MSG_WAITALL) == word, f"{self} broke off"
        except OSError as error:
            raise AssertionError(f"{self} broke off: {error}") from None

    @property
    def sequence(self) -> int:
        """Of what the client sends next: who knows it can end the connection in the client's name."""
        level = socket.IPPROTO_TCP
        self.near.setsockopt(level, TCP_REPAIR, REPAIR)
        self.near.setsockopt(level, TCP_REPAIR_QUEUE, SEND_QUEUE)
        found = self.near.getsockopt(level, TCP_QUEUE_SEQ)
        self.near.setsockopt(level, TCP_REPAIR, REPAIR_OFF)
        return found & 0xFFFFFFFF


def datagrams(place: Place, *, bound: int = 0, connected: tuple[str, int] | None = None) -> socket.socket:
    """A UDP socket; a connected one hears nobody but whom it asks."""
    found = place.within(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    found.bind(("", bound))
    if connected is not None:
        found.connect(connected)
    found.setblocking(False)
    return found


def asks(client: socket.socket, server: socket.socket, word: bytes, *, seconds: float = TALK_SECONDS) -> str:
    """Who asks, as the server sees it, once its answer has come back; empty if none comes in time."""
    deadline, asker = time.monotonic() + seconds, ""
    while (left := deadline - time.monotonic()) > 0:
        _send(client, word)
        for ready in select.select([server, client], [], [], min(left, AGAIN_SECONDS))[0]:
            if ready is server:
                said, who = server.recvfrom(FRAME)
                if said == word:
                    asker = who[0]
                    server.sendto(word, who)
            elif _receive(client) == word:
                return asker
    return ""


def _send(client: socket.socket, word: bytes) -> None:
    with suppress(OSError):  # what an earlier one was answered with: nobody is there, yet
        client.send(word)


def _receive(client: socket.socket) -> bytes:
    try:
        return client.recv(FRAME)
    except OSError:
        return b""
