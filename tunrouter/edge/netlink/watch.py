"""Hearing that links, addresses or routes have changed: rtnetlink's multicast groups.

Law: only that something changed is told, never what: who is woken looks.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
DRAIN_LIMIT: Final = 1024
"""Notifications read at one wake-up; what is left wakes the reader again."""


class Watch:
    """Tells whether links, IPv4 addresses or routes changed since it was last drained (rtnetlink multicast groups).

    Wakes its reader then, too.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Empties the socket, or nearly: what is left is still news."""
        seen = False
        for _ in range(DRAIN_LIMIT):
            try:
                seen = bool(self._socket.recv(1 << 16)) or seen
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                seen = True  # some were lost, so something changed
        return seen

    def close(self) -> None:
        self._socket.close()
