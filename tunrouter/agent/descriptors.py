"""What the workers are given to hold: the UDP sockets of the families that this host has.

Law: a port or device that another agent holds is an error, unless its holder is dying: the agent that comes after one
that is just being stopped must not fail for that.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from tunrouter.dataplane.udp import bind_group
from tunrouter.errors import HostError

PATIENCE_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.02
log = logging.getLogger("tunrouter")
T = TypeVar("T")


async def patiently(take: Callable[[], T]) -> T:
    """What `take` gives, tried again for a moment while somebody else has it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return take()
        except HostError as error:
            if "in use" not in error.what or time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


def bind_groups(address: str, port: int, workers: int) -> list[list[socket.socket]]:
    """For each family a socket a worker; of the bind address's family alone, if there is one."""
    if address:
        return [bind_group(6 if ":" in address else 4, port, address, workers)]
    first = bind_group(4, port, "", workers)
    try:
        return [first, bind_group(6, port, "", workers)]
    except HostError as error:
        if "in use" in error.what:
            close_groups([first])
            raise
        log.info("IPv6 is not used as underlay: %s", error.what)
        return [first]


def close_groups(groups: Sequence[Sequence[socket.socket]]) -> None:
    for group in groups:
        for bound in group:
            bound.close()
