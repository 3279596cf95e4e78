"""Traffic between namespaces of a lab: the hashed stream, iperf3, and datagrams with a marker in them.

Law: a measurement starts when its receiver listens, and a stream counts only if both ends hashed the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from tunrouter.bench.namespaces import Namespace, listening, stop, wait_until
from tunrouter.bench.transfer import Result
from tunrouter.errors import HostError

STREAM_PORT: Final = 5600
IPERF_PORT: Final = 5201
MARKER_PORT: Final = 5700
LISTEN_SECONDS: Final = 10.0
ENVIRONMENT: Final = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class Stream:
    """A hashed stream under way from one namespace to an address in another; a context that ends both processes.

    `rate` in bytes a second, 0: as fast as it goes.
    """

    def __init__(self, sender: Namespace, receiver: Namespace, address: str, size: int, *, rate: int = 0) -> None:
        self._sender_namespace = sender
        self._receiver_namespace = receiver
        self._arguments = (address, str(STREAM_PORT), str(size), str(rate))
        self.size = size
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Stream:
        try:
            receiver = self._spawn(self._receiver_namespace, "receive", str(STREAM_PORT), str(self.size))
            wait_until("the receiver listens", lambda: listening(receiver, STREAM_PORT), LISTEN_SECONDS)
            self._spawn(self._sender_namespace, "send", *self._arguments)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _spawn(self, namespace: Namespace, *arguments: str) -> subprocess.Popen[bytes]:
        argv = (sys.executable, "-m", "tunrouter.bench.transfer", *arguments)
        process = namespace.spawn(*argv, env=ENVIRONMENT)
        self._processes.append(process)
        return process

    def _stop(self) -> None:
        for process in self._processes:
            stop(process)

    def finish(self, progress: Callable[[int], None] = lambda _: None) -> Result:
        """Waits for the end and returns the receiver's result; HostError when the two ends saw different bytes."""
        receiver, sender = self._processes
        received = _follow(receiver, progress)
        sent = _follow(sender, lambda _: None)
        if received.bytes != self.size or received.sha256 != sent.sha256:
            raise HostError(
                f"the stream arrived damaged: {received.bytes} of {self.size} bytes, "
                f"sha256 {received.sha256[:16]} instead of {sent.sha256[:16]}"
            )
        return received


def _follow(process: subprocess.Popen[bytes], progress: Callable[[int], None]) -> Result:
    """Reads a transfer's lines to the end; its result."""
    assert process.stdout
    last = ""
    for raw in process.stdout:
        last = raw.decode(errors="replace").strip()
        if last.startswith("progress "):
            progress(int(last.split()[1]))
    if process.wait():
        raise HostError(f"the transfer failed: {last or 'no output'}")
    return msgspec.json.decode(last, type=Result)


class IperfServer:
    """iperf3 listening in a namespace; a context."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> IperfServer:
        process = self._process = self.namespace.spawn("iperf3", "-s", stdout=subprocess.DEVNULL)
        wait_until("iperf3 listens", lambda: listening(process, IPERF_PORT), LISTEN_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            stop(self._process)

    def tcp(self, client: Namespace, address: str, *, seconds: float = 3.0) -> float:
        """What one TCP stream from `client` delivered to this server, in Mbit/s."""
        report = _iperf(client, "-c", address, "-t", f"{seconds:g}", seconds=seconds)
        return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6

    def udp(self, client: Namespace, address: str, *, size: int, mbits: float, seconds: float = 3.0) -> float:
        """Datagrams of `size` bytes a second that arrived, out of `mbits` Mbit/s offered."""
        argv = ("-c", address, "-u", "-l", str(size), "-b", f"{mbits:g}M", "-t", f"{seconds:g}")
        total = _iperf(client, *argv, seconds=seconds)["end"]["sum"]
        return float(total["packets"] - total["lost_packets"]) / float(total["seconds"])


def _iperf(client: Namespace, *argv: str, seconds: float) -> dict[str, Any]:
    done = client.run("iperf3", *argv, "--json", check=False, seconds=seconds + 30)
    try:
        report: dict[str, Any] = msgspec.json.decode(done.stdout)
    except msgspec.DecodeError:
        raise HostError(f"iperf3 failed: {(done.stderr or done.stdout).strip()[-200:]}") from None
    if "error" in report:
        raise HostError(f"iperf3: {report['error']}")
    return report


# Not connected: a refused datagram must not swallow the next one.
_SEND: Final = """
import socket, sys
address, port, marker, count = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(count):
        sender.sendto(marker, (address, port))
"""


def send_marker(sender: Namespace, address: str, marker: bytes, *, count: int = 10) -> None:
    """`count` UDP datagrams that hold nothing but the marker."""
    sender.run(sys.executable, "-c", _SEND, address, str(MARKER_PORT), marker.decode(), str(count))
