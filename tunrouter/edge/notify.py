"""What the service manager is told about this process: sd_notify(3), datagrams to the socket that it named.

Law: its variables are taken out of the environment, so that no program we start speaks for us. Where nobody listens
nothing happens, and a manager that is slow holds up nothing: `say` answers whether the lines were taken.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"
INTERVAL: Final = "WATCHDOG_USEC"
WATCHED: Final = "WATCHDOG_PID"
MAX_MICROSECONDS: Final = (1 << 64) - 1


class Notifier:
    def __init__(self, environ: MutableMapping[str, str], pid: int) -> None:
        address = environ.pop(SOCKET, "")
        interval, watched = environ.pop(INTERVAL, ""), environ.pop(WATCHED, "")
        self._socket: socket.socket | None = None
        self.watchdog = 0.0
        """Seconds within which WATCHDOG=1 has to be said again; 0: nobody waits for it."""
        if not address.startswith(("/", "@")):
            return
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if interval.isascii() and interval.isdigit() and watched in ("", str(pid)):
            self.watchdog = min(int(interval), MAX_MICROSECONDS) / 1e6

    @property
    def heard(self) -> bool:
        """There is a service manager."""
        return self._socket is not None

    def say(self, *lines: str) -> bool:
        """One message. False if it was not taken now; true also where nobody listens."""
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendto("\n".join(lines).encode(), self._address)
            return True
        return False

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
