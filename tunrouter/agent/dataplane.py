"""The data plane's start: taken over from an earlier agent, or begun; and its move to another address of this host.

Law: the port and the device are ours before a worker starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from tunrouter.agent import inheritance
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.descriptors import bind_groups, close_groups, patiently
from tunrouter.agent.workers import Workers
from tunrouter.config import Config
from tunrouter.core import keys
from tunrouter.daemon.logs import OncePerKey
from tunrouter.dataplane.tun import prepare_tun
from tunrouter.host.choice import Chosen


async def start(
    config: Config,
    chosen: Chosen,
    identity: keys.Identity,
    loop: asyncio.AbstractEventLoop,
    barrier: Barrier,
    once: OncePerKey,
    stack: contextlib.AsyncExitStack,
    *,
    leave: Callable[[], bool],
) -> tuple[Workers, tuple[str, ...]]:
    """The workers, and the TUN device's offloads. At the end they are left to the next agent if `leave` says so.

    Raises HostError.
    """
    order = await loop.run_in_executor(None, inheritance.order, config)
    wanted = (Path(config.run_dir), inheritance.charter(config, chosen.address, identity), config.workers)
    left = await loop.run_in_executor(None, inheritance.inherit, order, *wanted)
    if left:
        groups = [list(family) for family in zip(*(heirloom.sockets for heirloom in left), strict=True)]
        stack.callback(close_groups, groups)
        offloads = left[0].offloads
    else:
        groups = await patiently(lambda: bind_groups(chosen.address, config.port, config.workers))
        stack.callback(close_groups, groups)
        offloads = await patiently(lambda: prepare_tun(config.tun))
    workers = Workers(loop, order, groups, barrier, once)

    async def end() -> None:
        await workers.close(leave=leave())

    stack.push_async_callback(end)
    workers.charter(wanted[1])
    workers.start(left)
    return workers, offloads


async def move(workers: Workers, config: Config, chosen: Chosen, identity: keys.Identity) -> None:
    """Binds the port there instead. Workers are replaced: a socket cannot be bound twice, and sessions are renewed.

    Raises HostError; where the old sockets are in the way of the new ones, nothing is bound then.
    """

    async def bind() -> list[list[socket.socket]]:
        return await patiently(lambda: bind_groups(chosen.address, config.port, config.workers))

    apart = bool(chosen.told) and not workers.everywhere
    groups = await bind() if apart else []
    await workers.halt()
    workers.charter(inheritance.charter(config, chosen.address, identity))
    workers.resume(groups or await bind())
