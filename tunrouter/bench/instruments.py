"""The instruments of `datagrams` and iperf3, run between two ends.

Law: a measurement starts when its receiver listens, and a figure counts what arrived, never what was sent.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec

from tunrouter.bench.contender import End
from tunrouter.bench.datagrams import Counted, Pinged, Sent
from tunrouter.bench.namespaces import listening, stop, wait_until
from tunrouter.bench.traffic import ENVIRONMENT, IPERF_PORT, LISTEN_SECONDS
from tunrouter.errors import HostError

PORT: Final = 5800
SLACK_SECONDS: Final = 20.0
COMMAND: Final = (sys.executable, "-m", "tunrouter.bench.datagrams")
IP_AND_UDP: Final = 28
T = TypeVar("T", bound=msgspec.Struct)


def largest_payload(end: End) -> int:
    """Of a UDP datagram over IPv4 that leaves this end in one piece."""
    return mtu(end) - IP_AND_UDP


def mtu(end: End) -> int:
    """Of the interface by which this end reaches the others."""
    words = end.namespace.run("ip", "-o", "link", "show", "dev", "eth0").stdout.split()
    return int(words[words.index("mtu") + 1])


class Trial(msgspec.Struct, frozen=True):
    """Datagrams sent at a steady rate for a while, and what came of them."""

    asked: float
    """Datagrams a second."""
    sent: int
    received: int
    overrun: int
    """Of the lost ones, those that reached the counter's socket and found it full."""
    seconds: float
    """The time that sending took, or receiving if that took longer: what was only stored has not been carried."""

    @property
    def lost(self) -> float:
        """The share of what was sent; below 0 if something arrived twice."""
        return 1 - self.received / self.sent if self.sent else 1.0

    @property
    def offered(self) -> float:
        return self.sent / self.seconds

    @property
    def delivered(self) -> float:
        return self.received / self.seconds


def send_datagrams(sender: End, receiver: End, *, size: int, rate: float, seconds: float) -> Trial:
    """One trial; HostError when `size` does not fit the sender's MTU."""
    with _instrument(receiver, "count") as counter:
        sent = _finish(sender, ("send", receiver.address, str(PORT), str(size), f"{rate:g}", f"{seconds:g}"), Sent)
        counter.terminate()
        counted = _result(counter.communicate(timeout=SLACK_SECONDS)[0].decode(), Counted)
    return Trial(rate, sent.sent, counted.received, counted.overrun, max(sent.seconds, counted.seconds))


def round_trips(sender: End, receiver: End, *, size: int, seconds: float) -> list[int]:
    """In nanoseconds, sorted, of UDP datagrams of `size` bytes and their echoes, one in flight."""
    with _instrument(receiver, "echo"):
        argv = ("ping", receiver.address, str(PORT), str(size), f"{seconds:g}")
        pinged = _finish(sender, argv, Pinged)
    if not pinged.round_trips:
        raise HostError(f"no echo came back from {receiver.address}; {pinged.lost} were lost")
    return sorted(pinged.round_trips)


@contextmanager
def _instrument(end: End, mode: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for datagrams, until the end of the context."""
    process = end.namespace.spawn(*COMMAND, mode, str(PORT), env=ENVIRONMENT)
    try:
        wait_until(f"`{mode}` listens", lambda: listening(process, PORT, protocol="udp"), LISTEN_SECONDS, pause=0.01)
        yield process
    finally:
        stop(process)


def _finish(end: End, arguments: tuple[str, ...], kind: type[T]) -> T:
    seconds = float(arguments[-1]) + SLACK_SECONDS
    return _result(end.namespace.run(*COMMAND, *arguments, env=ENVIRONMENT, seconds=seconds).stdout, kind)


def _result(said: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(said, type=kind)
    except msgspec.DecodeError:
        raise HostError(f"a measuring instrument failed: {said.strip()[-200:] or 'it said nothing'}") from None


class Stream(msgspec.Struct, frozen=True):
    """What iperf3 delivered one way, or both ways together."""

    bytes: int
    mbits: float


def tcp(client: End, server: End, *options: str, seconds: int) -> Stream:
    """One run of iperf3 with its options, as `--parallel 4` or `--bidir`."""
    process = server.namespace.spawn("iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    try:
        wait_until("iperf3 listens", lambda: listening(process, IPERF_PORT), LISTEN_SECONDS, pause=0.01)
        argv = ("iperf3", "-c", server.address, "-t", str(seconds), "--json", *options)
        said = client.namespace.run(*argv, check=False, seconds=seconds + SLACK_SECONDS)
    finally:
        stop(process)
    return _delivered(said.stdout or said.stderr)


class _Sum(msgspec.Struct, frozen=True):
    bytes: int = 0
    bits_per_second: float = 0.0


class _Sums(msgspec.Struct, frozen=True):
    sum_received: _Sum = _Sum()
    sum_received_bidir_reverse: _Sum = _Sum()


class _Report(msgspec.Struct, frozen=True):
    end: _Sums = _Sums()
    error: str = ""


def _delivered(said: str) -> Stream:
    try:
        report = msgspec.json.decode(said, type=_Report)
    except msgspec.DecodeError:
        raise HostError(f"iperf3 failed: {said.strip()[-200:]}") from None
    sums = (report.end.sum_received, report.end.sum_received_bidir_reverse)
    received = sum(each.bytes for each in sums)
    if report.error or not received:
        raise HostError(f"iperf3: {report.error or 'nothing arrived'}")
    return Stream(received, sum(each.bits_per_second for each in sums) / 1e6)
