"""The agent's API under both loops: what is asked is answered, and no client disturbs another."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import select
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.edge.serving import LOOPS, Stub, serving
from tunrouter.edge.api import AttachCall, Attachment, ConnectCall, PsCall, StatusCall, WhoisCall
from tunrouter.edge.api.client import Client
from tunrouter.edge.api.server import REQUEST_BYTES
from tunrouter.errors import AgentError, AgentUnreachableError, ConfigError, HostError

ATTACHMENT = Attachment("pod", "10.32.1.2/32", "eth0", 1376)
STATUS = b'{"version":1,"call":{"type":"status"}}\n'


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "api.sock"


@pytest.fixture
def stub(path: Path, loop: str) -> Iterator[Stub]:
    stub = Stub({"alive": True})
    with serving(path, stub, loop, seconds=0.5, clients=8):
        yield stub


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.settimeout(10)
    return connection


def received(connection: socket.socket) -> Any:
    """Everything until the server closes, as one answer; None if there is none."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            data += part
    return json.loads(data) if data else None


def exchange(path: Path, data: bytes) -> Any:
    """The answer to raw bytes."""
    with connected(path) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return received(connection)


def alive(path: Path) -> bool:
    return Client(path, 5).ask(StatusCall(), dict) == {"alive": True}


def test_a_call_arrives_and_its_answer_returns(path: Path, stub: Stub) -> None:
    stub.answer = ATTACHMENT
    call = AttachCall("/proc/7/ns/net", "7", "10.32.1.2", "eth1")
    assert Client(path).ask(call, Attachment) == ATTACHMENT
    assert stub.calls == [call]


def test_an_empty_answer(path: Path, stub: Stub) -> None:
    stub.answer = None
    assert Client(path).ask(ConnectCall(("a",)), object) is None


def test_several_calls_on_one_connection(path: Path, stub: Stub) -> None:
    with connected(path) as connection:
        connection.sendall(STATUS * 3)
        lines = b""
        while lines.count(b"\n") < 3:
            lines += connection.recv(4096)
    assert len(stub.calls) == 3


def test_the_agents_errors_arrive_whole(path: Path, stub: Stub) -> None:
    stub.answer = ConfigError("no such namespace", "give another")
    with pytest.raises(AgentError) as caught:
        Client(path).ask(StatusCall(), dict)
    assert str(caught.value) == "no such namespace; give another"
    assert caught.value.exit_code == 2


def test_an_unexpected_error_is_logged_not_shown(path: Path, stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    stub.answer = ZeroDivisionError("secret detail")
    with pytest.raises(AgentError, match="internal error; see the agent's log") as caught:
        Client(path).ask(StatusCall(), dict)
    assert "secret detail" not in str(caught.value)
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"\0\xff\xfe\n",
        b"{}\n",
        b"[]\n",
        b'{"version":1}\n',
        b'{"version":"1","call":{"type":"status"}}\n',
        b'{"version":1,"call":{"type":"explode"}}\n',
        b'{"version":1,"call":{"type":"connect","peers":"a"}}\n',
        b'{"version":1,"call":' + b"[" * 30_000 + b"\n",
        b'{"version":1,"call":' + b"[" * 30_000 + b"]" * 30_000 + b"}\n",
        b"GET / HTTP/1.1\r\n",
    ],
    ids=range(12),
)
def test_garbage_is_answered_and_harms_nobody(path: Path, stub: Stub, line: bytes) -> None:
    answer = exchange(path, line.removesuffix(b"\n") + b"\n")
    assert answer["version"] == 1
    assert "not a request" in answer["error"]["what"]
    assert not stub.calls
    assert alive(path)


def test_another_version_is_named_before_its_call_is_read(path: Path, stub: Stub) -> None:
    answer = exchange(path, b'{"version":9,"call":{"type":"future"}}\n')
    assert answer["error"]["what"] == "the agent speaks API version 1, the request 9"
    assert not stub.calls


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_an_oversized_request_is_refused(path: Path, stub: Stub, ending: bytes) -> None:
    answer = exchange(path, b"x" * (REQUEST_BYTES * 4) + ending)
    assert answer is None or "exceeds 1088 KiB" in answer["error"]["what"]
    assert alive(path)


