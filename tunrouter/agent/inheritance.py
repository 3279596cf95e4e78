"""Workers of an agent that is gone: taken over, or ended if this agent wants another data plane.

Law: all of them or none, for together they hold the port. A worker is known by where it would be met, which stands
among its arguments, so one that hangs and does not listen is found as well; those of other users and networks are not
looked at.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
import nacl
from uvloop import _version as uvloop

from tunrouter.agent.child import MODULE, Order
from tunrouter.config import Config
from tunrouter.core import keys
from tunrouter.dataplane import choice
from tunrouter.dataplane.succession import Heirloom, Misfit, abandon, claim, end
from tunrouter.edge import processes

PACKAGE: Final = Path(__file__).parents[1]
CODE: Final = ("core/*", "dataplane/*", "agent/worker.py", "agent/process.py", "daemon/logs.py", "errors.py")
"""What a worker is made of."""
LIBRARIES: Final = (sys.version, msgspec.__version__, nacl.__version__, uvloop.__version__)
LISTEN_SECONDS: Final = 2.0
"""From its agent's death until a worker must listen."""
LAST_WORDS_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.01
log = logging.getLogger("tunrouter.workers")


def order(config: Config) -> Order:
    """What workers of this agent are started with. Blocks for some milliseconds: it reads the code that they run."""
    build = blake2b("\0".join(LIBRARIES).encode(), digest_size=16)
    for pattern in CODE:
        for file in sorted(PACKAGE.glob(pattern)):
            if file.suffix in (".py", ".so"):
                build.update(file.name.encode() + b"\0" + file.read_bytes())
    return Order(config.tun, config.log_level, config.log_format, build.hexdigest(), Path(config.run_dir))


def charter(config: Config, address: str, identity: keys.Identity) -> str:
    """What a worker serves: its place on this host, this node, its network and secrets.

    `address` is what its sockets are bound to, empty for all: who wants another one cannot use them.
    Keyed by the node's identity, for otherwise whoever reads it could try passwords.
    """
    wanted = (config.tun, address, str(config.port), str(config.workers), os.environ.get(choice.VARIABLE, ""))
    said = blake2b(key=identity.derive(b"tunrouter workers"), digest_size=16)
    for part in (*wanted, config.network, *config.secrets):
        said.update(f"{len(part)}:{part}".encode())
    return said.hexdigest()


def inherit(wanted: Order, directory: Path, charter: str, workers: int) -> list[Heirloom]:
    """As many as `workers`, in their order, or none: then none is left. Blocks for some seconds at most."""
    deadline = time.monotonic() + LISTEN_SECONDS
    found: dict[int, Heirloom] = {}
    try:
        while len(strays(directory)) == workers and len(found) < workers and time.monotonic() < deadline:
            for number in set(range(workers)) - found.keys():
                heirloom = claim(Path(wanted.meeting(number)), charter)
                if heirloom is not None:
                    found[number] = heirloom
            time.sleep(0 if len(found) == workers else PAUSE_SECONDS)
    except Misfit:
        log.info("an earlier agent's workers served something else, and were ended")
    left = [heirloom for _, heirloom in sorted(found.items())]
    if len(left) == workers:
        others = sum(heirloom.build != wanted.build for heirloom in left)
        log.info("an earlier agent's workers %s", "are replaced by those of this build" if others else "go on")
        return left
    for heirloom in left:
        abandon(heirloom)
    end_all(directory)
    return []


def end_all(directory: Path) -> None:
    """Ends whatever worker an agent of that run directory left: asked first, to say goodbye, then killed."""
    opened = []
    for pid in strays(directory):
        with suppress(ProcessLookupError):
            opened.append(os.pidfd_open(pid))
    for process in opened:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    for process in opened:
        select.select([process], [], [], max(0.0, deadline - time.monotonic()))
        end(process)
    for meeting in directory.glob("worker-*.sock"):
        meeting.unlink(missing_ok=True)


def strays(directory: Path) -> list[int]:
    """Workers in this network namespace that would be met in that directory; of a living agent none may be."""
    return processes.running(MODULE, f"{directory}/worker-")
