"""`python -m tunrouter.agent.worker`: one worker of the data plane as a process of its own.

Law: it knows what the agent tells it over its pipe and nothing else; keys come that way, never by the command line. It
ends when the agent says so. An agent that goes without a word was killed, or is followed by another one: the worker
moves packets on for a while and waits for that; should it hang meanwhile, the kernel's alarm ends it. One that takes
the place of a worker of another build ends that once it can go on by itself. Signals that ask a whole group or unit to
stop are the agent's to obey, which still has goodbyes to send; without an agent they are the worker's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from typing import Final

import uvloop

from tunrouter.agent import process
from tunrouter.daemon import logs
from tunrouter.dataplane.choice import open_kernel
from tunrouter.dataplane.pipe import inherited_end
from tunrouter.dataplane.succession import Succession, end
from tunrouter.dataplane.tun import open_tun
from tunrouter.dataplane.udp import UdpSocket
from tunrouter.dataplane.worker import Worker
from tunrouter.errors import TunrouterError

STOPS: Final = (signal.SIGINT, signal.SIGTERM)
HANG_SECONDS: Final = 15
"""Who is without an agent for so long hangs: it should have found one or ended."""
log = logging.getLogger("tunrouter.worker")


def main(argv: list[str]) -> int:
    """The exit code; what went wrong stands in the log. The arguments are what `agent/child.py` gives."""
    number, tun, pipe, udps, level, form, build, meeting, predecessor = argv
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    process.keep_secrets_in_memory()
    logs.configure(level, json=form == "json")
    sockets = [int(descriptor) for descriptor in udps.split(",")]
    try:
        if predecessor:
            end(int(predecessor))
        uvloop.run(_work(tun, int(pipe), sockets, build, meeting))
    except TunrouterError as error:
        log.error("worker %s: %s", number, error)  # noqa: TRY400 (one line, no traceback)
        return error.exit_code
    return 0


async def _work(tun: str, pipe: int, descriptors: list[int], build: str, meeting: str) -> None:
    """Until control says so, or is gone for good."""
    loop = asyncio.get_running_loop()
    seam_end = inherited_end(pipe)
    udps = [UdpSocket(socket.socket(fileno=descriptor)) for descriptor in descriptors]
    queue = open_tun(tun)
    queue.persist()  # somebody may have deleted the device, and then this made it
    kernel = open_kernel(queue, udps, seam_end.send)
    succession = None
    if meeting:
        succession = Succession(loop, meeting, build, queue.features, descriptors, waits=lambda on: _alone(worker, on))
    worker = Worker(loop, kernel, queue, udps, seam_end, succession)
    gc.freeze()  # what start-up made lives as long as the process
    await worker.ended


def _alone(worker: Worker, on: bool) -> None:
    """Without an agent it obeys signals itself, and the kernel ends it should it hang."""
    signal.alarm(HANG_SECONDS if on else 0)
    loop = asyncio.get_running_loop()
    for stop in STOPS:
        if on:
            loop.add_signal_handler(stop, worker.depart)
        else:
            loop.remove_signal_handler(stop)
            signal.signal(stop, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
