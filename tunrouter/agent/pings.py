"""`tunrouter ping`: one heartbeat more to a node, and what became of it.

    command ── ping ──> here ── a heartbeat in the session with the node ──> its agent
            <── time, path ──                       <── its answer ──

Law: the time is that of the heartbeat alone, never of the handshake that a closed session needs first. Whoever asks
gets an answer within his seconds, and all together ask for no more than `ECHOES_PER_SECOND`.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Final, Protocol

from tunrouter.agent import peers
from tunrouter.core import bounds, seam, status
from tunrouter.core.admission import Budget
from tunrouter.core.dial import text
from tunrouter.core.node import Node
from tunrouter.core.outbox import Echo
from tunrouter.core.session import Session
from tunrouter.edge import api
from tunrouter.errors import AgentError

MOST_SECONDS: Final = 10.0
"""That somebody may wait for one."""
OPENING_SECONDS: Final = 0.02
"""Pause between two looks whether a session that is being opened stands; no step of the node, which costs far more."""


class Carrier(Protocol):
    """What takes a heartbeat to a node, as `Control` does."""

    @property
    def node(self) -> Node: ...

    def ping(self, node: int, ticket: int) -> None: ...


class Pings:
    def __init__(self, loop: asyncio.AbstractEventLoop, carrier: Carrier) -> None:
        self._loop = loop
        self._carrier = carrier
        self._tickets = count(1)
        self._waiting: dict[int, asyncio.Future[Echo]] = {}
        self._budget = Budget(bounds.ECHOES_PER_SECOND, bounds.ECHOES_BURST)

    def echoed(self, echo: Echo) -> None:
        waiting = self._waiting.get(echo.ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(echo)

    async def ping(self, call: api.PingCall) -> api.Pinged:
        """Raises AgentError where there is nobody to ask."""
        other = peers.meant(self._carrier.node, call.peer)
        if self._budget.empty(self._loop.time()):
            raise AgentError("too many pings at once", "leave a pause between them: -i")
        self._budget.take(self._loop.time())
        seconds = min(max(call.seconds, 0.0), MOST_SECONDS)
        return self._told(other, await self._echo(other, seconds))

    async def _echo(self, other: int, seconds: float) -> Echo | None:
        """None if there is none in time."""
        ticket = next(self._tickets)
        echo: asyncio.Future[Echo] = self._loop.create_future()
        self._waiting[ticket] = echo
        try:
            async with asyncio.timeout(seconds):
                if not self._stands(other):
                    self._carrier.ping(other, ticket)  # which opens the session
                    while not self._stands(other):
                        await asyncio.sleep(OPENING_SECONDS)
                self._carrier.ping(other, ticket)
                return await echo
        except TimeoutError:
            return None
        finally:
            del self._waiting[ticket]

    def _stands(self, other: int) -> bool:
        session = self._session(other)
        return session is not None and session.current is not None

    def _session(self, other: int) -> Session | None:
        return self._carrier.node.sessions.get(other)

    def _told(self, other: int, echo: Echo | None) -> api.Pinged:
        node, session = self._carrier.node, self._session(other)
        stands = session is not None and session.current is not None
        relayed = session is not None and (session.relayed or (echo is not None and echo.relayed))
        return api.Pinged(
            peer=status.peer_name(other),
            nickname=node.name_of(other),
            id=f"{other:016x}",
            address=_address(session),
            path=("relay" if relayed else "direct") if stands else "",
            via=self._relays(other) if stands and relayed else (),
            mtu=session.inner_mtu if session is not None and stands else 0,
            encrypted=node.local.sealed,
            rtt=echo.seconds if echo is not None else None,
            reason="" if echo is not None else _reason(session, stands=stands),
        )

    def _relays(self, other: int) -> tuple[api.NodeName, ...]:
        """The first is the one in use; those behind it are the ways that the nodes tell of, if they begin with it."""
        node = self._carrier.node
        first, told = node.hops.via(other), node.mesh.topology.relays(other)
        passed = told if told[:1] == (first,) else (first,) if first else ()
        return tuple(api.NodeName(status.peer_name(relay), node.name_of(relay)) for relay in passed)


def _address(session: Session | None) -> str:
    """Where it is reached directly, or was at last."""
    if session is None:
        return ""
    found = next((at for at in (session.endpoint, session.home) if at is not None and not seam.relay_target(at)), None)
    return text(found) if found is not None else ""


def _reason(session: Session | None, *, stands: bool) -> str:
    if stands:
        return "no answer in time"
    return f"not connected: {session.reason}" if session is not None and session.reason else "not connected"
