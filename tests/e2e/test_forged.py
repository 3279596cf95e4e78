"""A pod that writes its own frames gets around no policy, in either mode of the bridge nor between them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.frames import Forger, Watch, mac
from tests.e2e.services import ANSWER_SECONDS, MODES, internet, route_localnet, switch
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until

pytestmark = pytest.mark.root

ALLOWED = 4242
"""Of UDP, by the policy: what is sent there last, by way of the gateway, says that all before it has been judged."""
LOCAL_PORT = 9999
NEIGHBOUR, GATEWAY, NOBODY = "the neighbour", "the gateway's MAC", "a MAC that nobody has"
ROUTED: dict[str, Callable[[Forger, bytes, str], bytes]] = {
    "a SYN": Forger.tcp,
    "a datagram": Forger.udp,
    "an echo request": Forger.icmp,
    "fragments": Forger.fragments,
}
KINDS = ROUTED | {"a tagged datagram": Forger.tagged, "ARP": Forger.arp}


def cell(kind: str, whom: str, way: str) -> str:
    return f"{kind} for {whom} to {way}"


class Street:
    """A host, its pod that forges, and the pod's neighbour."""

    def __init__(self, host: Host) -> None:
        self.host = host
        pod, self.neighbour = host.add_pod("a"), host.add_pod("b")
        self.forger, self.watch = Forger(pod), Watch(self.neighbour)
        self.ways = {
            GATEWAY: mac(host.namespace, "weave"),
            "the neighbour's MAC": mac(self.neighbour.namespace),
            NOBODY: bytes.fromhex("02000000beef"),
            "the broadcast MAC": b"\xff" * 6,
            "a multicast MAC of IPv4": bytes.fromhex("01005e000001"),
            "another multicast MAC": bytes.fromhex("030000000001"),
        }
        self.addresses = {
            NEIGHBOUR: self.neighbour.address,
            "all hosts": "224.0.0.1",
            "everybody": "255.255.255.255",
            "the whole block": "10.32.1.255",
        }

    def close(self) -> None:
        self.forger.close()
        self.watch.close()

    def forbid(self, *, everything: bool) -> None:
        """The policy: nobody reaches the neighbour, but by UDP to `ALLOWED`; or none."""
        address = self.neighbour.address
        rules = f"ip daddr {address} udp dport {ALLOWED} accept\nip daddr {address} drop" if everything else ""
        self.host.namespace.run(
            "nft",
            "-f",
            "-",
            stdin=f"""
table inet networkpolicy
delete table inet networkpolicy
table inet networkpolicy {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    {rules}
  }}
}}
""",
        )

    def seen(self) -> set[str]:
        """Of every kind of frame, for every address and by every way, what the neighbour sees."""
        marks = {
            cell(kind, whom, way): send(self.forger, to, address)
            for kind, send in KINDS.items()
            for way, to in self.ways.items()
            for whom, address in self.addresses.items()
        }
        last = self.forger.udp(self.ways[GATEWAY], self.neighbour.address, ALLOWED)
        assert self.watch.wait_for(last), "what is allowed does not arrive"
        return {name for name, mark in marks.items() if self.watch.saw(mark)}


@pytest.fixture(scope="module")
def street(secret: str) -> Iterator[Street]:
    with Lab(hosts=1, offloads="off") as lab:
        lab.start_agents(password=secret)
        found = Street(lab.hosts[0])
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def without_agent(street: Street) -> Iterator[Street]:
    """In the mode of bridged frames passing iptables, and nobody follows what is changed from now on."""
    switch([street.host], nf_call=True)
    street.host.agent.stop()
    yield street
    street.host.agent.restart()


def check(seen: set[str], expected: set[str], where: str) -> None:
    wrong = [f"seen: {name} ({where})" for name in sorted(seen - expected)]
    wrong += [f"not seen: {name} ({where})" for name in sorted(expected - seen)]
    assert not wrong, "\n".join(wrong)


def flush(host: Host) -> None:
    """What a pod may send is no longer looked at."""
    host.namespace.run("nft", "flush", "table", "bridge", "tunrouter")


@pytest.mark.parametrize("nf_call", MODES, ids=MODES.values())
def test_only_what_goes_to_the_gateway_may_be_seen_and_not_what_is_forbidden(street: Street, nf_call: bool) -> None:
    switch([street.host], nf_call=nf_call)
    mode = MODES[nf_call]
    street.forbid(everything=False)
    check(street.seen(), {cell(kind, NEIGHBOUR, GATEWAY) for kind in ROUTED}, f"{mode}, no policy")
    street.forbid(everything=True)
    check(street.seen(), set(), f"{mode}, forbidden")


def test_nothing_is_seen_while_the_agent_has_not_followed_a_change_of_the_mode(without_agent: Street) -> None:
    """Bridged frames do not pass iptables any more, and the ports are not isolated yet."""
    street = without_agent
    street.forbid(everything=True)
    street.host.filter_bridged(False)
    check(street.seen(), set(), "hairpin but not filtered, forbidden")
    flush(street.host)
    bridged = [way for way in street.ways if way not in (GATEWAY, NOBODY)]
    every = {cell(kind, whom, way) for kind in KINDS for whom in street.addresses for way in bridged}
    check(street.seen(), every, "where nothing is looked at")


def test_no_pod_reaches_what_listens_on_the_hosts_loopback(without_agent: Street) -> None:
    """Even where portmap made the kernel take such packets: who sends them is on the host, or he is not answered."""
    street = without_agent
    host, gateway = street.host, street.ways[GATEWAY]
    route_localnet(host, "weave")
    with internet(host.namespace, "udp") as local, internet(host.namespace, "udp") as open_to_pods:
        local.bind(("127.0.0.1", LOCAL_PORT))
        open_to_pods.bind(("10.32.1.1", LOCAL_PORT))

        def heard() -> list[bytes]:
            street.forger.udp(gateway, "127.0.0.1", LOCAL_PORT)
            last = street.forger.udp(gateway, "10.32.1.1", LOCAL_PORT)
            wait_until("what is allowed arrives", lambda: last in received(open_to_pods), ANSWER_SECONDS)
            return received(local)

        assert heard() == []
        flush(host)
        assert len(heard()) == 1, "it would be heard"


def received(opened: socket.socket) -> list[bytes]:
    """Everything so far."""
    opened.setblocking(False)
    found = []
    try:
        while True:
            found.append(opened.recv(2048))
    except BlockingIOError:
        return found
