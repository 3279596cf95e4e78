"""What the underlay really carries while a contender sends, seen before anything is measured.

Law: with the offloads off, or on at the receiver alone, no frame on the wire is longer than the MTU; a run where one is
would compare super-packets with datagrams, and ends.
"""

from __future__ import annotations

from typing import Final, Protocol

from tunrouter.bench.capture import Capture
from tunrouter.bench.contender import Contender
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.bench.traffic import Stream
from tunrouter.errors import HostError

PROBE_BYTES: Final = 2 << 20
WATCHED_BYTES: Final = 1 << 16
"""Less than was sent: of super-packets the buffer of tcpdump holds eight, and it misses the others."""
CAPTURE_SECONDS: Final = 5.0


class Hosted(Contender, Protocol):
    """A contender whose hosts are known."""

    @property
    def lab(self) -> Lab: ...

    @property
    def hosts(self) -> tuple[Host, Host]: ...


def largest_frame(contender: Hosted) -> int:
    """IP bytes of the longest frame with which the first host sends a hashed stream; HostError if it is too long."""
    fabric, host = contender.lab.fabric, contender.hosts[0]
    sender, receiver = contender.ends
    with Capture(fabric.namespace, host.agent.directory / "wire", interface=host.name) as capture:
        with Stream(sender.namespace, receiver.namespace, receiver.address, PROBE_BYTES) as stream:
            stream.finish()
        watched = f"{WATCHED_BYTES} bytes of {contender.name} are captured"
        wait_until(watched, lambda: capture.file.stat().st_size >= WATCHED_BYTES, CAPTURE_SECONDS)
        largest = capture.largest()
    if fabric.offloads != "on" and largest > fabric.mtu:
        raise HostError(f"{contender.name} put {largest} bytes in a frame on an underlay with an MTU of {fabric.mtu}")
    return largest
