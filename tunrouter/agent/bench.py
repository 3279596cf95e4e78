"""The agent's part in `tunrouter bench PEER`: it asks a peer's agent for a responder, and runs one when it is asked.

    command ── ask ──> our agent ── BenchAsk ──> the peer's agent ── starts ──> responder
            <─ offer ─           <─ BenchAnswer ─    (address, ports, token)       ↑
            └──────────────────── TCP and UDP through the tunnel ─────────────────┘

Law: one responder at a time, whoever asks; it is started on the bridge's address, its token passes through its stdin
and inside the session and is never on a command line; it ends with the agent. A question is repeated, since any message
may be lost, and the same question gets the same answer. What a peer says is checked: an offer of an address outside its
own routed blocks is refused, for it would aim our traffic at somebody else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, Protocol

import msgspec

from tunrouter.agent import peers
from tunrouter.bench.exchange import Ports, Served
from tunrouter.core import bounds, status, wire
from tunrouter.core.admission import Budget, Sources
from tunrouter.core.dial import text
from tunrouter.core.node import Node
from tunrouter.core.session import Session
from tunrouter.edge import api
from tunrouter.errors import AgentError

MODULE: Final = "tunrouter.bench.responder"
ASKS: Final = 5
ASK_SECONDS: Final = 1.0
"""Pause before a question is said again."""
BUSY_TRIES: Final = 2
BUSY_SECONDS: Final = 0.5
"""Pause before a busy peer is asked again: its responder of a moment ago may just be ending."""
START_SECONDS: Final = 4.0
"""For the responder to say its ports."""
LIFE_SECONDS: Final = 130.0
"""A responder that has not ended by itself by then is killed."""
REAP_SECONDS: Final = 1.0
STARTS_PER_SECOND: Final = 0.5
STARTS_BURST: Final = 8
"""Responders that we start for all peers together: each is a process."""
PEER_STARTS_PER_SECOND: Final = 0.2
PEER_STARTS_BURST: Final = 4
"""Of these, for one."""
WORDS_BYTES: Final = 4096
log = logging.getLogger("tunrouter.bench")


class Carrier(Protocol):
    """What takes our words to a peer's agent, as `Control` does."""

    @property
    def node(self) -> Node: ...

    def tell(self, node: int, body: wire.AgentBody) -> None: ...


