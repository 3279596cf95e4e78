"""Asks the API server: get, list, create, replace, patch, delete, watch. Small, for an agent that runs for ever.

Law: a request has one of the outcomes of `faults`, and an end in time and size. What may have been carried out is never
sent twice; a question is, when a kept connection turned out to be closed. A 401 has one more try if the token on disk
is another by now.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Literal

import h11
import msgspec

from tunrouter import __version__
from tunrouter.edge.kube.access import Access
from tunrouter.edge.kube.calls import Call, Page, pages, place, query
from tunrouter.edge.kube.connection import ClosedError, Connection, Patience, connect
from tunrouter.edge.kube.faults import OversizeError, SilentError, UnreachableError, fault
from tunrouter.edge.kube.objects import Resource, T
from tunrouter.edge.kube.reachability import Reachability
from tunrouter.edge.kube.watching import Watching
from tunrouter.errors import ClusterError

ANSWER_BYTES: Final = 64 << 20
"""Of one page. From its cache a server may answer with all objects as one: 4,000 nodes with their images."""
FAULT_BYTES: Final = 64 << 10
PAGE: Final = 500
"""Objects, where the server does as it is told."""
REQUESTS: Final = 4
"""At once, besides watches and the prober's."""
KEPT: Final = 2
"""Connections without a request."""
PROBE_SECONDS: Final = 3.0
WATCH_SECONDS: Final = 300
PATIENCE: Final = Patience()
CODES: Final = frozenset(
    {200, 201, 202, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504}
)
"""That are counted each by itself."""
WRITES: Final = frozenset({"create", "replace", "patch", "delete"})

Kind = Literal["merge", "strategic"]


