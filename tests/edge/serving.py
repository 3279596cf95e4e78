"""An API server in a thread of its own, as the tests of the API and of the command line need one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from tunrouter.edge.api import Call, PolicyCall
from tunrouter.edge.api.server import Handler, serve

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Stub:
    """Remembers the calls; answers with what it was given, or raises it."""

    def __init__(self, answer: object = None) -> None:
        self.answer = answer
        self.calls: list[Call | PolicyCall] = []

    async def __call__(self, call: Call | PolicyCall) -> Any:
        self.calls.append(call)
        answer = self.answer(call) if callable(self.answer) else self.answer
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def serving(path: Path, stub: Handler[Any], loop: str = "uvloop", **options: Any) -> Iterator[None]:
    """Serves `stub` on `path` until the block ends."""
    started = threading.Event()
    stopping: list[Callable[[], object]] = []
    failures: list[BaseException] = []

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.get_running_loop()
        stopping.append(lambda: running.call_soon_threadsafe(stop.set))
        server = await serve(path, stub, **options)
        started.set()
        await stop.wait()
        await server.close()

    def thread() -> None:
        try:
            with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                runner.run(run())
        except BaseException as error:
            failures.append(error)
        finally:
            started.set()

    worker = threading.Thread(target=thread)
    worker.start()
    try:
        assert started.wait(10)
        if failures:
            raise failures[0]
        yield
    finally:
        for stop in stopping:
            if worker.is_alive():
                stop()
        worker.join(10)
        assert not worker.is_alive()
