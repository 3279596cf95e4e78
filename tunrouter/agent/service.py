"""The agent as a service: it says when it is ready, reloads and stops, and that its loop turns.

Law: the watchdog is fed by a timer of the loop and by nothing else, so a loop that is stuck starves it. Ready means
that the host's rules are in force and the API answers. A block of addresses may take peers that start later, so it is
not waited for: the status line says that the node has none yet, and why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from tunrouter.daemon.logs import printable
from tunrouter.edge.notify import Notifier

LOOK_SECONDS: Final = 2.0
"""How often the status line is looked at, where no watchdog wants it sooner."""
MAX_STATUS: Final = 500
"""Characters; a manager shows one line."""


class Service:
    def __init__(self, loop: asyncio.AbstractEventLoop, notifier: Notifier) -> None:
        self._loop = loop
        self._notifier = notifier
        self._pause = min(notifier.watchdog / 2 or LOOK_SECONDS, LOOK_SECONDS)
        self._describe: Callable[[], str] = str
        self._news = ""
        """What became of the last reload, if it was refused."""
        self._unsaid: tuple[str, ...] = ()
        """A change of state that the manager has not taken yet."""
        self._told = ""
        self._timer: asyncio.TimerHandle | None = None

    def starting(self, what: str) -> None:
        self._tell(what)

    def ready(self, describe: Callable[[], str]) -> None:
        """From now on the loop says that it turns; `describe` is asked what the agent does, or waits for."""
        self._describe = describe
        self._enter("READY=1")
        self._tick()

    def reloading(self) -> None:
        self._enter("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reading the configuration")

    def reloaded(self, refusal: str = "") -> None:
        """Ready again, also if the new configuration was refused."""
        self._news = f"; the last reload was refused: {refusal}" if refusal else ""
        self._told = ""
        self._enter("READY=1")
        self._tell(self._describe() + self._news)

    def stopping(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._enter("STOPPING=1", "STATUS=stopping; pods on this host go on reaching each other")

    def _enter(self, *state: str) -> None:
        self._unsaid = () if self._notifier.say(*state) else state

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._tick)
        if self._notifier.watchdog:
            self._notifier.say("WATCHDOG=1")
        if self._unsaid:
            self._enter(*self._unsaid)
        self._tell(self._describe() + self._news)

    def _tell(self, what: str) -> None:
        if what != self._told and self._notifier.say(f"STATUS={printable(what)[:MAX_STATUS]}"):
            self._told = what
