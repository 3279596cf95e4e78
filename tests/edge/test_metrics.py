"""Metrics and health over HTTP: what is answered, to whom, and while the agent's loop stands still."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.edge.serving import LOOPS
from tunrouter.edge.metrics import REQUEST_BYTES, Distribution, Family, Server, Source
from tunrouter.errors import AgentError

SECONDS = 0.3
"""That the tests' servers wait for the loop."""
CLIENTS = 4
HOST = "127.0.0.1"
FAMILIES = (
    Family("a_total", "counter", ("reason",), "How often", [(("one",), 7), (("two",), 0)]),
    Family("b_seconds", "gauge", ("name",), "How long", [(('a "b"\\\n',), 0.25)]),
    Family("c_seconds", "histogram", (), "How late", [((), Distribution(((0.1, 2), (0.5, 3)), 4, 1.5))]),
    Family("d", "gauge", ("peer",), "Nobody", []),
)


class Agent:
    """A loop in a thread of its own, and what it says of itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.why = ""
        self.error: Exception | None = None
        self.collected = 0
        self.threads: list[int] = []
        self.server = Server(loop, Source(self.collect, self.render, lambda: self.why), seconds=SECONDS,
                             client_seconds=SECONDS, clients=CLIENTS)  # fmt: skip
        self.port = self.server.listen(HOST, 0)
        self._goes_on = threading.Event()

    def another(self, **options: float) -> Server[int]:
        return Server(self.loop, Source(self.collect, self.render, lambda: ""), **options)  # type: ignore[arg-type]

    def collect(self) -> int:
        self.collected += 1
        self.threads.append(threading.get_ident())
        if self.error is not None:
            raise self.error
        return 4

    def render(self, count: int) -> Iterator[Family]:
        self.threads.append(threading.get_ident())
        yield from FAMILIES[:count]

    @contextlib.contextmanager
    def wedged(self) -> Iterator[None]:
        """The loop stands still."""
        stands = threading.Event()

        def stand() -> None:
            stands.set()
            self._goes_on.wait(30)

        self.loop.call_soon_threadsafe(stand)
        assert stands.wait(10)
        try:
            yield
        finally:
            self._goes_on.set()

    def get(self, path: str, method: str = "GET", **headers: str) -> HTTPResponse:
        connection = HTTPConnection(HOST, self.port, timeout=10)
        connection.request(method, path, headers=headers)
        return connection.getresponse()

    def say(self, data: bytes) -> bytes:
        """Whatever comes back for raw bytes until the server closes."""
        with self.connected() as client:
            client.sendall(data)
            return everything(client)

    def connected(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=10)


def everything(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 16):
            data += part
    return data


@pytest.fixture(params=LOOPS)
def agent(request: pytest.FixtureRequest) -> Iterator[Agent]:
    loop = LOOPS[request.param]()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    agent = Agent(loop)
    try:
        yield agent
    finally:
        agent.server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        assert not thread.is_alive()


def test_metrics_are_prometheus_text(agent: Agent) -> None:
    response = agent.get("/metrics")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    assert [(sample.labels, sample.value) for sample in found["a"].samples] == [
        ({"reason": "one"}, 7.0),
        ({"reason": "two"}, 0.0),
    ]
    assert found["b_seconds"].samples[0].labels == {"name": 'a "b"\\\n'}
    assert (found["a"].type, found["b_seconds"].type, found["c_seconds"].type) == ("counter", "gauge", "histogram")
    late = {(sample.name, sample.labels.get("le")): sample.value for sample in found["c_seconds"].samples}
    assert late == {
        ("c_seconds_bucket", "0.1"): 2.0,
        ("c_seconds_bucket", "0.5"): 3.0,
        ("c_seconds_bucket", "+Inf"): 4.0,
        ("c_seconds_count", None): 4.0,
        ("c_seconds_sum", None): 1.5,
    }
    assert found["d"].documentation == "Nobody"


def test_who_wants_openmetrics_gets_it(agent: Agent) -> None:
    response = agent.get("/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.read().endswith(b"# EOF\n")


def test_only_what_is_collected_is_made_on_the_agents_loop(agent: Agent) -> None:
    assert agent.get("/metrics").status == 200
    collected, rendered = agent.threads
    assert collected != rendered


def test_health_and_readiness(agent: Agent) -> None:
    assert (agent.get("/healthz").status, agent.get("/healthz").read()) == (200, b"ok\n")
    assert (agent.get("/readyz").status, agent.get("/readyz?verbose").read()) == (200, b"ready\n")
    agent.why = "this node has no block of addresses yet"
    response = agent.get("/readyz")
    assert (response.status, response.read()) == (503, b"this node has no block of addresses yet\n")
    assert agent.get("/healthz").status == 200


def test_a_loop_that_stands_still_is_told_of_on_every_page(agent: Agent) -> None:
    with agent.wedged():
        for path in ("/healthz", "/readyz", "/metrics"):
            began = time.monotonic()
            response = agent.get(path)
            assert response.status == 503
            assert b"has not answered within 0.3 s" in response.read()
            assert SECONDS <= time.monotonic() - began < SECONDS + 5
    assert agent.get("/metrics").status == 200
    assert agent.collected == 1, "what was given up is not done later"


def test_what_the_agent_cannot_tell_yet_is_unavailable(agent: Agent) -> None:
    agent.error = AgentError("the agent is still starting", "try again in a second")
    response = agent.get("/metrics")
    assert (response.status, response.read()) == (503, b"the agent is still starting; try again in a second\n")


def test_a_defect_is_logged_and_not_shown(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    agent.error = ZeroDivisionError("secret detail")
    response = agent.get("/metrics")
    assert response.status == 500
    assert b"secret detail" not in response.read()
    assert "secret detail" in caplog.text
    agent.error = None
    assert agent.get("/metrics").status == 200


def test_other_pages_and_methods(agent: Agent) -> None:
    assert agent.get("/").status == 404
    assert agent.get("/metrics/x").status == 404
    assert agent.get("/metrics", "POST").status == 405
    head = agent.say(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 3\r\n" in head
    assert head.endswith(b"\r\n\r\n"), "no body"


@pytest.mark.parametrize(
    "request_",
    [b"\r\n\r\n", b"hello\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET metrics HTTP/1.1\r\n\r\n", b"\0\xff\r\n\r\n",
     b"GET  /metrics HTTP/1.1\r\n\r\n", b"GET /metrics SPDY/1\r\n\r\n"],
    ids=range(7),
)  # fmt: skip
def test_what_is_no_request_is_refused_and_harms_nobody(agent: Agent, request_: bytes) -> None:
    assert agent.say(request_).startswith(b"HTTP/1.1 400 ")
    assert agent.collected == 0
    assert agent.get("/healthz").status == 200


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=\x0bx", "text/plain;version=", ";;,,;=", "é"])
def test_whatever_is_accepted_the_answer_is_one_of_ours(agent: Agent, accept: str) -> None:
    said = agent.say(f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: ")
    assert b"\x0b" not in said


def test_a_request_that_is_too_large_is_refused(agent: Agent) -> None:
    with agent.connected() as client, contextlib.suppress(ConnectionError):
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 2 * REQUEST_BYTES)
        assert everything(client).startswith(b"HTTP/1.1 431 ")
    assert agent.get("/healthz").status == 200


def test_who_says_nothing_or_drop_by_drop_is_closed(agent: Agent) -> None:
    began = time.monotonic()
    with agent.connected() as silent, agent.connected() as slow:
        slow.settimeout(0.05)
        said = b""
        while time.monotonic() - began < 10:
            try:
                slow.sendall(b"G")
                said = slow.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            break
        assert said == b""
        assert everything(silent) == b""
    assert time.monotonic() - began < 5


def test_where_there_are_too_many_the_newest_are_served(agent: Agent) -> None:
    patient = agent.another(client_seconds=60, clients=CLIENTS)
    with contextlib.closing(patient), contextlib.ExitStack() as stack:
        agent.port = patient.listen(HOST, 0)
        crowd = [stack.enter_context(agent.connected()) for _ in range(5 * CLIENTS)]
        assert agent.get("/healthz").status == 200
        for client in crowd[: 4 * CLIENTS]:
            assert everything(client) == b"", "they gave way"
        crowd[-1].sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert everything(crowd[-1]).endswith(b"ok\n")


def test_an_address_in_use_is_an_error_and_nothing_is_left_behind(agent: Agent) -> None:
    other = agent.another()
    threads = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        other.listen(HOST, agent.port)
    assert threading.active_count() == threads
    other.close()
    agent.server.close()
    with contextlib.closing(other):
        other.listen(HOST, agent.port)
        assert agent.get("/healthz").status == 200


@pytest.mark.parametrize(("host", "to"), [("", HOST), ("", "::1"), ("::1", "::1"), ("0.0.0.0", HOST)])
def test_every_address_or_one(agent: Agent, host: str, to: str) -> None:
    other = agent.another()
    with contextlib.closing(other), socket.create_connection((to, other.listen(host, 0)), timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert everything(client).endswith(b"ok\n")


def test_closing_waits_for_nobody(agent: Agent) -> None:
    with agent.wedged(), agent.connected() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        began = time.monotonic()
        agent.server.close()
        agent.server.close()
        assert time.monotonic() - began < 5
        assert everything(client) == b""


def test_whoever_comes_while_it_closes_is_closed_too(agent: Agent) -> None:
    for _ in range(30):
        server = agent.another(client_seconds=60)
        agent.port = server.listen(HOST, 0)
        with agent.connected() as client:
            server.close()
            assert everything(client) == b""
