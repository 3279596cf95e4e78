"""Hearing that links, addresses or routes have changed: rtnetlink's multicast groups.

Law: only that something changed is told, never what: who is woken looks.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from tunrouter.edge.netlink.wire import Hearing

RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR = 1, 5, 7, 9
GROUPS: Final = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE)
ADDRESSES: Final = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)
"""Of the underlay, which has both families; a router's routes may change without end."""


class Watch(Hearing):
    """Wakes its reader, and tells whether something of `groups` changed since it was last drained."""

    def __init__(self, groups: Sequence[int] = GROUPS) -> None:
        super().__init__(socket.NETLINK_ROUTE, groups)
