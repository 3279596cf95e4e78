"""The UDP socket on loopback: trains, batches, senders, and a port that is in use."""

from __future__ import annotations

import select
import socket

import pytest

from tunrouter.core import bounds, wire
from tunrouter.dataplane.udp import UdpSocket, bind_group, open_udp
from tunrouter.errors import HostError

LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def received(udp: UdpSocket, count: int) -> list[tuple[bytes, tuple[str, int]]]:
    found: list[tuple[bytes, tuple[str, int]]] = []
    while len(found) < count:
        assert select.select([udp], [], [], 5)[0], found
        found += [(bytes(udp.buffer[at : at + size]), source) for at, size, source in udp.receive()]
    return found


@pytest.mark.parametrize("version", [4, 6])
def test_trains_and_singles_arrive_whole(version: int) -> None:
    one, two = (open_udp(version, 0, LOOPBACK[version]) for _ in range(2))
    target, source = (LOOPBACK[version], two.port), (LOOPBACK[version], one.port)
    parts = [bytes((i,)) * 1000 for i in range(50)] + [b"tail"]
    one.send_train(memoryview(b"".join(parts)), 1000, target)
    assert received(two, 51) == [(part, source) for part in parts]
    one.send(b"x" * 2000, target)
    one.send(b"", target)
    assert received(two, 2) == [(b"x" * 2000, source), (b"", source)]
    assert list(two.receive()) == []
    one.close()
    two.close()


def test_many_senders_in_one_batch() -> None:
    target = open_udp(4, 0, "127.0.0.1")
    senders = [open_udp(4, 0, "127.0.0.1") for _ in range(5)]
    for i in range(200):
        senders[i % 5].send(bytes((i,)), ("127.0.0.1", target.port))
    found = received(target, 200)
    assert found == [(bytes((i,)), ("127.0.0.1", senders[i % 5].port)) for i in range(200)]
    for udp in (target, *senders):
        udp.close()


def test_the_table_of_senders_is_bounded() -> None:
    udp = open_udp(4, 0, "127.0.0.1")
    for i in range(bounds.MAX_SOURCES + 100):
        udp._slots.names[:8] = b"\2\0" + i.to_bytes(2, "big") + bytes((127, 0, 0, 1))
        assert udp._sender(i, 0) == ("127.0.0.1", i)
    assert len(udp._senders) <= bounds.MAX_SOURCES
    udp.close()


def test_a_port_in_use_names_the_port_and_the_next_step() -> None:
    one = open_udp(4, 0)
    with pytest.raises(HostError, match=rf"UDP port {one.port} is in use.*ss -ulpn"):
        open_udp(4, one.port)
    open_udp(6, one.port).close()
    one.close()


def test_an_address_of_another_host() -> None:
    with pytest.raises(HostError, match="cannot bind"):
        open_udp(4, 0, "192.0.2.1")


@pytest.mark.parametrize("version", [4, 6])
def test_a_group_shares_the_port_by_receiver_index(version: int) -> None:
    group = bind_group(version, 0, LOOPBACK[version], 3)
    where = group[0].getsockname()[:2]
    sender = socket.socket(group[0].family, socket.SOCK_DGRAM)
    indices = [0, 1, 2, 3, 127, 128, 129, 0xFFFF_FFFF]
    for index in indices:
        sender.sendto(wire.HEADER.pack(wire.DATA, 0, 0, index, 1), where)
    for rubbish in (b"", b"abc", b"1234567"):
        sender.sendto(rubbish, where)
    for number, bound in enumerate(group):
        got = []
        for _ in range(sum(index % 3 == number for index in indices)):
            got.append(int.from_bytes(bound.recv(100)[4:8], "big"))
        assert got == [index for index in indices if index % 3 == number]
    assert [group[0].recv(100) for _ in range(3)] == [b"", b"abc", b"1234567"]
    for bound in (*group, sender):
        bound.close()


def test_a_group_does_not_share_its_port_with_others_nor_take_part_of_theirs() -> None:
    group = bind_group(4, 0, "127.0.0.1", 2)
    port = group[0].getsockname()[1]
    for count in (1, 2):
        with pytest.raises(HostError, match="is in use"):
            bind_group(4, port, "127.0.0.1", count)
    for bound in group:
        bound.close()
    alone = bind_group(4, port, "127.0.0.1", 1)
    with pytest.raises(HostError, match="is in use"):
        bind_group(4, port, "127.0.0.1", 2)
    alone[0].close()
