"""What the kernel refuses, in words: who it was, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError

from tunrouter.errors import HostError

FIXES: Final = {
    errno.EPERM: "run as root, or give the process CAP_NET_ADMIN",
    errno.EOPNOTSUPP: "use a kernel with bridge, veth and tun support",
    errno.EXFULL: "a bridge has at most 1,023 ports: attach the container on another node",
    errno.EEXIST: "remove the device of that name, or choose another",
}


def code_of(error: NetlinkError | OSError) -> int:
    return int(error.code if isinstance(error, NetlinkError) else error.errno or 0)


def refused(error: NetlinkError | OSError, doing: str) -> HostError:
    code = code_of(error)
    said = os.strerror(code) if code else str(error)
    return HostError(f"{doing}: {said}", FIXES.get(code, "see dmesg, then try again"))


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Raises HostError."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise refused(error, doing) from None
