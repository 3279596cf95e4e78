"""The command line's side of the agent's API and of weave-npc's: one question, one answer, over a plain socket.

Law: light to import (a status must not cost a loop), and every way to fail says what to do next.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from tunrouter.edge.api.messages import VERSION, Answer, Call, Request
from tunrouter.edge.api.policing import PolicyCall
from tunrouter.errors import AgentAbsentError, AgentError, AgentSilentError, AgentUnreachableError

SECONDS: Final = 30.0
"""An attachment on a busy host takes seconds."""
ANSWER_BYTES: Final = 64 << 20
_PEERCRED: Final = struct.Struct("3i")
_TIMEVAL: Final = struct.Struct("ll")
Result = TypeVar("Result")


class Asked(NamedTuple):
    """Who is asked: how it is called, and what helps when it is not there or in trouble."""

    who: str
    nobody: str
    start: str
    look: str


AGENT: Final = Asked("the agent", "no agent", "start it with: sudo tunrouter up", "look at the agent's log")
_NPC_LOG: Final = "kubectl logs -n kube-system POD -c weave-npc"
NPC: Final = Asked(
    "weave-npc",
    "no weave-npc",
    f"this node has no policy process, or one that does not run; look with: {_NPC_LOG}",
    f"look with: {_NPC_LOG}",
)


class Client:
    """Asks who listens on `path`; each call opens a connection of its own."""

    def __init__(self, path: Path, seconds: float = SECONDS, asked: Asked = AGENT) -> None:
        self._path = path
        self._seconds = seconds
        self._asked = asked

    def ask(self, call: Call | PolicyCall, result: type[Result]) -> Result:
        """The answer; raises AgentUnreachableError, or AgentError with the other side's own words."""
        with self._connect() as connection:
            try:
                connection.sendall(msgspec.json.encode(Request(call)) + b"\n")
                line = self._receive(connection)
            except BlockingIOError:
                raise self._silent() from None
            except OSError as error:
                what = f"{self._asked.who} on {self._path} broke off: {error.strerror}"
                raise AgentSilentError(what, self._asked.start) from None
        return self._unpack(line, result)

    def pid(self) -> int:
        """The process that listens, as the kernel knows it."""
        with self._connect() as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
            return int(_PEERCRED.unpack(credentials)[0])

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _limit(connection, self._seconds)
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise self._unreachable(error) from None
        return connection

    def _unreachable(self, error: OSError) -> AgentUnreachableError:
        if isinstance(error, PermissionError):
            return AgentUnreachableError(f"permission denied on {self._path}", "run the command with sudo")
        if isinstance(error, BlockingIOError):
            return self._silent()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return AgentAbsentError(f"{self._asked.nobody} answers on {self._path}", self._asked.start)
        fix = f"give the socket of {self._asked.who}: --socket"
        return AgentUnreachableError(f"{self._path}: {error.strerror or error}", fix)

    def _silent(self) -> AgentSilentError:
        return AgentSilentError(f"{self._asked.who} did not answer within {self._seconds:g} s", self._asked.look)

    def _receive(self, connection: socket.socket) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            part = connection.recv(1 << 16)
            if not part or len(line) > ANSWER_BYTES:
                raise AgentSilentError(f"{self._asked.who} on {self._path} closed the connection", self._asked.look)
            line += part
        return bytes(line)

    def _unpack(self, line: bytes, result: type[Result]) -> Result:
        who = self._asked.who
        mismatch = f"use the command of {who}'s version, or restart {who} after an upgrade"
        try:
            answer = msgspec.json.decode(line, type=Answer)
            if answer.version != VERSION:
                raise AgentError(f"{who} speaks API version {answer.version}, this command {VERSION}", mismatch)
            if answer.error:
                failure = AgentError(answer.error.what, answer.error.fix)
                failure.exit_code = answer.error.exit_code
                raise failure
            return msgspec.json.decode(answer.result, type=result)
        except msgspec.MsgspecError as error:
            raise AgentError(f"{who}'s answer is not understood: {error}", mismatch) from None


def _limit(connection: socket.socket, seconds: float) -> None:
    """The kernel's timeouts: with Python's own, connecting to a busy agent would fail at once instead of waiting."""
    whole = int(seconds)
    timeval = _TIMEVAL.pack(whole, int((seconds - whole) * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
