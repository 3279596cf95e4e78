"""Services as kube-proxy and portmap make them, in a table of each host's own, and clients and endpoints for them.

    client ── 10.96.0.1:80, or 30080 of a node ──┤ DNAT ├── 10.32.1.2:8080, which answers with whom it sees

What stands in for them: destinations are translated in prerouting and output, at `dstnat`; who has to be masqueraded is
marked there (0x4000, kube-proxy's bit) and masqueraded in postrouting. Who asks at 127.0.0.1 is masqueraded, and
`route_localnet` lets his packets out by a real device and the answers in: portmap sets it for the device of the
endpoint's route, which is the bridge, kube-proxy for all.

Law: endpoints and clients are sockets of the test's own process, opened inside the namespaces; no answer comes from
anywhere but the endpoint, and what a client is told is what the endpoint's kernel says of it.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final, Literal

from tests.e2e.test_mesh import snapshot
from tunrouter.bench.lab import Host, Pod
from tunrouter.bench.namespaces import Namespace, wait_until
from tunrouter.edge import netns

Protocol = Literal["tcp", "udp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("tcp", "udp")
PORT: Final = 8080
"""Of every endpoint."""
ANSWER_SECONDS: Final = 2.0
MODES: Final = {False: "isolated", True: "hairpin"}
"""Of the bridge, by bridge-nf-call-iptables."""
NOTICED_SECONDS: Final = 5.0
"""The agent looks every two seconds; a busy machine may add some."""
TCP_THIN_LINEAR_TIMEOUTS: Final = 16
SAID_PER_SECOND: Final = 20
HOOKS: Final = """\
  chain prerouting {
    type nat hook prerouting priority dstnat;
    jump services
  }
  chain output {
    type nat hook output priority -100; # dstnat, which older nft does not know by name here
    jump services
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }
"""
"""How the chain `services` of such a table is entered, and that what it marked is masqueraded."""


@dataclass(frozen=True)
class Forward:
    """Packets to `address`, or to any of the host's own where that is empty, go to the endpoint instead."""

    address: str
    port: int
    endpoint: str
    masqueraded: str
    """Which sources are; a set of nft."""

    @property
    def rules(self) -> str:
        match = f"ip daddr {self.address}" if self.address else "fib daddr type local"
        packets = [f"{match} {protocol} dport {self.port}" for protocol in PROTOCOLS]
        marked = [f"{packet} ip saddr {self.masqueraded} meta mark set meta mark | 0x4000" for packet in packets]
        return "\n".join((*marked, *(f"{packet} dnat to {self.endpoint}:{PORT}" for packet in packets)))


def cluster_ip(address: str, port: int, endpoint: str) -> Forward:
    """kube-proxy's: only who reaches itself is masqueraded."""
    return Forward(address, port, endpoint, endpoint)


def node_port(port: int, endpoint: str) -> Forward:
    """kube-proxy's, of a Service whose `externalTrafficPolicy` is Cluster: everybody is masqueraded."""
    return Forward("", port, endpoint, "0.0.0.0/0")


def host_port(port: int, endpoint: str) -> Forward:
    """portmap's: who reaches itself, and what comes from 127.0.0.1, is masqueraded."""
    return Forward("", port, endpoint, f"{{ {endpoint}, 127.0.0.1 }}")


def serve(host: Host, forwards: Iterable[Forward]) -> None:
    host.namespace.run("nft", "-f", "-", stdin=ruleset(forwards))


def route_localnet(host: Host, device: str) -> None:
    """For this one alone; `all` counts for every device."""
    for name in ("all", "weave"):
        host.namespace.sysctl(f"net.ipv4.conf.{name}.route_localnet", int(name == device))


def ruleset(forwards: Iterable[Forward]) -> str:
    rules = "\n".join(forward.rules for forward in forwards)
    return f"""
table ip services {{
  chain services {{
{rules}
  }}
{HOOKS}}}
"""


def switch(hosts: Sequence[Host], *, nf_call: bool) -> None:
    """bridge-nf-call-iptables of all, and waits until their agents have followed."""
    for host in hosts:
        host.filter_bridged(nf_call)
    wanted = MODES[nf_call]
    for host in hosts:
        wait_until(f"{host}'s bridge is {wanted}", partial(is_in_mode, host, wanted), NOTICED_SECONDS)


