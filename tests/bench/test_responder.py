"""The responder of `tunrouter bench PEER` over loopback, and its near end: what each gives, and to whom."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from tunrouter.bench import exchange
from tunrouter.bench.exchange import Ports, Served
from tunrouter.bench.link import Link
from tunrouter.bench.link import Responder as Where
from tunrouter.bench.responder import CLIENT_SECONDS, CONNECTIONS, LIFE_SECONDS, OPENING_SECONDS, Responder
from tunrouter.errors import HostError

pytestmark = pytest.mark.root  # SO_RCVBUFFORCE

ADDRESS = "127.0.0.1"
TOKEN = bytes(range(16))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def responder(clock: Clock | None = None) -> Responder:
    return Responder(ADDRESS, TOKEN, clock=clock) if clock else Responder(ADDRESS, TOKEN)


@contextmanager
def serving() -> Iterator[Responder]:
    """One that serves on a thread of its own until it has ended."""
    one = responder()

    def serve() -> None:
        while not one.ended:
            one.step()
        one.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield one
    thread.join(CLIENT_SECONDS + 5)
    assert not thread.is_alive()


def where(one: Responder, token: bytes = TOKEN) -> Where:
    return Where("host2", ADDRESS, one.ports.tcp, one.ports.udp, token, "tunrouter0")


def opened(one: Responder, role: int, token: bytes = TOKEN, *, seconds: float = 0.1) -> socket.socket:
    stream = socket.create_connection((ADDRESS, one.ports.tcp), timeout=5)
    stream.send(exchange.OPENING.pack(token, role, int(seconds * 1e3)))
    return stream


def refuses(one: Responder, role: int, token: bytes = TOKEN, *, seconds: float = 0.1) -> bool:
    with opened(one, role, token, seconds=seconds) as stream:
        return stream.recv(1) == b""


def test_streams_datagrams_and_round_trips_are_measured_where_they_arrive() -> None:
    with serving() as one, Link(where(one)) as link:
        there, here = link.streams(up=2, down=1, seconds=0.2)
        assert there.bytes > 1_000_000
        assert here.bytes > 1_000_000
        assert 0.1 < there.seconds < 2
        times = link.round_trips(64, 0.1)
        assert len(times) > 10
        assert times == sorted(times)
        trial = link.trial(64, 1000, 0.2)
        assert trial.sent >= 150
        assert trial.received == trial.sent
        assert link.round_trips(64, 0.05), "echoes again after counting"
    assert one.ended == "the client left"
    assert one.strangers == 0


def test_a_wrong_token_opens_nothing_and_is_counted() -> None:
    with serving() as one, Link(where(one)):
        with pytest.raises(HostError, match="broke off"):
            Link(where(one, bytes(16)))
        assert refuses(one, exchange.SOURCE, bytes(16))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.settimeout(0.2)
            stranger.connect((ADDRESS, one.ports.udp))
            stranger.send(bytes(16))
            with pytest.raises(TimeoutError):
                stranger.recv(100)
    assert one.strangers == 3


def test_a_second_client_and_a_stream_without_a_client_get_nothing() -> None:
    with serving() as one:
        assert refuses(one, exchange.SOURCE), "nobody asked for it"
        with Link(where(one)):
            assert refuses(one, exchange.CONTROL)
            assert refuses(one, 99)
            assert refuses(one, exchange.SOURCE, seconds=exchange.STREAM_SECONDS + 1), "more than may be asked for"


def test_datagrams_of_another_sender_are_not_echoed_once_the_flow_is_open() -> None:
    with serving() as one, Link(where(one)) as link:
        assert link.round_trips(64, 0.05)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.settimeout(0.2)
            other.sendto(TOKEN, (ADDRESS, one.ports.udp))
            with pytest.raises((TimeoutError, ConnectionRefusedError)):
                other.recv(100)


def test_it_ends_without_a_client_and_at_the_end_of_its_time() -> None:
    clock = Clock()
    one = responder(clock)
    clock.now += CLIENT_SECONDS
    one.step()
    assert one.ended == "no client came"
    one.close()

    one = responder(clock)
    client = opened(one, exchange.CONTROL)
    while one._client is None:
        one.step()
    clock.now += CLIENT_SECONDS
    client.send(exchange.ECHO)
    one.step()
    ended: str = one.ended
    assert ended == "", "its client is here"
    clock.now += LIFE_SECONDS
    one.step()
    assert one.ended == "its time is over"
    one.close()
    client.close()


def test_silent_connections_are_closed_and_bounded() -> None:
    clock = Clock()
    one = responder(clock)
    with ExitStack() as silent:
        for count in range(1, CONNECTIONS + 6):
            silent.enter_context(socket.create_connection((ADDRESS, one.ports.tcp), timeout=5))
            one.step()
            assert len(one._roles) == min(count, CONNECTIONS)
        assert one.strangers == 5
        clock.now += OPENING_SECONDS
        silent.enter_context(socket.create_connection((ADDRESS, one.ports.tcp), timeout=5))
        one.step()
        assert len(one._roles) <= 1
        one.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "tunrouter.bench.responder", ADDRESS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(TOKEN)
        process.stdin.flush()
        yield process
        process.kill()


def test_the_process_ends_with_its_agent(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    assert process.stdout
    ports = msgspec.json.decode(process.stdout.readline(), type=Ports)
    assert ports.tcp
    process.stdin.close()
    assert msgspec.json.decode(process.stdout.readline(), type=Served).end == "the agent is gone"
    assert process.wait(5) == 0


def test_the_process_has_said_its_last_words_before_its_client_sees_the_end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    ports = msgspec.json.decode(process.stdout.readline(), type=Ports)
    with Link(Where("host2", ADDRESS, ports.tcp, ports.udp, TOKEN, "tunrouter0")):
        pass
    os.set_blocking(process.stdout.fileno(), False)
    assert msgspec.json.decode(process.stdout.read(), type=Served) == Served("the client left", 0)
    assert process.wait(5) == 0