class Client:
    """Of one server, in one loop. Needs a running loop."""

    def __init__(self, access: Access, *, node: str = "", patience: Patience = PATIENCE) -> None:
        self.access = access
        self.patience = patience
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By verb, resource and outcome: a status code (of rare ones the class, as `4xx`), or `unreachable`."""
        self.reachability = Reachability(self._probe)
        self._agent = f"tunrouter/{__version__} ({node})" if node else f"tunrouter/{__version__}"
        self._turns = asyncio.Semaphore(REQUESTS)
        self._kept: list[Connection] = []

    @property
    def writes(self) -> int:
        """Requests that meant to change something, whatever came of them."""
        return sum(count for (verb, _, _), count in self.counts.items() if verb in WRITES)

    async def get(self, resource: Resource[T], name: str, namespace: str = "") -> T:
        call = Call("get", resource.plural, "GET", resource.path(namespace, name))
        return self._decoded(resource, call, await self._ask(call))

    async def pages(
        self, resource: Resource[T], namespace: str = "", *, labels: str = "", fields: str = "",
        version: str = "", limit: int = PAGE
    ) -> AsyncIterator[Page]:  # fmt: skip
        """A list as it comes. Without a `version` the newest state; with "0" any that the server has at hand; with
        another one not older than that.
        """
        asked = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit)}
        place_in_list = {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan" if version else ""}
        while True:
            target = resource.path(namespace) + query(**asked, **place_in_list)
            call = Call("list", resource.plural, "GET", target)
            body = await self._ask(call)
            try:
                page = pages.decode(body)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise self._no_answer(call, error) from None
            yield page
            if not page.metadata.following:
                return
            place_in_list = {"continue": page.metadata.following}

    async def list(
        self, resource: Resource[T], namespace: str = "", *, labels: str = "", fields: str = "",
        version: str = "", limit: int = PAGE
    ) -> list[T]:  # fmt: skip
        """All of them; one that is not understood is an error here (see Reflector for how to go on without it)."""
        found: list[T] = []
        call = Call("list", resource.plural, "GET", resource.path(namespace))
        async for page in self.pages(resource, namespace, labels=labels, fields=fields, version=version, limit=limit):
            found += [self._decoded(resource, call, item) for item in page.items or ()]
        return found

    async def create(self, resource: Resource[T], body: T | Mapping[str, Any]) -> T:
        """Raises AlreadyExistsError. In the namespace that its metadata tells."""
        namespace, _ = place(body)
        call = Call("create", resource.plural, "POST", resource.path(namespace), resource.encode(body))
        return self._decoded(resource, call, await self._ask(call))

    async def replace(self, resource: Resource[T], body: T | Mapping[str, Any], *, subresource: str = "") -> T:
        """Raises ConflictError if its metadata tell a version that is no longer the newest."""
        namespace, name = place(body)
        path = resource.path(namespace, name, subresource)
        call = Call("replace", resource.plural, "PUT", path, resource.encode(body))
        return self._decoded(resource, call, await self._ask(call))

    async def patch(
        self, resource: Resource[T], name: str, change: Mapping[str, Any], namespace: str = "", *,
        kind: Kind = "merge", subresource: str = ""
    ) -> T:  # fmt: skip
        """A merge patch (RFC 7396); a strategic one merges lists by their keys, as a node's conditions by type."""
        content = f"application/{'strategic-merge' if kind == 'strategic' else 'merge'}-patch+json"
        path = resource.path(namespace, name, subresource)
        call = Call("patch", resource.plural, "PATCH", path, msgspec.json.encode(change), content)
        return self._decoded(resource, call, await self._ask(call))

    async def delete(
        self, resource: Resource[T], name: str, namespace: str = "", *, uid: str = "", version: str = ""
    ) -> None:
        """With `uid` or `version` only that object: raises ConflictError for another of its name."""
        wanted = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **({"preconditions": wanted} if wanted else {})}
        path = resource.path(namespace, name)
        await self._ask(Call("delete", resource.plural, "DELETE", path, msgspec.json.encode(body)))

    @contextlib.asynccontextmanager
    async def watch(
        self, resource: Resource[T], version: str, namespace: str = "", *, labels: str = "", fields: str = "",
        seconds: int = WATCH_SECONDS
    ) -> AsyncIterator[Watching]:  # fmt: skip
        """What changes after `version`, for `seconds` at most. Entered when the server has agreed to tell."""
        asked = query(
            watch="1", resourceVersion=version, allowWatchBookmarks="true", timeoutSeconds=str(seconds),
            labelSelector=labels, fieldSelector=fields,
        )  # fmt: skip
        call = Call("watch", resource.plural, "GET", resource.path(namespace) + asked)
        connection = await self._began(call)
        watching = Watching(connection, str(call), self.patience.silence)
        try:
            yield watching
        except SilentError:
            raise
        except UnreachableError as error:
            self.reachability.failed(str(error))
            raise
        finally:
            self._done(connection, whole=watching.ended)

    async def close(self) -> None:
        await self.reachability.close()
        kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()
            await connection.closed()

    async def _ask(self, call: Call) -> bytes:
        """The body of a good answer."""
        async with self._turns:
            return await self._rest(call, await self._began(call), ANSWER_BYTES)

    async def _began(self, call: Call, seconds: float = 0.0) -> Connection:
        """One on which the head of a good answer has come. Every call comes by here, and is counted."""
        outcome, error = "unreachable", None
        shown = self.access.token()
        try:
            connection, head = await self._sent(call, shown, seconds)
            if head.status_code == 401 and self.access.renew(shown):
                await self._rest(call, connection, FAULT_BYTES)
                connection, head = await self._sent(call, self.access.token(), seconds)
            outcome = _outcome(head.status_code)
            if 200 <= head.status_code < 300:
                self.reachability.answered()
                return connection
            error = fault(head.status_code, await self._rest(call, connection, FAULT_BYTES), str(call), _wait(head))
        except UnreachableError as lost:
            error = lost
        finally:
            self.counts[call.verb, call.plural, outcome] += 1
        if isinstance(error, UnreachableError):
            self.reachability.failed(str(error))
        else:
            self.reachability.answered()
        raise error

    async def _sent(self, call: Call, token: str, seconds: float) -> tuple[Connection, h11.Response]:
        """The connection that it went by, and the head of its answer."""
        headers = [("Host", self.access.authority), ("User-Agent", self._agent), ("Accept", "application/json")]
        if token:
            headers.append(("Authorization", f"Bearer {token}"))
        if call.body:
            headers += [("Content-Type", call.content), ("Content-Length", str(len(call.body)))]
        kept = self._take()
        while True:
            connection = kept or await connect(self.access, self.patience)
            try:
                head = await connection.ask(
                    call.method, call.target, headers, call.body, seconds or self.patience.answer
                )
            except ClosedError:
                connection.close()
                if kept is None or call.method != "GET":
                    raise
                kept = None
            except BaseException:
                connection.close()
                raise
            else:
                return connection, head

    async def _rest(self, call: Call, connection: Connection, limit: int) -> bytes:
        """The body; the connection is for others then."""
        body, whole = bytearray(), False
        try:
            async with asyncio.timeout(self.patience.whole):
                while part := await connection.part(self.patience.answer):
                    body += part
                    if len(body) > limit:
                        raise OversizeError(f"{call}: the answer has more than {limit >> 10} KiB")
            whole = True
            return bytes(body)
        except (UnreachableError, TimeoutError) as error:
            slow = UnreachableError(f"{call}: not answered within {self.patience.whole:g} s")
            lost = error if isinstance(error, UnreachableError) else slow
            self.reachability.failed(str(lost))
            raise lost from None
        finally:
            self._done(connection, whole)

    def _take(self) -> Connection | None:
        """The connection used last, if it still lives."""
        while self._kept:
            connection = self._kept.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    def _done(self, connection: Connection, whole: bool) -> None:
        if whole and connection.recycle() and len(self._kept) < KEPT:
            self._kept.append(connection)
        else:
            connection.close()

    async def _probe(self) -> None:
        """Raises UnreachableError; who answers anything else is there."""
        call = Call("probe", "readyz", "GET", "/readyz")
        try:
            await self._rest(call, await self._began(call, PROBE_SECONDS), FAULT_BYTES)
        except UnreachableError:
            raise
        except ClusterError:
            return

    def _decoded(self, resource: Resource[T], call: Call, raw: bytes | msgspec.Raw) -> T:
        try:
            return resource.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._no_answer(call, error) from None

    def _no_answer(self, call: Call, error: Exception) -> UnreachableError:
        told = UnreachableError(f"{call}: the answer is not understood: {error}")
        self.reachability.failed(str(told))
        return told


def _outcome(code: int) -> str:
    return str(code) if code in CODES else f"{code // 100}xx"


def _wait(head: h11.Response) -> float:
    """Retry-After in seconds; a date, which no API server sends, counts as none."""
    told = dict(head.headers).get(b"retry-after", b"")
    return float(told) if told.isdigit() and len(told) < 10 else 0.0
