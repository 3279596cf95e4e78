"""The server in another process, told what to do over a unix socket, which also passes the walls of network namespaces.

One line of JSON asks, `{"do": NAME, "with": {…}}`; one answers, `{"result": …}` or `{"error": …}`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.kube.apiserver.kinds import BY_KIND, Json
from tests.kube.apiserver.refusals import Refusal
from tests.kube.apiserver.server import ApiServer

LINE_BYTES: Final = 16 << 20


def _get(server: ApiServer, api_version: str, kind: str, name: str, namespace: str = "") -> Json | None:
    found = BY_KIND[api_version, kind]
    return server.store.objects.get((found, namespace or ("default" if found.namespaced else ""), name))


def _all(server: ApiServer, api_version: str, kind: str, namespace: str = "") -> list[Json]:
    return server.store.select(BY_KIND[api_version, kind], namespace, lambda thing: True)


def _rights(server: ApiServer, tokens_wanted: bool, enforced: bool) -> None:
    server.rights.tokens_wanted, server.rights.enforced = tokens_wanted, enforced


COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "plant": lambda server, thing: server.plant(thing),
    "load": lambda server, manifest: server.load(Path(manifest)),
    "remove": lambda server, **which: server.remove(**which),
    "get": _get,
    "all": _all,
    "fault": lambda server, mode, **how: server.faults.plant(mode, **how),
    "partition": lambda server, nodes: server.partition(*nodes),
    "clear": lambda server: server.faults.clear(),
    "down": lambda server: server.down(),
    "up": lambda server: server.up(),
    "lose_events": lambda server: server.lose_events(),
    "reset_watches": lambda server, nodes=(): server.api.reset_watches(*nodes),
    "rights": _rights,
    "token": lambda server, user: server.rights.token(user),
    "expire": lambda server, token: server.rights.expire(token),
    "collect": lambda server, running: server.collector.start_again() if running else server.collector.stop(),
    "journal": lambda server: [entry._asdict() for entry in server.journal],
    "writes": lambda server, **which: [entry._asdict() for entry in server.journal.writes(**which)],
}
"""What can be asked of a server; the names of `with` are those of the parameters."""


async def serve(server: ApiServer, path: Path) -> asyncio.Server:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(await _done(server, line)).encode() + b"\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(converse, path, limit=LINE_BYTES)


async def _done(server: ApiServer, line: bytes) -> Json:
    try:
        asked = json.loads(line)
        result = COMMANDS[asked["do"]](server, **asked.get("with", {}))
        return {"result": await result if inspect.isawaitable(result) else result}
    except (ValueError, KeyError, TypeError, OSError, Refusal) as error:
        return {"error": f"{type(error).__name__}: {error}"}


class Remote:
    """Tells a server what to do: `Remote(path).do("fault", mode="hang")`. A connection for each command."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def listens(self) -> bool:
        """Its socket is there a moment before it is listened on."""
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._path)) == 0

    def do(self, command: str, **parameters: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._path))
            connection.sendall(json.dumps({"do": command, "with": parameters}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        if "error" in answer:
            raise AssertionError(f"{command}: {answer['error']}")
        return answer["result"]
