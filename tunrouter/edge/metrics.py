"""Metrics and health over HTTP, as Prometheus and a kubelet ask for them: GET /metrics, /healthz and /readyz.

    client ── HTTP ──> a thread with a loop of its own ── asks ──> the agent's loop

Law: the thread waits for the agent's loop no longer than `seconds`, so that it can tell of one that stands still; what
is given up is not done later. What is told is made text here, where nobody waits for it. Size and time of a request are
bounded, one is answered a connection, and where there are too many clients the oldest gives way to the newest.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tunrouter.errors import TunrouterError

ANSWER_SECONDS: Final = 2.0
"""For the agent's loop."""
CLIENT_SECONDS: Final = 5.0
"""To send a request, and to take its answer."""
REQUEST_BYTES: Final = 16 << 10
CLIENTS: Final = 16
"""At once."""
BACKLOG: Final = 64
TEXT: Final = "text/plain; charset=utf-8"
HEAD_ENDS: Final = b"\r\n\r\n"
_ACCEPT_TURNS: Final = 4
"""Turns of the loop from a connection's acceptance to our hearing of it, and to the end of it when that is too late."""

T = TypeVar("T")
log = logging.getLogger("tunrouter.metrics")


class Distribution(NamedTuple):
    """The value of a histogram."""

    buckets: tuple[tuple[float, int], ...]
    """Ascending: a bound, and how many were not beyond it."""
    observations: int
    total: float


Sample = tuple[tuple[str, ...], float | Distribution]
"""Values of the labels, and the value."""


class Family(NamedTuple):
    """One metric with its series."""

    name: str
    """With `_total`, if it is a counter."""
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    samples: Iterable[Sample]


class Source(NamedTuple, Generic[T]):
    """What is told. The first and the last are called on the agent's loop; they may raise TunrouterError."""

    collect: Callable[[], T] | None
    """None: there are no metrics here."""
    render: Callable[[T], Iterable[Family]]
    """Called on the server's thread."""
    unready: Callable[[], str]
    """Why the node is not ready; empty if it is."""


class Reply(NamedTuple):
    status: HTTPStatus
    body: bytes
    kind: str = TEXT


