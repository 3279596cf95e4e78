"""The flows of a namespace that forwards: seen as its kernel has them, and ended without touching another."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.routed import CLIENT, CLIENT6, SCTP, SERVER, SERVER6, Lab, inside, opened, sctp_init
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.netlink import conntrack
from tunrouter.edge.netlink.conntrack import Conntrack, Flow, Tuple
from tunrouter.edge.netlink.wire import CREATE, EXCLUSIVE, Message, Wire, attribute, nested

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
SERVICE = "10.9.0.1"
RULES = f"""
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    ip daddr {SERVICE} tcp dport 80 dnat to {SERVER}:8080
    ip daddr {SERVICE} udp dport 53 dnat to {SERVER}:5353
  }}
}}
table inet watching {{
  chain zones {{ type filter hook prerouting priority raw; }}
  chain forward {{ type filter hook forward priority filter; ct state established accept; }}
}}
"""
CLOSE = "add rule inet watching forward drop\n"


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
def table(lab: Lab) -> Iterator[Conntrack]:
    with inside(lab.router, Conntrack) as found:
        yield found
        assert found.unread == 0


def packed(address: str) -> bytes:
    return ip_address(address).packed


def of(table: Conntrack, protocol: int, family: int = socket.AF_UNSPEC) -> list[Flow]:
    return [flow for flow in table.entries(family) if flow.protocol == protocol]


def answered(client: socket.socket, server: socket.socket, to: tuple[str, int]) -> bool:
    """Whether a datagram of one reaches the other; an answer makes the flow an established one."""
    client.sendto(b"question", to)
    try:
        said, back = server.recvfrom(100)
        server.sendto(said, back)
        return client.recv(100) == b"question"
    except TimeoutError:
        return False


@pytest.mark.root
@pytest.mark.parametrize("where", [(SERVER, 5353), (SERVICE, 53), (SERVER6, 5353)])
def test_a_flow_of_datagrams_is_seen_and_ended(lab: Lab, table: Conntrack, where: tuple[str, int]) -> None:
    family, own, there = (
        (socket.AF_INET6, CLIENT6, SERVER6) if ":" in where[0] else (socket.AF_INET, CLIENT, SERVER)
    )  # fmt: skip
    with (
        opened(lab.client, family, socket.SOCK_DGRAM) as client,
        opened(lab.client, family, socket.SOCK_DGRAM) as other,
        opened(lab.server, family, socket.SOCK_DGRAM) as server,
    ):
        for port, each in ((4001, client), (4002, other)):
            each.bind((own, port))
        server.bind((there, 5353))
        assert answered(client, server, where)
        assert answered(other, server, where)
        lab.nft(CLOSE)
        assert answered(client, server, where), "an established one goes on"
        flow, kept = sorted(of(table, UDP, family), key=lambda flow: flow.original.source_port)
        assert flow.original == Tuple(packed(own), packed(where[0]), 4001, where[1])
        assert flow.reply == Tuple(packed(there), packed(own), 5353, 4001)
        for each in (client, server):
            each.settimeout(0.3)
        table.delete(flow)
        assert of(table, UDP, family) == [kept]
        table.delete(flow)  # is gone already
        assert not answered(client, server, where), "its next packet is a new flow's, and dropped"
        assert answered(other, server, where)


@pytest.mark.root
def test_a_flow_of_the_same_addresses_and_ports_with_another_id_is_not_ended(lab: Lab, table: Conntrack) -> None:
    with (
        opened(lab.client, socket.AF_INET, socket.SOCK_DGRAM) as client,
        opened(lab.server, socket.AF_INET, socket.SOCK_DGRAM) as server,
    ):
        client.bind((CLIENT, 4001))
        server.bind((SERVER, 5353))
        assert answered(client, server, (SERVER, 5353))
        (flow,) = of(table, UDP)
        older = bytearray(flow.handle)
        older[-1] ^= 1
        table.delete(flow._replace(handle=bytes(older)))
        assert of(table, UDP) == [flow]


@pytest.mark.root
def test_a_connection_to_a_service_is_seen_with_who_answers_it(lab: Lab, table: Conntrack) -> None:
    with (
        opened(lab.client, socket.AF_INET, socket.SOCK_STREAM) as client,
        opened(lab.server, socket.AF_INET, socket.SOCK_STREAM) as listener,
    ):
        listener.bind((SERVER, 8080))
        listener.listen()
        client.bind((CLIENT, 4001))
        client.connect((SERVICE, 80))
        server, _ = listener.accept()
        with server:
            (flow,) = of(table, TCP)
            assert flow.original == Tuple(packed(CLIENT), packed(SERVICE), 4001, 80)
            assert flow.reply == Tuple(packed(SERVER), packed(CLIENT), 8080, 4001)
            assert flow.status & 1 << 5, "IPS_DST_NAT"
            lab.nft(CLOSE)
            server.settimeout(1)
            client.send(b"before")
            assert server.recv(10) == b"before"
            table.delete(flow)
            client.send(b"after")
            with pytest.raises(TimeoutError):
                server.recv(10)
            assert of(table, TCP) == []


@pytest.mark.root
@pytest.mark.parametrize(("address", "protocol", "kind"), [(SERVER, ICMP, 8), (SERVER6, ICMP6, 128)])
def test_pings_are_seen_by_type_and_id(lab: Lab, table: Conntrack, address: str, protocol: int, kind: int) -> None:
    lab.client.run("ping", "-c1", "-W2", "-e", "77", address)
    (flow,) = [flow for flow in of(table, protocol) if flow.original.icmp_type == kind]
    own = packed(CLIENT6 if ":" in address else CLIENT)
    answer = 0 if protocol == ICMP else 129
    assert flow.original == Tuple(own, packed(address), icmp_type=kind, icmp_id=77)
    assert flow.reply == Tuple(packed(address), own, icmp_type=answer, icmp_id=77)
    table.delete(flow)
    assert flow not in of(table, protocol)


@pytest.mark.root
def test_sctp_and_what_has_no_ports_are_seen(lab: Lab, table: Conntrack) -> None:
    with opened(lab.client, socket.AF_INET, socket.SOCK_RAW, SCTP) as client:
        client.sendto(sctp_init(4001, 3868), (SERVER, 0))
    with opened(lab.client, socket.AF_INET, socket.SOCK_RAW, 99) as client:
        client.sendto(b"whatever", (SERVER, 0))
    (sctp,) = wait_until("an association is on record", lambda: of(table, SCTP), 2)
    assert sctp.original == Tuple(packed(CLIENT), packed(SERVER), 4001, 3868)
    assert sctp.reply == Tuple(packed(SERVER), packed(CLIENT), 3868, 4001)
    (generic,) = wait_until("a flow of protocol 99 is on record", lambda: of(table, 99), 2)
    assert generic.original == Tuple(packed(CLIENT), packed(SERVER))
    table.delete(sctp, generic)
    assert of(table, SCTP) == of(table, 99) == []


@pytest.mark.root
@pytest.mark.parametrize(("rule", "zone"), [("ct zone set 7", 7), ("ct original zone set 7", 0)])
def test_flows_of_two_zones_are_two(lab: Lab, table: Conntrack, rule: str, zone: int) -> None:
    with (
        opened(lab.client, socket.AF_INET, socket.SOCK_DGRAM) as client,
        opened(lab.server, socket.AF_INET, socket.SOCK_DGRAM) as server,
    ):
        client.bind((CLIENT, 4001))
        server.bind((SERVER, 5353))
        client.sendto(b"x", (SERVER, 5353))
        (first,) = wait_until("a flow is on record", lambda: of(table, UDP), 2)
        lab.nft(f"add rule inet watching zones iifname eth1 {rule}\n")
        client.sendto(b"x", (SERVER, 5353))
        flows = wait_until("there are two", lambda: both if len(both := of(table, UDP)) == 2 else None, 2)
        assert first in flows
        (second,) = [flow for flow in flows if flow != first]
        assert (second.original, first.zone, second.zone) == (first.original, 0, zone)
        table.delete(second)
        assert of(table, UDP) == [first]


def entry(flow: Flow, *further: bytes, zoned: bool = False) -> bytes:
    def one(kind: int, of: Tuple) -> bytes:
        v6 = len(of.source) == 16
        ip = nested(1, attribute(3 if v6 else 1, of.source), attribute(4 if v6 else 2, of.destination))
        ports = (attribute(2 + at, port.to_bytes(2, "big")) for at, port in enumerate(of[2:4]))
        zone = attribute(3, b"\0\7") if zoned else b""
        return nested(kind, ip, nested(2, attribute(1, bytes([flow.protocol])), *ports), zone)

    family = socket.AF_INET6 if len(flow.original.source) == 16 else socket.AF_INET
    return bytes([family, 0, 0, 0]) + one(1, flow.original) + one(2, flow.reply) + b"".join(further)


PORT = st.integers(0, 65535)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    size = draw(st.sampled_from([4, 16]))
    address = st.binary(min_size=size, max_size=size)
    original, reply = (Tuple(draw(address), draw(address), draw(PORT), draw(PORT)) for _ in range(2))
    return Flow(draw(st.integers(0, 255)), original, reply, draw(st.integers(0, 2**32 - 1)), draw(PORT), b"")


@given(flows(), st.booleans(), st.booleans())
def test_what_is_written_is_read_whatever_its_shape(flow: Flow, zoned: bool, last: bool) -> None:
    status, zone = attribute(3, flow.status.to_bytes(4, "big")), attribute(18, flow.zone.to_bytes(2, "big"))
    identity = attribute(12, b"\1\2\3\4")
    further = (zone, identity, status) if last else (status, attribute(7, bytes(4)), identity, zone)
    body = entry(flow, *further, zoned=zoned)
    read = conntrack.read(body)
    assert read is not None
    assert read._replace(handle=b"") == flow
    original = body[4 : 4 + int.from_bytes(body[4:6], sys.byteorder)]
    assert read.handle == body[:4] + original + (zone + identity if last else identity + zone)


@given(flows(), st.integers(0, 200), st.binary(max_size=40), st.booleans())
def test_no_bytes_are_too_strange_to_be_read(flow: Flow, at: int, damage: bytes, cut: bool) -> None:
    body = entry(flow, attribute(3, bytes(4)), attribute(18, bytes(2)), attribute(12, bytes(4)))
    conntrack.read(body[:at] + damage + (b"" if cut else body[at + len(damage) :]))
    conntrack.read(damage)


def test_what_is_no_entry_is_none() -> None:
    flow = Flow(UDP, Tuple(bytes(4), bytes(4)), Tuple(bytes(4), bytes(4)), 0, 0, b"")
    whole = entry(flow)
    assert conntrack.read(whole + bytes(4)) is not None, "what is behind it is nobody's"
    assert conntrack.read(b"") is None
    assert conntrack.read(whole[:-52]) is None, "without a reply"
    for size, other in ((5, 5), (4, 16)):
        ends = Tuple(bytes(size), bytes(other))
        assert conntrack.read(entry(flow._replace(original=ends, reply=ends))) is None
    for zoned in (False, True):
        body = entry(flow, zoned=zoned)
        tcp = entry(flow._replace(protocol=TCP), zoned=zoned)
        half = 4 + (len(body) - 4) // 2
        assert conntrack.read(body[:half] + tcp[half:]) is None, "of two protocols"
    number = attribute(1, bytes([UDP]))
    assert conntrack.read(whole.replace(number, attribute(9, bytes([UDP])))) is None, "of none"


@pytest.mark.root
def test_what_nobody_can_read_is_counted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.client.run("ping", "-c1", "-W2", SERVER)
    with inside(lab.router, Conntrack) as table:
        monkeypatch.setattr(conntrack, "read", lambda _: None)
        assert list(table.entries(socket.AF_INET)) == []
        assert table.unread == 1


@pytest.mark.root
def test_flows_of_one_family_are_asked_for_alone(lab: Lab, table: Conntrack) -> None:
    for address in (SERVER, SERVER6):
        lab.client.run("ping", "-c1", "-W2", address)
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        assert {len(flow.original.source) for flow in table.entries(family)} == {size}
    assert {len(flow.original.source) for flow in table.entries()} == {4, 16}


@pytest.mark.root
@pytest.mark.alone
def test_a_hundred_thousand_flows_are_listed_in_less_than_two_seconds(lab: Lab, table: Conntrack) -> None:
    def new(number: int) -> Message:
        ends = bytes((10, 7)) + number.to_bytes(4, "big")[2:], bytes((10, 8, 0, number >> 16))
        tuples = Tuple(ends[0], ends[1], 1000, 53), Tuple(ends[1], ends[0], 53, 1000)
        body = entry(Flow(UDP, *tuples, 0, 0, b""), attribute(7, (600).to_bytes(4, "big")))
        return Message(1 << 8, CREATE | EXCLUSIVE, body)

    with inside(lab.router, lambda: Wire(conntrack.NETLINK_NETFILTER)) as wire:
        wire.tell(*map(new, range(100_000)))
    began = time.thread_time()
    assert sum(1 for _ in table.entries()) >= 100_000
    assert time.thread_time() - began < 2