def test_the_largest_request_is_taken(path: Path, stub: Stub) -> None:
    padded = STATUS.rstrip() + b" " * (REQUEST_BYTES - len(STATUS) - 1) + b"\n"
    with connected(path) as connection:
        connection.sendall(padded)
        assert b"alive" in connection.recv(4096)


def test_a_slow_request_is_cut_while_others_are_answered(path: Path, stub: Stub) -> None:
    with connected(path) as slow, connected(path) as silent:
        slow.sendall(STATUS[:10])
        assert alive(path)
        assert "no request within" in received(slow)["error"]["what"]
        assert "no request within" in received(silent)["error"]["what"]


def test_a_half_closed_client_still_gets_its_answer(path: Path, stub: Stub) -> None:
    with connected(path) as connection:
        connection.sendall(STATUS)
        connection.shutdown(socket.SHUT_WR)
        assert received(connection)["result"] == {"alive": True}


def test_half_a_request_and_an_end_is_no_request(path: Path, stub: Stub) -> None:
    with connected(path) as connection:
        connection.sendall(STATUS[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert received(connection) is None
    assert not stub.calls


def test_work_is_finished_when_its_client_has_gone(path: Path, stub: Stub) -> None:
    begun, finish, finished = threading.Event(), threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        await asyncio.get_running_loop().run_in_executor(None, finish.wait, 10)
        finished.set()

    stub.answer = lambda _call: work()
    with connected(path) as connection:
        connection.sendall(STATUS)
        assert begun.wait(10)
    finish.set()
    assert finished.wait(10)


def test_a_client_that_does_not_read_is_dropped(path: Path, loop: str) -> None:
    stub = Stub("x" * (8 << 20))
    with serving(path, stub, loop, seconds=0.3), connected(path) as deaf:
        deaf.sendall(STATUS)
        assert len(Client(path, 10).ask(StatusCall(), str)) == 8 << 20
        # Its own answer was cut after the limit: the connection ends before the last byte.
        wait_until(lambda: hung_up(deaf))


def hung_up(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0) and poll.poll(0)[0][1] & select.POLLHUP)


def wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        threading.Event().wait(0.01)


def test_clients_are_bounded_and_room_returns(path: Path, stub: Stub) -> None:
    crowd = [connected(path) for _ in range(8)]
    answer = exchange(path, b"")
    assert answer["error"]["what"] == "the agent has too many clients"
    for connection in crowd:
        connection.close()
    wait_until(lambda: answers(path))


def answers(path: Path) -> bool:
    try:
        return alive(path)
    except AgentError:
        return False


def test_a_storm_of_clients_leaves_nothing_behind(path: Path, stub: Stub) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for round_ in range(200):
        with connected(path) as connection, contextlib.suppress(BrokenPipeError):
            connection.sendall([b"", b"junk", STATUS, STATUS[:5], b"\n"][round_ % 5])
    wait_until(lambda: answers(path))
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_mode_and_group_of_the_socket(path: Path, loop: str) -> None:
    group = grp.getgrgid(1)
    with serving(path, Stub(), loop, group=group.gr_name):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert (found.st_uid, found.st_gid) == (os.geteuid(), group.gr_gid)


def test_the_group_reaches_the_socket_whatever_the_umask(path: Path, loop: str) -> None:
    before = os.umask(0o077)
    try:
        with serving(path, Stub(), loop):
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_without_the_group_only_root_may_ask(path: Path, loop: str) -> None:
    with serving(path, Stub(), loop, group="no-such-group"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getegid()


@pytest.mark.root
def test_changing_calls_need_root(path: Path, stub: Stub) -> None:
    path.chmod(0o666)
    for parent in path.parents:
        if parent == Path("/tmp"):
            break
        parent.chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tunrouter.edge.api import *; from tunrouter.edge.api.client import Client\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "client = Client(Path(sys.argv[1])); print(client.ask(StatusCall(), dict))\n"
        "client.ask(PsCall(), dict); client.ask(WhoisCall('10.32.1.2'), dict)\n"
        "for call in (ConnectCall(('a',)), ForgetCall(('a',)), AttachCall('/n', 'n'), DetachCall('/n', 'n'),\n"
        "             RmpeerCall(('a',), dry_run=True), LeaveCall(), SetElectorsCall(('a',)), ExposeCall(),\n"
        "             HideCall()):\n"
        "    try: client.ask(call, object)\n"
        "    except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (
        done.stdout.splitlines()
        == ["{'alive': True}"] + ["only root may change the network; run the command with sudo"] * 9
    ), done.stderr
    assert stub.calls == [StatusCall(), PsCall(), WhoisCall("10.32.1.2")]


def test_a_second_agent_is_refused_and_the_first_stays(path: Path, stub: Stub, loop: str) -> None:
    with pytest.raises(HostError, match=rf"already runs on .* \(pid {os.getpid()}\)"), serving(path, Stub(), loop):
        pass
    assert alive(path)


def test_a_foreign_listener_is_not_replaced(path: Path, loop: str) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        with pytest.raises(HostError, match="another program"), serving(path, Stub(), loop):
            pass
    assert path.exists()


def test_a_stale_socket_is_replaced(path: Path, loop: str) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(path, Stub({"alive": True}), loop):
        assert alive(path)
    assert not path.exists()


def test_a_file_that_is_no_socket_is_kept(path: Path, loop: str) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(HostError, match="not a socket"), serving(path, Stub(), loop):
        pass
    assert path.read_text() == "precious"
    path.unlink()
    with serving(path, Stub({"alive": True}), loop):
        assert alive(path)


def test_a_path_that_is_too_long(tmp_path: Path, loop: str) -> None:
    with pytest.raises(HostError, match="short path"), serving(tmp_path / ("x" * 120) / "s", Stub(), loop):
        pass


def test_no_agent(path: Path) -> None:
    with pytest.raises(AgentUnreachableError, match=r"no agent answers on .*; start it with: sudo tunrouter up"):
        Client(path).ask(StatusCall(), dict)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(AgentUnreachableError, match="no agent answers"):
        Client(path).ask(StatusCall(), dict)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (b"", AgentUnreachableError, "closed the connection"),
        (b'{"version":1', AgentUnreachableError, "closed the connection"),
        (b"junk\n", AgentError, "not understood"),
        (b'{"version":2,"result":{"new":1}}\n', AgentError, "the agent speaks API version 2, this command 1"),
        (b'{"version":1,"result":[]}\n', AgentError, "not understood"),
    ],
)
def test_agents_that_answer_badly(path: Path, reply: bytes, error: type[Exception], words: str) -> None:
    with Replying(path, reply), pytest.raises(error, match=words):
        Client(path, 5).ask(StatusCall(), dict)


def test_an_agent_that_is_silent(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(AgentUnreachableError, match=r"within 0.1 s; look at the agent's log"):
            Client(path, 0.1).ask(StatusCall(), dict)


class Replying:
    """A one-shot server of raw bytes."""

    def __init__(self, path: Path, reply: bytes) -> None:
        path.parent.mkdir()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._reply = reply
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(self._reply)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._socket.close()


def test_the_client_knows_the_agents_process(path: Path, stub: Stub) -> None:
    assert Client(path).pid() == os.getpid()
    assert alive(path)


def test_a_busy_agent_is_waited_for(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with connected(path):
            began = time.monotonic()
            with pytest.raises(AgentUnreachableError, match=r"within 0\.2 s"):
                Client(path, 0.2).pid()
            assert time.monotonic() - began > 0.15


def test_an_answer_that_is_no_struct_is_msgspecs(path: Path, stub: Stub) -> None:
    stub.answer = [msgspec.UNSET]
    with pytest.raises(AgentError, match="internal error"):
        Client(path).ask(StatusCall(), dict)


def test_the_client_is_light() -> None:
    program = "import sys, tunrouter.edge.api.client; print('asyncio' in sys.modules or 'logging' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"