class Responder:
    """The process, and whom it is for."""

    def __init__(self, address: IPv4Address, token: bytes, node: int, question: int) -> None:
        """Raises OSError."""
        self.node, self.question, self.address = node, question, address
        self.answer: wire.BenchAnswer | None = None
        self.words = b""
        # -P: nothing is imported from the directory the agent happens to be started in.
        argv = [sys.executable, "-P", "-m", MODULE, str(address)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.write(self.stdin.fileno(), token)
        os.set_blocking(self.stdout.fileno(), False)

    def close(self) -> None:
        """Which asks it to end."""
        self.stdin.close()
        self.stdout.close()


class Bench:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        carrier: Carrier,
        address: Callable[[], IPv4Address | None],
        *,
        allowed: bool,
        kernel: Callable[[], str],
    ) -> None:
        """`address` is the bridge's of now, if it has one; `kernel` names what moves our packets."""
        self._loop = loop
        self._carrier = carrier
        self._address = address
        self._allowed = allowed
        self._kernel = kernel
        self._starts = Budget(STARTS_PER_SECOND, STARTS_BURST)
        self._peer_starts = Sources(PEER_STARTS_PER_SECOND, PEER_STARTS_BURST, bounds.MAX_PEERS)
        self._running: Responder | None = None
        self._dying: list[Responder] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._waiting: dict[tuple[int, int], asyncio.Future[wire.BenchAnswer]] = {}
        self.counters = dict.fromkeys(("bench_started", "bench_refused", "bench_strangers", "bench_unasked"), 0)

    def heard(self, node: int, body: wire.AgentBody) -> None:
        """A peer's agent says this."""
        match body:
            case wire.BenchAsk(question):
                self._on_ask(node, question)
            case wire.BenchAnswer(question):
                waiting = self._waiting.get((node, question))
                if waiting is None:
                    self.counters["bench_unasked"] += 1
                elif not waiting.done():
                    waiting.set_result(body)

    # --- a peer asks us ----------------------------------------------------------------------------------------------
    def _on_ask(self, node: int, question: int) -> None:
        running, now = self._running, self._loop.time()
        if not self._allowed:
            self._refuse(node, question, wire.BENCH_OFF)
        elif running is None and not self._starts.empty(now) and not self._peer_starts.empty(str(node), now):
            self._starts.take(now)
            self._peer_starts.take(str(node), now)
            self._start(node, question)
        elif running is None or (running.node, running.question) != (node, question):
            self._refuse(node, question, wire.BENCH_BUSY)
        elif running.answer is not None:
            self._carrier.tell(node, running.answer)

    def _refuse(self, node: int, question: int, refusal: int) -> None:
        self.counters["bench_refused"] += 1
        self._carrier.tell(node, wire.BenchAnswer(question, refusal))

    def _start(self, node: int, question: int) -> None:
        token, address, name = os.urandom(wire.BENCH_TOKEN_BYTES), self._address(), self._carrier.node.name_of(node)
        if address is None:
            log.warning("%s would measure the path to us, but this node has no block of addresses", name)
            self._refuse(node, question, wire.BENCH_FAILED)
            return
        try:
            responder = Responder(address, token, node, question)
        except OSError as error:
            log.error("no responder for %s could be started: %s", name, error.strerror)  # noqa: TRY400 (one line)
            self._refuse(node, question, wire.BENCH_FAILED)
            return
        self._running = responder
        self.counters["bench_started"] += 1
        log.info("%s measures the path to us", name)
        self._loop.add_reader(responder.stdout.fileno(), self._on_words, responder, token)
        self._timers = [
            self._loop.call_later(START_SECONDS, self._give_up, responder),
            self._loop.call_later(LIFE_SECONDS, responder.process.kill),
        ]

    def _give_up(self, responder: Responder) -> None:
        if responder.answer is None:
            responder.process.kill()

    def _on_words(self, responder: Responder, token: bytes) -> None:
        part = os.read(responder.stdout.fileno(), WORDS_BYTES)
        responder.words += part
        if responder.answer is None and b"\n" in responder.words:
            line, _, responder.words = responder.words.partition(b"\n")
            ports = msgspec.json.decode(line, type=Ports)
            where, workers = str(responder.address), self._carrier.node.local.workers
            responder.answer = wire.BenchAnswer(
                responder.question, 0, where, ports.tcp, ports.udp, token, self._kernel(), workers
            )
            self._carrier.tell(responder.node, responder.answer)
        if not part:
            self._on_end(responder)

    def _on_end(self, responder: Responder) -> None:
        """Its last words are said, so the next may be started."""
        if responder.answer is None:
            log.error("the responder for %s did not start", self._carrier.node.name_of(responder.node))
            self._refuse(responder.node, responder.question, wire.BENCH_FAILED)
        elif responder.words.endswith(b"\n"):
            served = msgspec.json.decode(responder.words, type=Served)
            self.counters["bench_strangers"] += served.strangers
            log.info("%s has measured: %s", self._carrier.node.name_of(responder.node), served.end)
        self._leave(responder)

    def _leave(self, responder: Responder) -> None:
        self._loop.remove_reader(responder.stdout.fileno())
        for timer in self._timers:
            timer.cancel()
        self._running = None
        responder.close()
        self._dying.append(responder)
        self._timers = [self._loop.call_later(REAP_SECONDS, self._reap)]

    def _reap(self) -> None:
        """What has not ended by now is killed."""
        self._dying = [responder for responder in self._dying if responder.process.poll() is None]
        for responder in self._dying:
            responder.process.kill()
        if self._dying:
            self._loop.call_later(REAP_SECONDS, self._reap)

    def close(self) -> None:
        if self._running is not None:
            self._leave(self._running)
        for timer in self._timers:
            timer.cancel()
        for responder in self._dying:
            responder.process.kill()
            responder.process.wait()
        self._dying.clear()

    # --- our command asks a peer -------------------------------------------------------------------------------------
    async def ask(self, peer: str) -> api.BenchOffer:
        """Raises AgentError, which says what to do next."""
        session = peers.find(self._carrier.node, peer)
        answer = await self._question(session)
        for _ in range(BUSY_TRIES):
            if answer.refusal != wire.BENCH_BUSY:
                break
            await asyncio.sleep(BUSY_SECONDS)
            answer = await self._question(session)
        return self._offer(session, answer)

    async def _question(self, session: Session) -> wire.BenchAnswer:
        question = int.from_bytes(os.urandom(7), "big")
        key = (session.node, question)
        answer: asyncio.Future[wire.BenchAnswer] = self._loop.create_future()
        self._waiting[key] = answer
        try:
            for _ in range(ASKS):
                self._carrier.tell(session.node, wire.BenchAsk(question))
                if (await asyncio.wait([answer], timeout=ASK_SECONDS))[0]:
                    return answer.result()
        finally:
            del self._waiting[key]
        raise self._no_answer(session)

    def _no_answer(self, session: Session) -> AgentError:
        name = self._carrier.node.name_of(session.node)
        if session.current is None:
            reason = f": {session.reason}" if session.reason else ""
            return AgentError(f"{name} is not connected{reason}", "see: tunrouter status connections")
        return AgentError(
            f"the agent of {name} does not answer within {ASKS * ASK_SECONDS:g} s",
            "it may be older than this one: bring both to the same version",
        )

    def _offer(self, session: Session, answer: wire.BenchAnswer) -> api.BenchOffer:
        node = self._carrier.node
        name = node.name_of(session.node)
        if answer.refusal:
            raise _refused(name, answer.refusal)
        if not any(IPv4Address(answer.address) in block for block in node.routes.routed(session.node)):
            raise AgentError(
                f"{name} offers {answer.address}, which is not in its own blocks", "see: tunrouter status -o wide peers"
            )
        return api.BenchOffer(
            peer=status.peer_name(session.node),
            nickname=session.name,
            id=f"{session.node:016x}",
            address=answer.address,
            tcp=answer.tcp,
            udp=answer.udp,
            token=answer.token.hex(),
            kernel=answer.kernel,
            workers=answer.workers,
            endpoint=text(session.endpoint) if session.endpoint is not None else "",
            path="direct",
            mtu=session.inner_mtu,
            encrypted=node.local.sealed,
        )


def _refused(name: str, refusal: int) -> AgentError:
    match refusal:
        case wire.BENCH_BUSY:
            return AgentError(f"{name} is being measured with already", "try again in a minute")
        case wire.BENCH_OFF:
            return AgentError(f"{name} does not let itself be measured", "set `bench = true` there and restart it")
        case wire.BENCH_FAILED:
            return AgentError(f"the responder on {name} did not start", "see the log of its agent")
        case _:
            return AgentError(f"{name} refuses, for a reason that a later version knows", "bring both to one version")
