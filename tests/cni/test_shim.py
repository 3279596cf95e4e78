"""The plugin as a runtime runs it: an answer for everything that comes in, with the agent and without it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from tests.cni.structure import error_faults, version_faults
from tunrouter.agent.notes import Notes
from tunrouter.cni.request import VERSIONS
from tunrouter.edge.api.messages import CniCall, Request
from tunrouter.edge.api.server import REQUEST_BYTES

PLUGIN = Path(__file__).parents[2] / "cni-plugin" / "tunrouter-cni"
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
AWAY = {"ADD": 11, "CHECK": 11, "GC": 11, "STATUS": 50}
POD = {"CNI_CONTAINERID": "0123abcd", "CNI_NETNS": "/run/netns/blue", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
NOTE = {"network": "dbnet", "container": "0123abcd", "interface": "eth0"}
RESULT = {"cniVersion": "1.1.0", "interfaces": [], "ips": []}


class Said:
    """What a runtime sees; stderr is empty, stdout is empty or one JSON object, and the exit code is 0 or 1."""

    def __init__(self, code: int, stdout: bytes, stderr: bytes) -> None:
        assert stderr == b""
        assert code in {0, 1}
        self.failed = code == 1
        self.output: Any = None
        if stdout:
            assert stdout.count(b"\n") == 1
            assert stdout.endswith(b"\n")
            self.output = json.loads(stdout.decode("ascii"))
            assert isinstance(self.output, dict)

    def error(self, version: str = "1.1.0") -> int:
        """The code of an error that is as the specification has it."""
        assert self.failed
        assert error_faults(self.output, version) == []
        return int(self.output["code"])


class Agent:
    """Answers every request with the bytes of `answer`, None for silence, and keeps what was asked."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self.answer = answer
        self.lines: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
                if self._ended.is_set():
                    return
                line = stream.readline()
                self.lines.append(line)
                if self.answer is None:
                    self._ended.wait(20)
                else:
                    connection.sendall(self.answer)

    def close(self) -> None:
        self._ended.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self._listener.getsockname())
        self._thread.join()
        self._listener.close()

    @property
    def understood(self) -> bool:
        """Whether the true agent can read the last one."""
        try:
            return bool(self.call)
        except msgspec.DecodeError:
            return False

    @property
    def call(self) -> CniCall:
        """The last one, as the true agent reads it."""
        call = msgspec.json.decode(self.lines[-1], type=Request).call
        assert isinstance(call, CniCall)
        return call


