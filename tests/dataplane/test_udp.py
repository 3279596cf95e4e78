"""The UDP socket on loopback: trains, batches, senders, and a port that is in use."""

from __future__ import annotations

import select

import pytest

from tunrouter.core import bounds
from tunrouter.dataplane.udp import UdpSocket, open_udp
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
