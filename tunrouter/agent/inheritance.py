"""Workers of an agent that is gone: taken over, or ended if this agent wants another data plane.

Law: all of them or none, for together they hold the port. A worker is known by where it would be met, which stands
among its arguments, so one that hangs and does not listen is found as well; those of other networks are not looked at.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from tunrouter.agent.child import MODULE, Order
from tunrouter.config import Config
from tunrouter.dataplane import choice
from tunrouter.dataplane.succession import Heirloom, abandon, claim, end
from tunrouter.edge import processes

PACKAGE: Final = Path(__file__).parents[1]
PARTS: Final = ("core", "dataplane")
"""What a worker is made of."""
LISTEN_SECONDS: Final = 2.0
"""From its agent's death until a worker must listen."""
PAUSE_SECONDS: Final = 0.01
log = logging.getLogger("tunrouter.workers")


def order(config: Config) -> Order:
    """What workers of this agent are started with. Blocks for some milliseconds: it reads the code that they run."""
    wanted = (config.tun, config.host, str(config.port), str(config.workers), os.environ.get(choice.VARIABLE, ""))
    build = blake2b(digest_size=16)
    for part in PARTS:
        for file in sorted((PACKAGE / part).iterdir()):
            if file.suffix in (".py", ".so"):
                build.update(file.name.encode() + b"\0" + file.read_bytes())
    place, directory = " ".join(wanted), Path(config.run_dir)
    return Order(config.tun, config.log_level, config.log_format, place, build.hexdigest(), directory)


def inherit(wanted: Order, directory: Path, workers: int) -> list[Heirloom]:
    """As many as `workers`, in their order, or none: then none is left. Blocks for some seconds at most."""
    meetings = [Path(wanted.meeting(number)) for number in range(workers)]
    deadline = time.monotonic() + LISTEN_SECONDS
    left: list[Heirloom] = []
    while (there := strays(directory)) and time.monotonic() < deadline:
        if len(there) == workers and all(meeting.exists() for meeting in meetings):
            found = [claim(meeting, wanted.place) for meeting in meetings]
            left = [heirloom for heirloom in found if heirloom is not None]
            break
        time.sleep(PAUSE_SECONDS)
    if len(left) == workers:
        others = sum(heirloom.build != wanted.build for heirloom in left)
        log.info("an earlier agent's workers %s", "are replaced by those of this build" if others else "go on")
        return left
    for heirloom in left:
        abandon(heirloom)
    end_all(directory)
    return []


def end_all(directory: Path) -> None:
    """Kills whatever worker an agent of that run directory left."""
    for pid in strays(directory):
        with suppress(ProcessLookupError):
            end(os.pidfd_open(pid))
    for meeting in directory.glob("worker-*.sock"):
        meeting.unlink(missing_ok=True)


def strays(directory: Path) -> list[int]:
    """Workers in this network namespace that would be met in that directory; of a living agent none may be."""
    return processes.running(MODULE, f"{directory}/worker-")
