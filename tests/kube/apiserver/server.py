"""The API server as a whole: listener, rights, faults, store, collector; lives in one loop."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import yaml

from tests.kube.apiserver.api import Api
from tests.kube.apiserver.collector import Collector
from tests.kube.apiserver.faults import Fault, Faults
from tests.kube.apiserver.journal import Entry, Journal, now
from tests.kube.apiserver.kinds import BY_KIND, Json
from tests.kube.apiserver.refusals import Refusal
from tests.kube.apiserver.request import Request
from tests.kube.apiserver.rights import Rights
from tests.kube.apiserver.schemas import validate
from tests.kube.apiserver.store import Store
from tests.kube.apiserver.wire import Closed, Listener, Respond

HALF: Final = b'{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"ha'
PAGE: Final = b"<html>\n" + b"proxy error " * 1000 + b"</html>"


class ApiServer:
    """Its parts are for the tests: they `plant` objects, plant `faults`, look at `journal`, `store`, `rights`."""

    def __init__(self, *, bookmark_seconds: float = 60.0, collector_seconds: float = 1.0) -> None:
        self.store = Store(validate)
        self.faults = Faults()
        self.journal = Journal()
        self.rights = Rights(self.store)
        self.api = Api(self.store, self.faults, bookmark_seconds)
        self.collector = Collector(self.store, collector_seconds)
        self.listener = Listener(self._answer)
        self._context: ssl.SSLContext | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`: files of a certificate and its key."""
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
        await self.listener.open(host, port, self._context)

    @property
    def url(self) -> str:
        host = f"[{self.listener.host}]" if ":" in self.listener.host else self.listener.host
        return f"{'https' if self._context else 'http'}://{host}:{self.listener.port}"

    async def down(self) -> None:
        """Connections are refused, those that were there are reset."""
        await self.listener.close()

    async def up(self) -> None:
        await self.listener.open(self.listener.host, self.listener.port, self._context)

    def partition(self, *nodes: str) -> None:
        """These of our nodes get no answer, and hear nothing."""
        self.faults.plant("hang", nodes=nodes)

    def lose_events(self) -> None:
        """Watches break, and whoever comes back has been away for too long: 410."""
        self.api.compact()
        self.api.reset_watches()

    def plant(self, thing: Json) -> Json:
        """Creates or replaces an object with its status, as it is given, by no request."""
        kind = BY_KIND[thing["apiVersion"], thing["kind"]]
        metadata = thing["metadata"]
        namespace, name = metadata.get("namespace", "default" if kind.namespaced else ""), metadata["name"]
        if (kind, namespace, name) in self.store.objects:
            made = self.store.replace(kind, namespace, name, thing)
        else:
            made = self.store.create(kind, namespace, thing)
        if kind.status and "status" in thing and thing["status"] != made.get("status"):
            made = self.store.patch(kind, namespace, name, lambda old: {**old, "status": thing["status"]}, status=True)
        return made

    def load(self, manifest: Path) -> None:
        """Plants all objects of a file."""
        for thing in yaml.safe_load_all(manifest.read_text()):
            if thing is not None:
                self.plant(thing)

    def remove(self, api_version: str, kind: str, name: str, namespace: str = "") -> None:
        """Deletes an object by no request."""
        found = BY_KIND[api_version, kind]
        self.store.delete(found, namespace or ("default" if found.namespaced else ""), name)

    async def _answer(self, request: Request, respond: Respond) -> None:
        fault = self.faults.of(request)
        user = ""

        def note(code: int) -> None:
            plural = request.kind.plural if request.kind else ""
            query = "&".join(f"{key}={value}" for key, value in request.query.items())
            self.journal.note(
                Entry(now(), request.verb, plural, request.path, query, user, request.user_agent, request.node, code)
            )

        respond.begun = note
        try:
            if fault is not None:
                await self._fail(fault, request, respond)
                if respond.code:
                    return
            user = self.rights.user(request)
            self.rights.check(user, request)
            await self.api.answer(request, respond)
        except Refusal as refusal:
            await respond.whole(refusal.code, refusal.status)
        finally:
            if not respond.code:
                note(0)

    async def _fail(self, fault: Fault, request: Request, respond: Respond) -> None:
        """Returns without an answer when the request is to be dealt with after all."""
        if fault.mode == "hang":
            await self.faults.while_hanging(request)
        elif fault.mode == "slow":
            await asyncio.sleep(fault.seconds)
        elif fault.mode == "close":
            raise Closed
        elif fault.mode == "garbage":
            await respond.garbage()
        elif fault.mode == "error":
            headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
            reason = "TooManyRequests" if fault.code == 429 else "InternalError"
            await respond.whole(fault.code, Refusal(fault.code, reason, "planted").status, headers=headers)
        elif fault.mode == "page":
            await respond.whole(fault.code, PAGE, content="text/html")
        elif request.kind is not None:
            if fault.mode == "truncated":
                await respond.cut(200, HALF)
            await respond.whole(200, HALF)
