"""A service manager as a service sees it: the socket that takes its datagrams, at a path or abstract."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path


class Manager:
    """A context manager; `address` is what goes into NOTIFY_SOCKET."""

    def __init__(self, directory: Path, *, abstract: bool = False) -> None:
        self.address = f"@tunrouter-test-{os.getpid()}-{id(self):x}" if abstract else str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._said: list[str] = []

    def __enter__(self) -> Manager:
        self._socket.bind(self.address.replace("@", "\0", 1))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def hear(self, seconds: float = 5.0) -> list[str]:
        """The lines of the next message; fails if none comes."""
        self._socket.settimeout(seconds)
        return self._socket.recv(4096).decode().split("\n")

    def waiting(self) -> list[str]:
        """The messages that came since it was asked last."""
        self._socket.setblocking(False)
        found: list[str] = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                self._said += found
                return found

    def said(self) -> list[str]:
        """All messages that `waiting` gave, and those that wait."""
        self.waiting()
        return self._said

    def until(self, begins: str, seconds: float = 10.0) -> list[str]:
        """The first message with a line that begins so; what came before is passed over."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.hear(max(deadline - time.monotonic(), 0.001))
            if any(line.startswith(begins) for line in lines):
                return lines
