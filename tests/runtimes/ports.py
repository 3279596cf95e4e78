"""UDP ports of a host that lead to pods, by way of portmap: the tests that each runtime's file takes over.

Law: busybox speaks no UDP, so the sockets are the test's own in the pods' namespaces; who asks is connected, and hears
an answer only from where it has asked.
"""

from __future__ import annotations

import itertools
import socket

import pytest

from tests.runtimes.every import HOST_PORT
from tests.runtimes.forged import IPV4, PROTOCOLS, ether, packet
from tests.runtimes.inside import Place, Talk, Wire, asks, datagrams, in_pod, on_host, outside
from tests.runtimes.leftovers import remains
from tests.runtimes.runtime import SERVED, Pair, Port
from tunrouter.bench.fabric import GATEWAY
from tunrouter.bench.namespaces import wait_until

LOOPBACK = "127.0.0.1"
UNANSWERED_SECONDS = 0.3
OWN = 7777
"""A port of what a host offers nobody but itself."""
in_both_modes = pytest.mark.usefixtures("bridge_mode")
words = (f"word {number}".encode() for number in itertools.count())


def asked(place: Place, address: str, server: socket.socket) -> str:
    """Who asks at the host's port, as the server sees it."""
    with datagrams(place, connected=(address, HOST_PORT)) as client:
        return asks(client, server, next(words))


class Ports:
    @in_both_modes
    def test_a_udp_port_of_the_host_leads_to_its_pod_from_everywhere(self, pair: Pair) -> None:
        one, two = pair
        pod = one.launch("sleep", "infinity", ports=(Port(HOST_PORT, protocol="udp"),))
        # By TCP the same port is another's.
        neighbour = one.launch("sleep", "infinity", ports=(Port(HOST_PORT),))
        stranger = two.launch("sleep", "infinity")
        near, far, outer = on_host(one.host), on_host(two.host), outside(one.host.lab)
        named = ((pod, "itself"), (neighbour, "neighbour"), (stranger, "stranger"))
        pods = [in_pod(each, name) for each, name in named]
        with datagrams(pods[0], bound=SERVED) as server:
            assert asked(outer, one.host.address, server) == GATEWAY
            assert asked(far, one.host.address, server) == two.host.address
            for client in (near, far, *pods):
                for address in (one.host.address, near.address):
                    assert asked(client, address, server), f"{client} to {address}"
            assert asked(near, LOOPBACK, server)
        for client in (outer, far, near, *pods):
            with Talk(client, pods[1], address=one.host.address, port=HOST_PORT, listens=SERVED) as talk:
                talk.go_on()

    def test_who_sends_already_when_a_pod_comes_reaches_it_and_its_successor(self, pair: Pair) -> None:
        one, _ = pair
        with datagrams(outside(one.host.lab), connected=(one.host.address, HOST_PORT)) as client:
            client.send(b"early")
            for _ in range(2):
                pod = one.launch("sleep", "infinity", ports=(Port(HOST_PORT, protocol="udp"),))
                with datagrams(in_pod(pod, "pod"), bound=SERVED) as server:
                    assert asks(client, server, next(words)) == GATEWAY
                    pod.remove()
                    assert remains(one.host) == {}
                    assert not asks(client, server, next(words), seconds=UNANSWERED_SECONDS)

    @in_both_modes
    def test_what_a_host_offers_itself_stays_its_own(self, pair: Pair) -> None:
        """portmap lets packets for 127.0.0.1 pass the bridge, so that the host's own ports work there."""
        one, _ = pair
        pod = in_pod(one.launch("sleep", "infinity", ports=(Port(HOST_PORT),)), "pod")
        host = on_host(one.host)
        assert host.run("sysctl", "-n", f"net.ipv4.conf.{host.device}.route_localnet").strip() == "1"
        with Wire(pod) as wire, _bound(host, LOOPBACK) as own, _bound(host, host.address) as offered:

            def heard() -> bool:
                for address in (LOOPBACK, host.address):
                    sent = packet(PROTOCOLS["UDP"], pod.address, address, b"hello", OWN)
                    wire.send(ether(host.mac, pod.mac, IPV4, sent))
                return _hears(offered)

            wait_until(f"{host} hears its pod", heard, 5)
            assert not _hears(own)


def _bound(place: Place, address: str) -> socket.socket:
    found = place.within(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    found.bind((address, OWN))
    found.setblocking(False)
    return found


def _hears(listening: socket.socket) -> bool:
    try:
        return bool(listening.recv(100))
    except BlockingIOError:
        return False
