"""Hearing that links, addresses or routes have changed: rtnetlink's multicast groups.

Law: only that something changed is told, never what: who is woken looks.
"""

from __future__ import annotations

import socket
from typing import Final

from tunrouter.edge.netlink.wire import Hearing

RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 1, 5, 7
GROUPS: Final = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE)


class Watch(Hearing):
    """Wakes its reader, and tells whether links, IPv4 addresses or routes changed since it was last drained."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE, GROUPS)
