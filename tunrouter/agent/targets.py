"""Whom the operator named: by the configuration, by `connect`, or by `connect` in an earlier life.

Law: what was named by `connect` is remembered until `forget` or `connect --replace` takes it back. The configuration is
not remembered: it says so itself at every start. A name whose look-up takes its time holds up nothing but itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tunrouter.agent import resolve
from tunrouter.agent.control import Control
from tunrouter.config import values
from tunrouter.core import bounds
from tunrouter.core.states import STANDING
from tunrouter.daemon.logs import OncePerKey
from tunrouter.errors import AgentError, ConfigError, TunrouterError

SOUGHT: Final = "its name is being looked up"


class Targets:
    """`remember` takes the names that are to outlive the agent, in order, whenever they change."""

    def __init__(
        self, control: Control, port: int, once: OncePerKey, remember: Callable[[tuple[str, ...]], None]
    ) -> None:
        """`port` is that of peers given without one."""
        self._control = control
        self._node = control.node
        self._port = port
        self._once = once
        self._remember = remember
        self._named: dict[str, None] = {}
        """By `connect`, in this life or an earlier one."""
        self._configured: tuple[str, ...] = ()

    def start(self, configured: Sequence[str], remembered: Sequence[str]) -> None:
        """All of them; what has to be looked up is, by the next `look_up`."""
        self.configure(configured)
        for name in remembered:
            try:
                self._check(name)
            except TunrouterError as error:
                self._once.say("warning", f"target {name}", f"no target any more: {error}", time.monotonic())
            else:
                self._put(name)
        self._named = dict.fromkeys(name for name in remembered if name in self._node.targets)

    def configure(self, configured: Sequence[str]) -> None:
        """What the configuration names now; what it named before goes, unless `connect` named it, too."""
        self._drop([name for name in self._configured if name not in configured and name not in self._named])
        for name in configured:
            if name not in self._node.targets:  # else it may be where its name was found to lead
                self._put(name)
        self._configured = tuple(configured)

    def _put(self, name: str) -> None:
        endpoint = resolve.literal(name, self._port)
        effects = self._node.connect(name, endpoint, "" if endpoint else SOUGHT, time.monotonic())
        self._control.carry_out(effects)

    async def look_up(self) -> None:
        """Names that have no session, again: the peer may have moved."""
        up = {s.endpoint for s in self._node.sessions.values() if s.state in STANDING}
        targets = [target for target in self._node.targets if target.endpoint is None or target.endpoint not in up]
        names = [target.name for target in targets if resolve.literal(target.name, 0) is None]
        await asyncio.gather(*map(self._locate, names))

    async def _locate(self, name: str, *, new: bool = False) -> None:
        """Says where the name leads to; one that was forgotten meanwhile is left alone."""
        endpoint, reason = await resolve.resolve(name, self._port)
        if self._control.stopped:
            raise AgentError("the agent is stopping", "start it again first")
        if reason:
            self._once.say("warning", f"resolve {name}", reason, time.monotonic())
        if new or name in self._node.targets:
            self._control.carry_out(self._node.connect(name, endpoint, reason, time.monotonic()))

    async def connect(self, peers: tuple[str, ...], *, replace: bool) -> None:
        """Raises ConfigError for what is no peer or lies inside the range, AgentError where there is no room."""
        wanted = tuple(dict.fromkeys(peers))
        for name in wanted:
            self._check(name)
        names = self._node.targets.names
        if len({*wanted} if replace else {*names, *wanted}) > bounds.MAX_TARGETS:
            raise AgentError(f"there are {len(names)} targets already", "forget some first")
        if replace:
            self._drop([name for name in names if name not in wanted])
        for name in wanted:
            await self._locate(name, new=True)
            self._named[name] = None
        self._remember(tuple(self._named))

    def forget(self, peers: tuple[str, ...]) -> None:
        """Raises ConfigError for one that is no target."""
        unknown = [peer for peer in peers if peer not in self._node.targets]
        if unknown:
            known = ", ".join(self._node.targets.names) or "none"
            raise ConfigError(f"no such target: {', '.join(unknown)}", f"name one as it was given: {known}")
        self._drop(peers)
        self._remember(tuple(self._named))

    def _check(self, name: str) -> None:
        try:
            values.peer(name)
        except ValueError as error:
            raise ConfigError(f"{error}", "give peers as HOST, HOST:PORT or [IPV6]:PORT") from None
        address, covered = values.peer_address(name), self._node.routes.range
        if address is not None and address in covered:
            fix = "give an address of the underlay: packets to that peer would enter the tunnel they are to carry"
            raise ConfigError(f"peer {name} lies in the range {covered}", fix)

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._named.pop(name, None)
            self._control.carry_out(self._node.forget(name, time.monotonic()))
