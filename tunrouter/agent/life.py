"""The agent's process between its start and its end: what signals ask for, and what the service manager is told.

SIGINT ──> the end    SIGTERM ──> the end, or a restart    SIGHUP ──> reload.py    NOTIFY_SOCKET <── service.py

Law: a service manager that sends SIGTERM does not say whether it starts another agent at once, so packets are moved on
for a while. Without one, and by Ctrl-C, the end is the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

from tunrouter.agent.agent import Agent
from tunrouter.agent.reload import Reload
from tunrouter.agent.service import Service
from tunrouter.config import Config, Given
from tunrouter.daemon import signals
from tunrouter.edge.notify import Notifier
from tunrouter.errors import TunrouterError

log = logging.getLogger("tunrouter")


async def run(config: Config, given: Given) -> None:
    """Returns after SIGTERM or SIGINT; raises TunrouterError for what prevents the start."""
    loop = asyncio.get_running_loop()
    notifier = Notifier(os.environ, os.getpid())
    agent, service = Agent(config, loop, given.remarks(config)), Service(loop, notifier)
    reload = Reload(given, service)
    loop.add_signal_handler(signal.SIGINT, agent.stopped.set)
    loop.add_signal_handler(signal.SIGTERM, agent.depart if notifier.heard else agent.stopped.set)
    loop.add_signal_handler(signal.SIGHUP, reload.ask)
    signals.release()
    async with contextlib.AsyncExitStack() as stack:
        service.starting("setting this host up")
        agent.underlay.waits = service.starting
        try:
            started = await agent.start(stack)
        except TunrouterError as error:
            await agent.mourn(error)
            raise
        if started:
            service.ready(agent.readiness.condition)
            agent.tasks.spawn(reload.keep(config, agent.adopt))
        await agent.stopped.wait()
        service.stopping()
        log.info("stopping; pods on this host go on reaching each other")
    if agent.failure is not None:
        raise agent.failure
