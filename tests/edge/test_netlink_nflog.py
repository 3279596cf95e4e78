"""Packets that rules log are read as they were, in one namespace's group by one program; what is damaged is counted."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.routed import CLIENT, CLIENT6, SCTP, SERVER, SERVER6, Lab, inside, opened, sctp_init
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.netlink import nflog
from tunrouter.edge.netlink.nflog import Log, Logged
from tunrouter.edge.netlink.wire import Wire, attribute, text
from tunrouter.errors import HostError

pytestmark = pytest.mark.root

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
GROUP = 86
RULES = """
table inet logging {
  chain forward {
    type filter hook forward priority filter; policy accept;
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
    iifname "eth1" log prefix "ingress" group 86 snaplen 96 drop
  }
  chain output {
    type filter hook output priority filter; policy accept;
    ip protocol icmp log group 86
  }
}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    found = Lab()
    try:
        found.make()
        found.nft(RULES)
        yield found
    finally:
        found.remove()


@pytest.fixture
def log(lab: Lab) -> Iterator[Log]:
    with inside(lab.router, lambda: Log(GROUP)) as found:
        yield found


def heard(log: Log, count: int = 1) -> list[Logged]:
    """The next ones, for which a loop would have been woken."""
    found: list[Logged] = []
    deadline = time.monotonic() + 3
    while len(found) < count and (left := deadline - time.monotonic()) > 0:
        if select.select([log], [], [], left)[0]:
            found += log.packets()
    return found


def expected(protocol: int, *, v6: bool = False, **further: int) -> Logged:
    source, destination = (CLIENT6, SERVER6) if v6 else (CLIENT, SERVER)
    numbers = dict.fromkeys(Logged._fields[4:], 0) | further
    return Logged("ingress", protocol, ip_address(source), ip_address(destination), **numbers)


def interfaces(lab: Lab) -> dict[str, int]:
    def index(name: str) -> int:
        return inside(lab.router, lambda: socket.if_nametoindex(name))

    return {"incoming": index("eth1"), "outgoing": index("eth2")}


@pytest.mark.parametrize("v6", [False, True])
def test_packets_are_read_as_they_were(lab: Lab, log: Log, v6: bool) -> None:
    family, own, there = (socket.AF_INET6, CLIENT6, SERVER6) if v6 else (socket.AF_INET, CLIENT, SERVER)
    where = interfaces(lab)
    with opened(lab.client, family, socket.SOCK_DGRAM) as client:
        client.bind((own, 4001))
        client.sendto(b"x" * 1000, (there, 53))
        assert heard(log) == [expected(UDP, v6=v6, source_port=4001, destination_port=53, **where)]
    with opened(lab.client, family, socket.SOCK_STREAM) as client:
        client.bind((own, 4001))
        client.setblocking(False)
        client.connect_ex((there, 80))
        assert heard(log) == [expected(TCP, v6=v6, source_port=4001, destination_port=80, tcp_flags=2, **where)]
    with opened(lab.client, family, socket.SOCK_RAW, SCTP) as client:
        client.sendto(sctp_init(4001, 3868), (there, 0))
        assert heard(log) == [expected(SCTP, v6=v6, source_port=4001, destination_port=3868, **where)]
    lab.client.run("ping", "-c1", "-W0.1", there, check=False)
    kind = {"protocol": ICMP6, "icmp_type": 128} if v6 else {"protocol": ICMP, "icmp_type": 8}
    assert heard(log) == [expected(kind.pop("protocol"), v6=v6, **kind, **where)]
    with opened(lab.client, family, socket.SOCK_RAW, 99) as client:
        client.sendto(b"whatever", (there, 0))
        assert heard(log) == [expected(99, v6=v6, **where)]
    assert (log.unread, log.lost) == (0, 0)


def test_a_packet_without_prefix_and_without_incoming_interface(lab: Lab, log: Log) -> None:
    lab.router.run("ping", "-c1", "-W1", CLIENT)
    (logged,) = heard(log)
    assert (logged.prefix, logged.incoming, logged.outgoing) == ("", 0, interfaces(lab)["incoming"])
    assert (logged.source, logged.destination, logged.icmp_type) == (ip_address("10.1.0.1"), ip_address(CLIENT), 8)


