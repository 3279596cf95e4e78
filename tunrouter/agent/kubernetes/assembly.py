"""The agent's part in a cluster, put together of what an agent has.

Imported only where there is a cluster: TLS and what asks the API cost memory that other hosts need not spend.
"""

from __future__ import annotations

import os
from functools import partial

from tunrouter.agent.barrier import Barrier
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.kubernetes.cluster import Cluster, Spawn
from tunrouter.agent.kubernetes.presence import Presence
from tunrouter.agent.kubernetes.troubles import troubles
from tunrouter.agent.policing import Policing
from tunrouter.agent.readiness import Readiness
from tunrouter.agent.underlay import Underlay
from tunrouter.config import Config
from tunrouter.edge.runtimes import Directories


def cluster(
    config: Config,
    host: HostSide,
    underlay: Underlay,
    runtimes: Directories,
    readiness: Readiness,
    policing: Policing,
    barrier: Barrier,
    spawn: Spawn,
) -> Cluster:
    presence = Presence(config, readiness.unready, host.note_repaired)
    look = partial(troubles, readiness, host, underlay, runtimes, presence, policing)
    return Cluster(config, os.environ, underlay, presence, barrier, spawn, look, readiness.condition)