class Runtime:
    """Runs the plugin as a program, or within this process where a test shortens its patience."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.socket = directory / "api.sock"
        self.notes = directory / "notes"
        self._monkeypatch = monkeypatch

    def config(self, verb: str = "ADD", **keys: Any) -> dict[str, Any]:
        config = {"cniVersion": "1.1.0", "name": "dbnet", "type": "tunrouter-cni"}
        if verb == "GC":
            config["cni.dev/valid-attachments"] = []  # type: ignore[assignment]
        return config | {"socket": str(self.socket), "notes": str(self.notes)} | keys

    def run(
        self,
        verb: str,
        stdin: bytes | None = None,
        environment: dict[Any, Any] | None = None,
        **keys: Any,
    ) -> Said:
        variables = {"CNI_COMMAND": verb, **(POD if environment is None else environment)}
        text = json.dumps(self.config(verb, **keys)).encode() if stdin is None else stdin
        done = subprocess.run([PLUGIN], input=text, env=variables, capture_output=True, timeout=60, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    def within(self, plugin: ModuleType, verb: str, stdin: bytes | None = None, **keys: Any) -> Said:
        text = json.dumps(self.config(verb, **keys)).encode() if stdin is None else stdin
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            self._monkeypatch.context() as patch,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
            for name in list(os.environ):
                if name.startswith("CNI_"):
                    patch.delenv(name)
            for name, value in {"CNI_COMMAND": verb, **POD}.items():
                patch.setenv(name, value)
            code = plugin.main()
        return Said(code, stdout.getvalue().encode(), stderr.getvalue().encode())

    def written(self) -> list[Any]:
        """The notes, as the true agent reads them."""
        return [
            {"network": note.network, "container": note.container, "interface": note.interface}
            for note in Notes(self.notes).all()
        ]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    return Runtime(tmp_path, monkeypatch)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plugin as a module, with hardly any patience."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("tunrouter_cni_plugin", str(PLUGIN))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(module, "ANSWER_SECONDS", dict.fromkeys(VERBS, 0.2))
    return module


Answering = Callable[[bytes | None], Agent]


@pytest.fixture
def answering(runtime: Runtime) -> Iterator[Answering]:
    with contextlib.ExitStack() as stack:

        def start(answer: bytes | None) -> Agent:
            agent = Agent(runtime.socket, answer)
            stack.callback(agent.close)
            return agent

        yield start


def reply(output: Any, *, failed: bool = False) -> bytes:
    return json.dumps({"version": 1, "result": {"output": output, "failed": failed}}).encode() + b"\n"


def refusal(what: str) -> bytes:
    error = {"what": what, "fix": "do something", "exit_code": 1}
    return json.dumps({"version": 1, "result": None, "error": error}).encode() + b"\n"


def agrees(runtime: Runtime, said: Said, verb: str) -> None:
    """That is what a runtime hears of an agent that is away."""
    if verb == "DEL":
        assert (said.failed, said.output) == (False, None)
        assert runtime.written() == [NOTE]
    else:
        assert said.error() == AWAY[verb]
        assert not runtime.notes.exists()


# --- VERSION ---------------------------------------------------------------------------------------------------------
def test_the_plugin_can_be_run_by_a_runtime() -> None:
    assert stat.S_IMODE(PLUGIN.stat().st_mode) & 0o111 == 0o111
    first = PLUGIN.read_text().splitlines()[0]
    assert first.startswith("#!/usr/bin/python3 -")


@pytest.mark.parametrize("version", [*VERSIONS, "0.1.0", "0.2.0", "9.9.9"])
def test_version_is_answered_without_an_agent(runtime: Runtime, version: str) -> None:
    said = runtime.run("VERSION", json.dumps({"cniVersion": version}).encode(), {})
    assert not said.failed
    assert version_faults(said.output, version) == []
    assert said.output == {"cniVersion": version, "supportedVersions": list(VERSIONS)}


def test_the_plugin_and_the_agent_support_the_same_versions(plugin: ModuleType) -> None:
    assert plugin.VERSIONS == VERSIONS


def test_version_without_a_version_says_the_newest(runtime: Runtime) -> None:
    said = runtime.run("VERSION", b"{}", {})
    assert (said.failed, version_faults(said.output, VERSIONS[-1])) == (False, [])


@pytest.mark.parametrize("stdin", [b"", b"\n"])
def test_version_needs_no_input_for_before_1_0_0_it_had_no_parameters(runtime: Runtime, stdin: bytes) -> None:
    said = runtime.run("VERSION", stdin, {})
    assert (said.failed, version_faults(said.output, VERSIONS[-1])) == (False, [])


def test_version_needs_no_network(runtime: Runtime) -> None:
    said = runtime.run("VERSION", json.dumps({"cniVersion": "1.0.0", "name": 5, "socket": 5}).encode())
    assert (said.failed, said.output["cniVersion"]) == (False, "1.0.0")


# --- with an agent ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", VERBS)
def test_the_agents_words_are_the_plugins(runtime: Runtime, answering: Answering, verb: str) -> None:
    agent = answering(reply(RESULT))
    said = runtime.run(verb)
    assert (said.failed, said.output) == (False, RESULT)
    agent.answer = reply(None)
    said = runtime.run(verb)
    assert (said.failed, said.output) == (False, None)
    agent.answer = reply({"cniVersion": "1.1.0", "code": 7, "msg": "a\u00e9\ud800"}, failed=True)
    said = runtime.run(verb)
    assert said.error() == 7
    assert len(agent.lines) == 3
    assert not runtime.notes.exists()


def test_the_agent_gets_the_configuration_and_the_variables_of_cni_and_no_others(
    runtime: Runtime, answering: Answering
) -> None:
    agent = answering(reply(RESULT))
    runtime.run(
        "ADD", environment=POD | {"CNI_ARGS": "IP=10.32.1.5", "PATH": "/bin", "SECRET": "x"}, keyA=["\u00e9", None]
    )
    assert agent.call.environment == {"CNI_COMMAND": "ADD", **POD, "CNI_ARGS": "IP=10.32.1.5"}
    assert json.loads(bytes(agent.call.config)) == runtime.config("ADD", keyA=["\u00e9", None])
    assert agent.lines[0].count(b"\n") == 1


def test_an_answer_may_be_large_and_come_in_pieces(runtime: Runtime, answering: Answering) -> None:
    large = RESULT | {"routes": [{"dst": f"10.{n % 250}.0.0/16"} for n in range(50_000)]}
    answering(reply(large))
    assert runtime.run("ADD").output == large


def test_an_agent_that_comes_back_while_add_waits_is_asked(runtime: Runtime, answering: Answering) -> None:
    timer = threading.Timer(1.0, answering, (reply(RESULT),))
    timer.start()
    try:
        said = runtime.run("ADD")
    finally:
        timer.join()
    assert (said.failed, said.output) == (False, RESULT)


# --- with an agent that is no help -----------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", VERBS)
def test_what_the_agent_refuses_is_to_be_tried_again_or_noted(
    runtime: Runtime, answering: Answering, verb: str
) -> None:
    answering(refusal("only root may change the network"))
    said = runtime.run(verb)
    agrees(runtime, said, verb)
    if verb != "DEL":
        assert said.output["msg"] == "only root may change the network"


@pytest.mark.parametrize("answer", [b"", b'{"version":1,"res', b'{"version":1,"result":{"output":'], ids=repr)
@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_hangs_up_is_away(
    runtime: Runtime, plugin: ModuleType, answering: Answering, verb: str, answer: bytes
) -> None:
    answering(answer)
    agrees(runtime, runtime.within(plugin, verb), verb)


GARBAGE = (
    *(b"\n", b"\0\n", b"HTTP/1.1 400 Bad Request\r\n", b"\xff\xfe\n", b"{}\n", b'{"version":1}\n', b"{} {}\n"),
    *(b'{"version":1,"result":null}\n', b'{"result":5}\n', b'{"result":[]}\n', b'{"error":{}}\n', b'{"error":null}\n'),
    *(b"[]\n", b"null\n", b"5\n", b'"text"\n', b"true\n", b'{"error":"text"}\n', b'{"error":["text"]}\n'),
    *(b'{"error":{"what":5}}\n', b"[" * 100_000 + b"\n"),
)


@pytest.mark.parametrize("answer", GARBAGE, ids=lambda answer: repr(answer[:30]))
@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_answers_garbage_is_away(
    runtime: Runtime, plugin: ModuleType, answering: Answering, verb: str, answer: bytes
) -> None:
    answering(answer)
    agrees(runtime, runtime.within(plugin, verb), verb)


@pytest.mark.parametrize("output", [5, "text", [], [{}], True])
def test_what_is_no_object_is_never_a_plugins_output(
    runtime: Runtime, plugin: ModuleType, answering: Answering, output: Any
) -> None:
    answering(reply(output))
    agrees(runtime, runtime.within(plugin, "ADD"), "ADD")


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_is_silent_is_away(runtime: Runtime, plugin: ModuleType, answering: Answering, verb: str) -> None:
    answering(None)
    before = time.monotonic()
    agrees(runtime, runtime.within(plugin, verb), verb)
    assert time.monotonic() - before < 5


def test_a_socket_that_nobody_listens_on_is_away(runtime: Runtime, plugin: ModuleType) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(runtime.socket))
        agrees(runtime, runtime.within(plugin, "STATUS"), "STATUS")
    runtime.socket.unlink()
    runtime.socket.write_text("no socket")
    agrees(runtime, runtime.within(plugin, "CHECK"), "CHECK")


@pytest.mark.parametrize("path", ["", "/" + "a" * 500, "/\0a", "relative"], ids=lambda path: repr(path[:10]))
def test_a_socket_that_is_no_path_is_away(runtime: Runtime, plugin: ModuleType, path: str) -> None:
    agrees(runtime, runtime.within(plugin, "CHECK", socket=path), "CHECK")
    agrees(runtime, runtime.within(plugin, "DEL", socket=path), "DEL")


# --- without an agent ------------------------------------------------------------------------------------------------
def test_add_waits_at_most_five_seconds_for_an_agent_that_is_away(runtime: Runtime) -> None:
    before = time.monotonic()
    said = runtime.run("ADD")
    seconds = time.monotonic() - before
    assert said.error() == 11
    assert str(runtime.socket) in said.output["msg"]
    assert 3 < seconds < 5


@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS"])
def test_the_others_do_not_wait(runtime: Runtime, verb: str) -> None:
    before = time.monotonic()
    said = runtime.run(verb)
    assert said.error() == AWAY[verb]
    assert said.output["details"]
    assert time.monotonic() - before < 3


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_an_error_is_in_the_version_that_was_spoken(runtime: Runtime, plugin: ModuleType, version: str) -> None:
    assert runtime.within(plugin, "ADD", cniVersion=version).error(version) == 11


@pytest.mark.parametrize("version", ["0.1.0", None, 1, [], {}])
def test_an_error_about_an_unknown_version_is_in_the_newest(runtime: Runtime, plugin: ModuleType, version: Any) -> None:
    assert runtime.within(plugin, "GC", cniVersion=version).error() == 11


# --- notes -----------------------------------------------------------------------------------------------------------
def test_a_deletion_without_an_agent_is_noted_once_however_often_it_is_asked_for(runtime: Runtime) -> None:
    for netns in ("/run/netns/blue", "/run/netns/red", ""):
        said = runtime.run("DEL", environment=POD | {"CNI_NETNS": netns})
        assert (said.failed, said.output) == (False, None)
    (path,) = runtime.notes.iterdir()
    assert json.loads(path.read_bytes()) == NOTE
    assert path.suffix == ".json"
    assert runtime.written() == [NOTE]
    assert stat.S_IMODE(runtime.notes.stat().st_mode) == 0o700


def test_each_interface_of_each_container_of_each_network_has_its_own_note(
    runtime: Runtime, plugin: ModuleType
) -> None:
    runtime.run("DEL")
    runtime.run("DEL", environment=POD | {"CNI_IFNAME": "net1"})
    runtime.run("DEL", environment=POD | {"CNI_CONTAINERID": "other"})
    runtime.within(plugin, "DEL", name="net2")
    runtime.within(plugin, "DEL", cniVersion="0.3.1", prevResult={"ips": []})
    expected = [NOTE, NOTE | {"interface": "net1"}, NOTE | {"container": "other"}, NOTE | {"network": "net2"}]
    assert sorted(map(str, runtime.written())) == sorted(map(str, expected))


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_IFNAME"])
def test_a_deletion_of_nothing_is_not_noted(runtime: Runtime, variable: str) -> None:
    said = runtime.run("DEL", environment={key: value for key, value in POD.items() if key != variable})
    assert said.error() == 4
    assert variable in said.output["msg"]
    assert not runtime.notes.exists()


@pytest.mark.parametrize("name", ["", None, 5, [], {}])
def test_a_deletion_of_no_network_is_the_configurations_fault(runtime: Runtime, plugin: ModuleType, name: Any) -> None:
    assert runtime.within(plugin, "DEL", name=name).error() == 7
    assert not runtime.notes.exists()


def test_a_deletion_that_cannot_be_noted_fails_so_that_the_runtime_comes_again(runtime: Runtime) -> None:
    runtime.notes.write_text("no directory")
    said = runtime.run("DEL")
    assert said.error() == 5
    assert str(runtime.notes) in said.output["msg"]
    runtime.notes.unlink()
    assert not runtime.run("DEL").failed


@pytest.mark.parametrize(
    ("notes", "code"),
    [("", 5), ("/proc/nowhere", 5), ("/dev/null/a", 5), ("/\0", 5), ("/\ud800", 6), (5, 7), (None, 7), ([], 7)],
    ids=repr,
)
def test_notes_that_are_no_directory_are_an_error(runtime: Runtime, plugin: ModuleType, notes: Any, code: int) -> None:
    assert runtime.within(plugin, "DEL", notes=notes).error() == code


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_note_is_whole_or_leaves_nothing(
    runtime: Runtime, plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        said = runtime.within(plugin, "DEL")
    assert said.error() == 5
    assert "No space left on device" in said.output["msg"]
    assert list(runtime.notes.iterdir()) == []
    assert not runtime.within(plugin, "DEL").failed
    assert runtime.written() == [NOTE]


def test_a_plugin_that_died_while_it_wrote_disturbs_nobody(runtime: Runtime) -> None:
    runtime.run("DEL")
    (note,) = runtime.notes.iterdir()
    note.rename(note.with_suffix(".4711"))
    assert runtime.written() == []
    assert not runtime.run("DEL").failed
    assert runtime.written() == [NOTE]


# --- what comes in ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", ["", "add", "DELETE", "\u00e9" * 1000, "\n"], ids=lambda text: ascii(text[:10]))
def test_a_command_that_is_none_is_an_error_that_names_the_variable(runtime: Runtime, command: str) -> None:
    said = runtime.run(command)
    assert said.error() == 4
    assert "CNI_COMMAND" in said.output["msg"]


def test_no_environment_at_all_is_an_error(runtime: Runtime) -> None:
    done = subprocess.run([PLUGIN], input=b"{}", env={}, capture_output=True, timeout=60, check=False)
    assert Said(done.returncode, done.stdout, done.stderr).error() == 4


STDIN = {
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "list of objects": b'[{"cniVersion":"1.1.0"}]',
    "text": b'"text"',
    "number": b"1",
    "true": b"true",
    "half": b'{"cniVersion":"1.1.0"',
    "binary": bytes(range(256)) * 10,
    "bad utf-8": b'{"name":"\xff"}',
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "huge number": b'{"mtu":' + b"9" * 5000 + b"}",
    "10 MB": b'{"name":"' + b"a" * 10_000_000 + b'"}',
    "10 MB of spaces": b" " * 10_000_000,
}


@pytest.mark.parametrize("stdin", STDIN.values(), ids=STDIN.keys())
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_what_is_no_network_configuration_cannot_be_decoded(runtime: Runtime, verb: str, stdin: bytes) -> None:
    said = runtime.run(verb, stdin)
    assert said.error() == 6
    assert len(said.output["msg"]) < 300


BEYOND_JSON = ("NaN", "Infinity", "-Infinity", "1e400", '"\\ud800"', '"\\udc00\\ud800"', "[" * 5000 + "]" * 5000)


@pytest.mark.parametrize("value", BEYOND_JSON, ids=lambda text: text[:12])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_what_the_agent_could_not_decode_is_not_given_to_it(
    runtime: Runtime, plugin: ModuleType, answering: Answering, verb: str, value: str
) -> None:
    agent = answering(reply(None))
    stdin = json.dumps(runtime.config(verb))[:-1] + f', "mtu": {value}}}'
    said = runtime.within(plugin, verb, stdin.encode())
    if agent.lines:
        assert agent.understood
    else:
        assert said.error() == 6


def test_a_mebibyte_of_configuration_reaches_the_agent(runtime: Runtime, answering: Answering) -> None:
    agent = answering(reply(RESULT))
    empty = len(json.dumps(runtime.config(keyA="")))
    said = runtime.run("ADD", keyA="a" * ((1 << 20) - empty))
    assert (said.failed, said.output) == (False, RESULT)
    assert len(agent.lines[0]) <= REQUEST_BYTES


OTHERS: dict[str, dict[Any, Any]] = {
    "CNI_ARGS": {"CNI_ARGS": b"FOO=\xff\xfe"},
    "somebody else's": {"OTHER": b"\xff"},
    "a name": {b"CNI_\xff": "x"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("verb", VERBS)
def test_an_environment_that_is_no_utf_8_disturbs_nobody(
    runtime: Runtime, answering: Answering, verb: str, other: dict[Any, Any]
) -> None:
    agent = answering(reply(None))
    said = runtime.run(verb, environment=POD | other)
    assert (said.failed, said.output) == (False, None)
    assert agent.understood
    assert agent.call.environment["CNI_COMMAND"] == verb
    assert "OTHER" not in agent.call.environment


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
def test_a_name_that_is_no_utf_8_does_not_become_another(runtime: Runtime, answering: Answering, variable: str) -> None:
    agent = answering(reply(RESULT))
    said = runtime.run("ADD", environment=POD | {variable: b"a\xff"})
    if agent.lines:
        assert agent.call.environment[variable].isascii() is False
    else:
        assert said.error() == 4
        assert variable in said.output["msg"]


def test_a_deletion_whose_names_are_no_utf_8_leaves_only_what_can_be_worked_off(runtime: Runtime) -> None:
    runtime.run("DEL", environment=POD | {"CNI_IFNAME": b"eth\xff"})
    noted = list(runtime.notes.iterdir()) if runtime.notes.exists() else []
    assert len(runtime.written()) == len(noted)


@pytest.mark.parametrize("key", ["socket", "notes"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["/run"]], ids=repr)
def test_a_path_that_is_no_text_is_no_network(runtime: Runtime, plugin: ModuleType, key: str, value: Any) -> None:
    said = runtime.within(plugin, "DEL", **{key: value})
    assert said.error() == 7
    assert key in said.output["msg"]


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "tr_TR.UTF-8", "nonsense"])
def test_the_locale_does_not_matter(runtime: Runtime, locale: str) -> None:
    said = runtime.run("CHECK", environment=POD | {"LC_ALL": locale, "LANG": locale}, socket="/run/\u00e9\u0131.sock")
    assert said.error() == 11


def test_no_input_at_all_is_an_io_failure(runtime: Runtime) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {PLUGIN} <&-"],
        env={"CNI_COMMAND": "ADD", **POD},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert Said(done.returncode, done.stdout, done.stderr).error() == 5


def test_what_a_user_has_installed_is_not_loaded(runtime: Runtime, tmp_path: Path) -> None:
    for name in ("json", "socket", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)\n")
    said = runtime.run(
        "STATUS", environment=POD | {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "x", "HOME": str(tmp_path)}
    )
    assert said.error() == 50
