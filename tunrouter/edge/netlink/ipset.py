"""The names of the ipsets that there are (linux/netfilter/ipset/ip_set.h). They are only listed."""

from __future__ import annotations

import errno
import struct
from typing import Final

from tunrouter.edge.netlink.wire import DUMP, Wire, attribute, attributes, text_of
from tunrouter.errors import HostError

NETLINK_NETFILTER: Final = 12
LIST: Final = 6 << 8 | 7
"""NFNL_SUBSYS_IPSET, IPSET_CMD_LIST."""
PROTOCOL, NAME, FLAGS = 1, 2, 6  # IPSET_ATTR_*
NAMES_ONLY: Final = 1 << 2
"""IPSET_FLAG_LIST_SETNAME."""
VERSIONS: Final = (7, 6)
"""Of the protocol: since Linux 4.20, and before."""
NET_BYTE_ORDER: Final = 1 << 14
_GENERIC: Final = struct.Struct(">BBH")


def names() -> list[str]:
    """Sorted; none where the kernel has no ipsets. Raises HostError."""
    for version in VERSIONS:
        try:
            return _names(version)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP}:
                continue
            raise HostError(f"cannot list the ipsets: {error.strerror}", "run as root") from None
    return []


def _names(version: int) -> list[str]:
    flags = attribute(FLAGS | NET_BYTE_ORDER, NAMES_ONLY.to_bytes(4, "big"))
    question = _GENERIC.pack(0, 0, 0) + attribute(PROTOCOL, bytes([version])) + flags
    with Wire(NETLINK_NETFILTER) as wire:
        found = wire.ask(LIST, question, DUMP)
    return sorted(text_of(dict(attributes(body[_GENERIC.size :])).get(NAME)) for body in found)
