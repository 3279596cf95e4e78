"""tcpdump on an interface of the lab, read back as raw bytes or as filtered lines.

Law: a capture that proves an absence must first prove that it watched: `wait_for` polls until the packets that have to
be there are there, and only then is the file searched for what must not be.
"""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from tunrouter.bench.namespaces import Namespace, run, wait_until
from tunrouter.errors import HostError


class Capture:
    """A context: the capture runs inside it, and its file can be read inside and after it."""

    def __init__(self, namespace: Namespace, file: Path, *, interface: str = "eth0", expression: str = "") -> None:
        self.namespace = namespace
        self.file = file.with_suffix(".pcap")  # what Ubuntu's AppArmor profile lets tcpdump write
        self._argv = ["tcpdump", "-i", interface, "-n", "-s", "0", "-U", "--immediate-mode", "-Z", "root",
                      "-w", str(self.file), *expression.split()]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Capture:
        self.file.unlink(missing_ok=True)
        process = self._process = self.namespace.spawn(*self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr
        said = b""
        while b"listening on" not in said:
            line = process.stderr.readline()
            if not line:
                process.wait()
                raise HostError(f"tcpdump did not start: {said.decode(errors='replace').strip()}", "run `make install`")
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
        argv = ["tcpdump", "-n", "-t", "-r", str(self.file), *expression.split()]
        return run(argv, check=False).stdout.splitlines()

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

    def holds(self, marker: bytes) -> bool:
        return marker in self.file.read_bytes()
