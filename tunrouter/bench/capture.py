"""tcpdump on an interface of the lab, read back as raw bytes or as filtered lines.

Law: a capture that proves an absence must first prove that it watched: `wait_for` polls until the packets that have to
be there are there, and only then is the file searched for what must not be.
"""

from __future__ import annotations

import re
import signal
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final

from tunrouter.bench.namespaces import Namespace, wait_until
from tunrouter.errors import HostError

PCAP_HEADER: Final = 24
PCAP_RECORD: Final = struct.Struct("=IIII")
"""Seconds, microseconds, bytes in the file, bytes on the wire; in the byte order of who wrote it: this machine."""
ETHERNET_HEADER: Final = 14
RING: Final = "65536"
"""KiB the kernel keeps for a tcpdump that is not scheduled. In immediate mode a packet takes a slot for the largest
possible one, 64 KiB with offloads on: the 2 MiB of the preset hold 32 trains, and what does not fit is never seen."""
OPTIONS: Final = ("-n", "-s", "0", "-U", "--immediate-mode", "-B", RING, "-w", "-")


class Capture:
    """A context: the capture runs inside it, and its file can be read inside and after it."""

    def __init__(self, namespace: Namespace, file: Path, *, interface: str = "eth0", expression: str = "") -> None:
        self.namespace = namespace
        self.file = file.with_suffix(".pcap")
        # To a file that we open: tcpdump gives up root before it would, and keeping root (-Z) crashes Ubuntu 24.04's.
        self._argv = ["tcpdump", "-i", interface, *OPTIONS, *expression.split()]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Capture:
        with self.file.open("wb") as file:
            process = self._process = self.namespace.spawn(*self._argv, stdout=file, stderr=subprocess.PIPE)
        assert process.stderr
        said = b""
        while b"listening on" not in said:
            line = process.stderr.readline()
            if not line:
                words = said.decode(errors="replace").strip() or "without a word"
                raise HostError(f"tcpdump did not start: {words} (exit code {process.wait()})")
            said += line
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def packets(self, expression: str = "") -> list[str]:
        """What was captured so far and matches, one tcpdump line a packet."""
        argv = ["tcpdump", "-n", "-t", "-r", "-", *expression.split()]
        with self.file.open("rb") as file:
            done = subprocess.run(argv, stdin=file, capture_output=True, text=True, check=False)
        # A file that is still written may end within a packet; anything else must not pass for "nothing captured".
        if done.returncode and "truncated" not in done.stderr:
            raise HostError(f"tcpdump cannot read {self.file}: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def wait_for(self, count: int, expression: str = "", *, seconds: float = 5.0) -> list[str]:
        """Polls until at least `count` matching packets are in the file."""

        def enough() -> list[str] | None:
            found = self.packets(expression)
            return found if len(found) >= count else None

        return wait_until(f"{count} packets `{expression}` captured on {self.namespace.name}", enough, seconds)

    def wait_for_payload(self, count: int, expression: str, *, seconds: float = 5.0) -> None:
        """Polls until matching UDP packets hold at least `count` bytes: with offloads on, trains are single packets."""

        def enough() -> bool:
            lengths = (re.search(r"length (\d+)", line) for line in self.packets(expression))
            return sum(int(length[1]) for length in lengths if length) >= count

        wait_until(f"{count} bytes `{expression}` captured on {self.namespace.name}", enough, seconds)

    def largest(self) -> int:
        """IP bytes of the largest Ethernet frame in the file, 0 if there is none; `-s 0` cuts none short."""
        data = self.file.read_bytes()
        largest, at = 0, PCAP_HEADER
        while at + PCAP_RECORD.size <= len(data):
            _, _, captured, length = PCAP_RECORD.unpack_from(data, at)
            largest = max(largest, length - ETHERNET_HEADER)
            at += PCAP_RECORD.size + captured
        return largest

    def holds(self, marker: bytes) -> bool:
        return marker in self.file.read_bytes()
