"""HTTP/1.1 on the server's side: connections, requests in order, answers whole or in parts, and wrong answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

import h11
import msgspec

from tests.kube.apiserver.request import Request

ACCEPT_TURNS: Final = 4
BACKLOG: Final = 1024
BODY_BYTES: Final = 4 << 20
Answering = Callable[[Request, "Respond"], Awaitable[None]]


class Closed(Exception):
    """The connection is to end without a further word."""


class Respond:
    """How a request is answered: once by `whole`, or by `begin` and then `part`s and `end`."""

    def __init__(self, speech: h11.Connection, writer: asyncio.StreamWriter) -> None:
        self._speech = speech
        self._writer = writer
        self.code = 0
        self.begun: Callable[[int], None] = lambda code: None
        """Hears of the answer's head."""

    async def whole(
        self, code: int, body: Any, *, content: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self._head(code, {"Content-Type": content, "Content-Length": str(len(data)), **(headers or {})})
        await self.part(data)
        await self.end()

    async def begin(self) -> None:
        self._head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
        await self._writer.drain()

    async def part(self, data: bytes) -> None:
        if data:
            self._write(h11.Data(data=data))
            await self._writer.drain()

    async def end(self) -> None:
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    async def cut(self, code: int, data: bytes) -> None:
        """Half of an answer that announces all of it, and the end of the connection."""
        self._head(code, {"Content-Type": "application/json", "Content-Length": str(len(data))})
        await self.part(data[: len(data) // 2])
        raise Closed

    async def garbage(self) -> None:
        self._writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n{{{{" * 8)
        await self._writer.drain()
        raise Closed

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.code = code
        self.begun(code)
        self._write(h11.Response(status_code=code, headers=list(headers.items())))

    def _write(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        if data := self._speech.send(event):
            self._writer.write(data)


class Listener:
    """Accepts connections while it is open; each is served by its own task."""

    def __init__(self, answer: Answering) -> None:
        self.host = ""
        self.port = 0
        self.accepted = 0
        """Connections, in all."""
        self.most = 0
        """Requests at once."""
        self._at_once = 0
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def open(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._server = await asyncio.start_server(
            self._connected, host, port, ssl=context, reuse_address=True, backlog=BACKLOG
        )
        self.host, self.port = self._server.sockets[0].getsockname()[:2]

    @property
    def is_open(self) -> bool:
        return self._server is not None

    async def close(self) -> None:
        """Refuses new connections and resets the others."""
        if self._server is not None:
            server, self._server = self._server, None
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await _turns()  # asyncio loses what it accepted and has not yet told us of when it is closed.
            server.close()
        await self.reset()

    async def reset(self) -> None:
        tasks = dict(self._tasks)
        for task, writer in tasks.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _turns()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()
            return
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task).transport.abort()
        if not task.cancelled():
            task.exception()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speech = h11.Connection(h11.SERVER)
        peer = (writer.get_extra_info("peername") or ("",))[0]
        try:
            while (request := await _received(speech, reader, peer)) is not None:
                respond = Respond(speech, writer)
                await self._while_client_waits(speech, request, respond, reader)
                if speech.our_state is not h11.DONE or speech.their_state is not h11.DONE:
                    return
                speech.start_next_cycle()
        except (Closed, OSError, h11.ProtocolError):
            return

    async def _while_client_waits(
        self, speech: h11.Connection, request: Request, respond: Respond, reader: asyncio.StreamReader
    ) -> None:
        """A watch ends with its client; what a client says meanwhile is kept for afterwards."""
        self._at_once += 1
        self.most = max(self.most, self._at_once)
        answering = asyncio.ensure_future(self._answer(request, respond))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not leaving.result():
                raise Closed
            await answering
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
            self._at_once -= 1
        if not leaving.cancelled():
            speech.receive_data(leaving.result())


async def _turns() -> None:
    """Of the loop: what is accepted, or aborted, is done with."""
    for _ in range(ACCEPT_TURNS):
        await asyncio.sleep(0)


async def _received(speech: h11.Connection, reader: asyncio.StreamReader, peer: str) -> Request | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = speech.next_event()
        if event is h11.NEED_DATA:
            if speech.they_are_waiting_for_100_continue:
                raise Closed
            speech.receive_data(await reader.read(1 << 16))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise Closed
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {key.decode(): value.decode("latin-1") for key, value in head.headers}
            return Request(head.method.decode(), head.target.decode(), headers, body, peer)
        else:
            return None
