"""`python -m tunrouter.agent.worker`: one worker of the data plane as a process of its own.

Law: it knows what the agent tells it over its pipe and nothing else; keys come that way, never by the command line. It
ends when the agent says so. An agent that goes without a word was killed, or is followed by another one: the worker
moves packets on for a while and waits for that; should it hang meanwhile, the kernel's alarm ends it. One that takes
the place of a worker of another build ends that when it is ready itself. Signals that ask a whole group or unit to stop
are the agent's to obey, which still has goodbyes to send.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys

import uvloop

from tunrouter.agent import logs, process
from tunrouter.dataplane.choice import open_kernel
from tunrouter.dataplane.pipe import inherited_end
from tunrouter.dataplane.succession import Hello, Succession, end
from tunrouter.dataplane.tun import open_tun
from tunrouter.dataplane.udp import UdpSocket
from tunrouter.dataplane.worker import Worker
from tunrouter.errors import TunrouterError

log = logging.getLogger("tunrouter.worker")


def main(argv: list[str]) -> int:
    """The exit code; what went wrong stands in the log. The arguments are what `agent/child.py` gives."""
    number, tun, pipe, udps, level, form, place, build, meeting, predecessor = argv
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    process.keep_secrets_in_memory()
    logs.configure(level, json=form == "json")
    sockets = [int(descriptor) for descriptor in udps.split(",")]
    try:
        if predecessor:
            end(int(predecessor))
        uvloop.run(_work(tun, int(pipe), sockets, place, build, meeting))
    except TunrouterError as error:
        log.error("worker %s: %s", number, error)  # noqa: TRY400 (one line, no traceback)
        return error.exit_code
    return 0


async def _work(tun: str, pipe: int, descriptors: list[int], place: str, build: str, meeting: str) -> None:
    """Until control says so, or is gone for good."""
    loop = asyncio.get_running_loop()
    seam_end = inherited_end(pipe)
    udps = [UdpSocket(socket.socket(fileno=descriptor)) for descriptor in descriptors]
    queue = open_tun(tun)
    queue.persist()  # somebody may have deleted the device, and then this made it
    kernel = open_kernel(queue, udps, seam_end.send)
    hello = Hello(place, build, queue.features)
    succession = Succession(loop, meeting, hello, descriptors, alarm=signal.alarm) if meeting else None
    worker = Worker(loop, kernel, queue, udps, seam_end, succession)
    gc.freeze()  # what start-up made lives as long as the process
    await worker.ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