class Server(Generic[T]):
    """`loop` is the agent's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: Source[T],
        *,
        seconds: float = ANSWER_SECONDS,
        client_seconds: float = CLIENT_SECONDS,
        clients: int = CLIENTS,
    ) -> None:
        self._loop = loop
        self._source = source
        self._seconds = seconds
        self._client_seconds = client_seconds
        self._limit = clients
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop = asyncio.Event()

    # --- start and stop ----------------------------------------------------------------------------------------------
    def listen(self, host: str, port: int) -> int:
        """Serves from now on, without a host at every address; the port. Raises OSError."""
        everywhere = not host and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if everywhere or ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=everywhere)
        listener.setblocking(False)
        bound = int(listener.getsockname()[1])
        own = asyncio.SelectorEventLoop()
        thread = threading.Thread(target=self._run, args=(own, listener), name="metrics", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            own.close()
            listener.close()
            raise OSError(errno.EAGAIN, f"{error}") from None
        self._own, self._thread = own, thread
        return bound

    def close(self) -> None:
        """Ends the thread, which answers nobody any more. Idempotent."""
        if self._thread is not None and self._own is not None:
            own, self._own = self._own, None
            own.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self, own: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: own) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connected, sock=listener, limit=REQUEST_BYTES)
        await self._stop.wait()
        # A server that is closed loses what it has just accepted.
        asyncio.get_running_loop().remove_reader(listener)
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        server.close()
        for writer in self._clients.values():
            writer.transport.abort()

    # --- clients -----------------------------------------------------------------------------------------------------
    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stop.is_set():
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._clients[task] = writer
        task.add_done_callback(self._gone)
        if len(self._clients) > self._limit:
            oldest = next(iter(self._clients))
            self._clients.pop(oldest).transport.abort()
            oldest.cancel()

    def _gone(self, task: asyncio.Task[None]) -> None:
        writer = self._clients.pop(task, None)
        if writer is None:
            return  # it gave way
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()  # it does not read
        writer.close()
        if not task.cancelled() and (error := task.exception()):
            log.debug("a client of the metrics left: %r", error)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._client_seconds):
                head = await reader.readuntil(HEAD_ENDS)
        except asyncio.LimitOverrunError:
            head, reply = b"", Reply(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"ask for less\n")
        else:
            reply = await self._answer(head)
        writer.transport.set_write_buffer_limits(0)
        writer.write(_encode(reply, body=not head.startswith(b"HEAD ")))
        async with asyncio.timeout(self._client_seconds):
            await writer.drain()

    async def _answer(self, head: bytes) -> Reply:
        method, path, accept = _parse(head)
        if not path:
            return Reply(HTTPStatus.BAD_REQUEST, b"this is no HTTP request\n")
        if method not in ("GET", "HEAD"):
            return Reply(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD are answered\n")
        try:
            return await self._look_up(path, accept)
        except TimeoutError:
            return _unavailable(f"the agent's loop has not answered within {self._seconds:g} s")
        except TunrouterError as error:
            return _unavailable(str(error))
        except Exception:
            log.exception("a request for %s failed", path)
            return Reply(HTTPStatus.INTERNAL_SERVER_ERROR, b"an internal error: see the agent's log\n")

    async def _look_up(self, path: str, accept: str) -> Reply:
        match path:
            case "/metrics" if self._source.collect is not None:
                collected = await self._ask(self._source.collect)
                return _exposition(self._source.render(collected), accept)
            case "/healthz":
                await self._ask(lambda: None)
                return Reply(HTTPStatus.OK, b"ok\n")
            case "/readyz":
                why = await self._ask(self._source.unready)
                return _unavailable(why) if why else Reply(HTTPStatus.OK, b"ready\n")
            case _:
                metrics = b"/metrics, " if self._source.collect is not None else b""
                return Reply(HTTPStatus.NOT_FOUND, b"there are %s/healthz and /readyz\n" % metrics)

    async def _ask(self, work: Callable[[], Any]) -> Any:
        """What the agent's loop says; raises TimeoutError if it does not come to it."""
        answer: Future[Any] = Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():  # else it was given up
                try:
                    answer.set_result(work())
                except Exception as error:
                    answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        async with asyncio.timeout(self._seconds):
            return await asyncio.wrap_future(answer)


# --- HTTP ------------------------------------------------------------------------------------------------------------
def _parse(head: bytes) -> tuple[str, str, str]:
    """Method, path and what is accepted; no path if it is no request."""
    first, *fields = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[1].startswith("/") or not words[2].startswith("HTTP/1."):
        return "", "", ""
    named = (field.partition(":") for field in fields)
    accept = next((value.strip() for name, _, value in named if name.lower() == "accept"), "")
    return words[0], words[1].partition("?")[0], accept if accept.isprintable() else ""


def _unavailable(why: str) -> Reply:
    return Reply(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n".encode())


def _encode(reply: Reply, *, body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}",
        f"Content-Type: {reply.kind}",
        f"Content-Length: {len(reply.body)}",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + HEAD_ENDS + (reply.body if body else b"")


# --- the text --------------------------------------------------------------------------------------------------------
class _Collected(Collector):
    """What was collected for one answer."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _exposition(families: Iterable[Family], accept: str) -> Reply:
    encode, kind = choose_encoder(accept)
    return Reply(HTTPStatus.OK, encode(_Collected([_metric(family) for family in families])), kind)


def _metric(family: Family) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, value in family.samples:
            assert isinstance(value, Distribution)
            buckets = [(str(bound), float(count)) for bound, count in value.buckets]
            histogram.add_metric(labels, [*buckets, ("+Inf", float(value.observations))], value.total)
        return histogram
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.meaning, labels=family.labels)
    for labels, value in family.samples:
        assert not isinstance(value, Distribution)
        metric.add_metric(labels, value)
    return metric
