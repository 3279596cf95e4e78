"""A runtime and an agent, with the plugin between them as a program."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import msgspec

from tests.cni.structure import error_faults
from tunrouter.agent.notes import Notes
from tunrouter.edge.api.messages import CniCall, Request

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
        self.stdout = stdout
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
                    connection.recv(1)  # until the plugin has enough of it
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
        call = msgspec.json.decode(self.lines[-1], type=Request[CniCall]).call
        assert isinstance(call, CniCall)
        return call


class Runtime:
    """Runs the plugin, and its hasty variant where a test has no time for its patience."""

    def __init__(self, directory: Path, kind: str, program: Path, hasty: Path) -> None:
        self.kind = kind
        self.program = program
        self.hasty = hasty
        self.socket = directory / "api.sock"
        self.notes = directory / "notes"

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
        program: Path | None = None,
        **keys: Any,
    ) -> Said:
        variables = {"CNI_COMMAND": verb, **(POD if environment is None else environment)}
        text = json.dumps(self.config(verb, **keys)).encode() if stdin is None else stdin
        return self.execute([program or self.program], variables, text)

    def hastily(self, verb: str, stdin: bytes | None = None, **keys: Any) -> Said:
        return self.run(verb, stdin, program=self.hasty, **keys)

    def execute(self, argv: list[Any], variables: dict[Any, Any], text: bytes | None = None, **how: Any) -> Said:
        done = subprocess.run(argv, input=text, env=variables, capture_output=True, timeout=60, check=False, **how)
        return Said(done.returncode, done.stdout, done.stderr)

    def written(self) -> list[Any]:
        """The notes, as the true agent reads them."""
        return [
            {"network": note.network, "container": note.container, "interface": note.interface}
            for _, note in Notes(self.notes).all()
        ]


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