def is_in_mode(host: Host, wanted: str) -> bool:
    found = snapshot(host)
    return found is not None and found.host.bridge_mode == wanted


def open_in(namespace: Namespace, family: int, kind: int, protocol: int = 0) -> socket.socket:
    with netns.Namespace(str(namespace.path)) as found:
        return netns.within(found, lambda: socket.socket(family, kind, protocol))


def internet(namespace: Namespace, protocol: Protocol) -> socket.socket:
    opened = open_in(namespace, socket.AF_INET, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    if protocol == "tcp":
        # What is measured is how long the way is shut, to which TCP's backoff would add as much again. Timeouts that
        # grow late are for congestion controls that know a slow start.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        opened.setsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def ask(client: Namespace, protocol: Protocol, address: str, port: int) -> str:
    """Whom the endpoint sees, or how that failed."""
    with internet(client, protocol) as asking:
        asking.settimeout(ANSWER_SECONDS)
        try:
            asking.connect((address, port))
            asking.send(b"?")
            return asking.recv(100).decode().split()[0]
        except OSError as error:
            return f"nothing: {error}"


class Endpoints:
    """Every pod's server for both protocols, in one thread: each message is answered with its source and itself."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._pods = tuple(pods)
        self._sockets = selectors.DefaultSelector()
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="endpoints")

    def __enter__(self) -> Endpoints:
        self._sockets.register(self._end, selectors.EVENT_READ)
        for pod in self._pods:
            for protocol in PROTOCOLS:
                opened = internet(pod.namespace, protocol)
                opened.bind(("", PORT))
                if protocol == "tcp":
                    opened.listen()
                self._sockets.register(opened, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ended)
        self._thread.join()
        for key in list(self._sockets.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._sockets.close()
        os.close(self._end)

    def _serve(self) -> None:
        while True:
            for key, _ in self._sockets.select():
                if not isinstance(key.fileobj, socket.socket):
                    return
                self._answer(key.fileobj)

    def _answer(self, heard: socket.socket) -> None:
        if heard.type == socket.SOCK_DGRAM:
            said, source = heard.recvfrom(100)
            heard.sendto(source[0].encode() + b" " + said, source)
        elif heard.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._sockets.register(heard.accept()[0], selectors.EVENT_READ)
        else:
            self._converse(heard)

    def _converse(self, connection: socket.socket) -> None:
        try:
            if said := connection.recv(100):
                connection.send(connection.getpeername()[0].encode() + b" " + said)
                return
        except OSError:
            pass
        self._sockets.unregister(connection)
        connection.close()


class Talk:
    """One connection, or one flow of datagrams, on which something is said and answered many times a second."""

    def __init__(self, name: str, client: Namespace, protocol: Protocol, address: str, port: int) -> None:
        self.name = f"{name}, {protocol}"
        self.error = ""
        self._answers: list[float] = []
        self._over = threading.Event()
        self._socket = internet(client, protocol)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect((address, port))
        # A datagram that is lost is not sent again by anybody; a connection may take its time, but not break.
        self._socket.settimeout(1 / SAID_PER_SECOND if protocol == "udp" else 30)
        self._thread = threading.Thread(target=self._talk, args=(protocol == "udp",), name=self.name)

    def __enter__(self) -> Talk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # Ends a wait for an answer, too.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _talk(self, lossy: bool) -> None:
        while not self._over.wait(1 / SAID_PER_SECOND):
            try:
                self._socket.send(b"still there?")
                if not self._socket.recv(100):
                    self.error = "the endpoint has closed it"
                    return
                self._answers.append(time.monotonic())
            except TimeoutError:
                if not lossy:
                    self.error = "no answer for half a minute"
                    return
            except OSError as error:
                self.error = str(error)
                return

    def answered_since(self, moment: float) -> bool:
        assert not self.error, f"{self.name}: {self.error}"
        return bool(self._answers) and self._answers[-1] > moment

    @property
    def gap(self) -> float:
        """The longest time between two answers so far."""
        return max(after - before for before, after in pairwise((*self._answers, time.monotonic())))
