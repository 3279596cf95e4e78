"""An API server in a thread of its own, for tests; and what a pod has mounted to reach it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kube.apiserver.certificates import make
from tests.kube.apiserver.rights import ADMIN
from tests.kube.apiserver.server import ApiServer
from tunrouter.edge.kube.access import Access


class Served:
    """The server is touched in its own loop only: by `do`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: ApiServer, authority: Path | None) -> None:
        self.url = server.url
        self._loop = loop
        self._server = server
        self._authority = authority

    def do(self, what: Callable[[ApiServer], Any]) -> Any:
        """What `what` returns, awaited if it can be."""

        async def done() -> Any:
            result = what(self._server)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(30)

    def mount(self, directory: Path, user: str = ADMIN) -> str:
        """A service account's files, as a kubelet mounts them; the token that is in them."""
        directory.mkdir(parents=True, exist_ok=True)
        token = str(self.do(lambda server: server.rights.token(user)))
        (directory / "token").write_text(token)
        if self._authority:
            (directory / "ca.crt").write_text(self._authority.read_text())
        return token

    def access(self, directory: Path) -> Access:
        return Access(self.url, directory)


@contextmanager
def serving(directory: Path | None = None, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Iterator[Served]:
    """Until the block ends; with a directory for certificates by TLS. `options` are the ApiServer's."""
    certificates = make(directory, host) if directory else None
    ready = threading.Event()
    made: list[tuple[asyncio.AbstractEventLoop, ApiServer, asyncio.Event]] = []
    failures: list[BaseException] = []

    async def run() -> None:
        server, stop = ApiServer(**options), asyncio.Event()
        await server.start(host, port, certificates[1:] if certificates else None)
        made.append((asyncio.get_running_loop(), server, stop))
        ready.set()
        await stop.wait()
        await server.down()

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    worker = threading.Thread(target=thread)
    worker.start()
    try:
        assert ready.wait(10)
        if failures:
            raise failures[0]
        loop, server, _ = made[0]
        yield Served(loop, server, certificates.authority if certificates else None)
    finally:
        if made and worker.is_alive():
            made[0][0].call_soon_threadsafe(made[0][2].set)
        worker.join(10)
        assert not worker.is_alive()