def test_fragments_behind_the_first_have_no_ports(lab: Lab, log: Log) -> None:
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, 7, 100, 64, UDP, 0, *map(socket.inet_aton, (CLIENT, SERVER)))
    with opened(lab.client, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as client:
        lab.nft("table inet logging { chain early { type filter hook prerouting priority -500; notrack; }; }")
        client.sendto(header + b"whatever", (SERVER, 0))
        (logged,) = heard(log)
    assert (logged.protocol, logged.source_port, logged.destination_port) == (UDP, 0, 0)


def test_what_is_cut_before_its_ports_is_counted(lab: Lab, log: Log) -> None:
    lab.nft("flush chain inet logging forward\nadd rule inet logging forward log group 86 snaplen 22\n")
    with opened(lab.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (SERVER, 53))
        wait_until("it is counted", lambda: list(log.packets()) or log.unread, 3)
    assert log.unread == 1


def test_a_group_that_is_taken_says_by_whom(lab: Lab) -> None:
    code = "import tunrouter.edge.netlink.nflog as n; log = n.Log(86); print('ready', flush=True); input()"
    argv = lab.router.enter([sys.executable, "-c", code])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(HostError, match=rf"group 86 is taken by \S+ \(process {process.pid}\); stop that program"):
            inside(lab.router, lambda: Log(86))
        inside(lab.router, lambda: Log(87)).close()
        process.communicate(b"\n")
    for others in ([], [inside(lab.router, lambda: Wire(nflog.NETLINK_NETFILTER))]):
        # The port is this process's id, which is in another namespace; then it is none's, for that is taken.
        with inside(lab.router, lambda: Log(86)), pytest.raises(HostError, match="86 is taken by another program"):
            inside(lab.router, lambda: Log(86))
        for other in others:
            other.close()


def test_another_namespace_s_group_is_another(lab: Lab, log: Log) -> None:
    lab.server.run("nft", "-f", "-", stdin=RULES)
    with inside(lab.server, lambda: Log(GROUP)) as other:
        lab.server.run("ping", "-c1", "-W1", "10.2.0.1")
        (logged,) = heard(other)
        assert logged.source == ip_address(SERVER)
        lab.router.run("ping", "-c1", "-W1", CLIENT)
        (logged,) = [each for each in heard(log, 2) if each.icmp_type == 8]
        assert logged.destination == ip_address(CLIENT)
        assert list(other.packets()) == []


def test_what_came_faster_than_it_was_read_is_admitted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nflog, "BUFFER", 4096)
    with inside(lab.router, lambda: Log(GROUP)) as log, opened(lab.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(2000):
            client.sendto(b"x", (SERVER, 53))
        assert wait_until("loss is admitted", lambda: len(list(log.packets())) and log.lost, 3) >= 1


def test_a_burst_waits_whole(lab: Lab, log: Log) -> None:
    with opened(lab.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        for port in range(1, 4001):
            client.sendto(b"x", (SERVER, port))
    assert sorted(logged.destination_port for logged in heard(log, 4000)) == list(range(1, 4001))
    assert log.lost == 0


def test_without_the_right_the_right_is_asked_for(lab: Lab) -> None:
    code = "import tunrouter.edge.netlink.nflog as n\ntry: n.Log(86)\nexcept Exception as e: print(e)"
    said = lab.router.run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", code)
    assert "cannot read NFLOG group 86: Operation not permitted; give the process CAP_NET_ADMIN" in said.stdout


def packet(payload: bytes) -> bytes:
    return bytes(4) + attribute(1, bytes(4)) + text(10, "ingress") + attribute(5, b"\0\0\0\7") + attribute(9, payload)


V4 = bytes.fromhex("4500001c0007000040110000") + bytes((10, 1, 0, 2, 10, 2, 0, 2))
V6 = bytes.fromhex("6000000000000040") + bytes(range(32))
PORTS = struct.pack(">HH", 4001, 53) + bytes(9) + b"\x12" + bytes(6)
OPTIONS = bytes(6)


def v6(first: int, *headers: bytes) -> bytes:
    return V6[:6] + bytes([first]) + V6[7:] + b"".join(headers)


@pytest.mark.parametrize(
    ("payload", "protocol"),
    [
        (v6(0, b"\x06\0" + OPTIONS, PORTS), TCP),
        (v6(0, b"\x3c\0" + OPTIONS, b"\x2b\1" + OPTIONS + bytes(8), b"\x06\0" + OPTIONS, PORTS), TCP),
        (v6(44, b"\x06\7\0\1" + bytes(4), PORTS), TCP),
        (v6(51, b"\x06\4" + bytes(22), PORTS), TCP),
        (V4.replace(b"\x45\0", b"\x46\0").replace(b"\x40\x11", b"\x40\x06") + bytes(4) + PORTS, TCP),
    ],
)
def test_ports_are_found_behind_extensions_and_options(payload: bytes, protocol: int) -> None:
    logged = nflog.read(packet(payload))
    assert logged is not None
    assert (logged.protocol, logged.source_port, logged.destination_port) == (protocol, 4001, 53)
    assert (logged.tcp_flags, logged.outgoing, logged.prefix) == (0x12, 7, "ingress")


def test_a_later_fragment_of_ipv6_has_no_ports() -> None:
    logged = nflog.read(packet(v6(44, b"\x06\0\0\x08" + bytes(4), PORTS)))
    assert logged is not None
    assert (logged.protocol, logged.source_port) == (TCP, 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        V4[:19],
        V4[:19] + b"\2",
        V4 + bytes(3),
        b"\x44" + V4[1:] + bytes(8),
        b"\x46" + V4[1:] + bytes(3),
        b"\x55" + V4[1:] + bytes(8),
        b"\x55" + v6(TCP, PORTS)[1:],
        v6(TCP, PORTS[:13]),
        v6(ICMP6, b"\x80"),
        V6[:39],
        v6(0, b"\x06\1" + OPTIONS),
        v6(0, b"\x06"),
        v6(0, b"\x63\1" + OPTIONS),
    ],
)
def test_what_is_damaged_is_no_packet(payload: bytes) -> None:
    assert nflog.read(packet(payload)) is None


@given(
    st.sampled_from([V4 + PORTS, v6(0, b"\x3c\0" + OPTIONS, b"\x06\0" + OPTIONS, PORTS)]),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=8),
    st.integers(0, 120),
)
def test_no_packet_is_too_strange_to_be_read(payload: bytes, damage: list[tuple[int, int]], cut: int) -> None:
    whole = bytearray(packet(payload))
    for at, value in damage:
        if at < len(whole):
            whole[at] = value
    nflog.read(bytes(whole))
    nflog.read(packet(payload[:cut]))


@given(st.binary(max_size=120))
def test_no_bytes_are_too_strange_to_be_read(data: bytes) -> None:
    nflog.read(data)
    nflog.read(packet(data))
