"""What a request that is let in is answered with: discovery, lists in pages, one object, changes, watches."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from typing import Any, Final

from tests.kube.apiserver.events import received, shown
from tests.kube.apiserver.faults import Faults
from tests.kube.apiserver.kinds import Json, Kind, discovery, stored_as
from tests.kube.apiserver.kubelets import logs
from tests.kube.apiserver.patches import json_patched, merged, strategic
from tests.kube.apiserver.refusals import Refusal, bad_request, expired, no_such_path
from tests.kube.apiserver.request import Request
from tests.kube.apiserver.selectors import Matches, selector
from tests.kube.apiserver.store import Change, Store
from tests.kube.apiserver.tables import table, wanted
from tests.kube.apiserver.watches import Bookmarks, Lines, Watch, line
from tests.kube.apiserver.wire import Respond

VERSION: Final = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
OPENAPI: Final = b"\x0a\x032.0"
"""An OpenAPI document in protobuf that holds its version alone: clients skip the validation of kinds that it lacks."""
PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
PAGES: Final = 256
PATCHES: Final = {
    "application/json-patch+json": json_patched,
    "application/merge-patch+json": merged,
    "application/strategic-merge-patch+json": strategic,
}


class Api:
    def __init__(self, store: Store, faults: Faults, bookmark_seconds: float) -> None:
        self.bookmark_seconds = bookmark_seconds
        self.gone_as_status = False
        """A watch from a forgotten version is answered with 410 instead of an event ERROR; both are seen."""
        self.longest_watch: float | None = None
        """Ends watches sooner than they ask for."""
        self.watches: set[Watch] = set()
        self._store = store
        self._faults = faults
        self._lines = Lines()
        self._rest: OrderedDict[str, tuple[int, list[Json]]] = OrderedDict()
        store.changed.append(self._hear)

    async def answer(self, request: Request, respond: Respond) -> None:
        if request.kind is None:
            await self._answer_other(request, respond)
        elif request.subresource == "log" and request.kind.plural == "pods":
            pod = self._store.get(request.kind, request.namespace, request.name)
            code, text = await logs(self._store, pod, request.query)
            await respond.whole(code, text, content="text/plain")
        elif request.verb == "watch":
            await self._watch(request, request.kind, respond)
        elif request.verb == "list":
            listed = self._list(request, request.kind)
            await respond.whole(200, table(request.kind, listed) if wanted(request) else listed)
        else:
            code, body = self.one(request, request.kind)
            await respond.whole(code, table(request.kind, body) if wanted(request) and request.verb == "get" else body)

    def compact(self) -> None:
        self._store.compact()
        self._rest.clear()

    def reset_watches(self, *nodes: str) -> None:
        """Breaks the connections of all watches, or of those of some of our nodes."""
        for watch in self.watches:
            if not nodes or watch.request.node in nodes:
                watch.break_off()

    def end_watches(self) -> None:
        """Properly, as a server does that shuts down."""
        for watch in self.watches:
            watch.end()

    def one(self, request: Request, kind: Kind) -> tuple[int, Any]:
        """Code and body of what concerns one object, or of a DELETE of many."""
        store, namespace, name = self._store, request.namespace, request.name
        if request.subresource not in (("", "status") if kind.status else ("",)):
            raise no_such_path()
        status = request.subresource == "status"
        if request.verb == "get":
            return 200, shown(kind, store.get(kind, namespace, name))
        if request.verb == "create":
            return 201, shown(kind, store.create(kind, namespace, received(kind, _body(request))))
        if request.verb == "update":
            body = received(kind, _body(request))
            existed = (stored_as(kind), namespace, name) in store.objects
            return (200 if existed else 201), shown(kind, store.replace(kind, namespace, name, body, status=status))
        if request.verb == "patch":
            return 200, self._patch(request, kind, status)
        if request.verb == "delete":
            options = _body(request, {})
            grace = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
            gone = store.delete(kind, namespace, name, options.get("preconditions"),
                                grace=None if grace is None else int(grace))  # fmt: skip
            return 200, _deleted(kind, gone)
        if request.verb == "deletecollection":
            for thing in store.select(kind, namespace, _selected(request)):
                store.delete(kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"])
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _patch(self, request: Request, kind: Kind, status: bool) -> Json:
        content = request.headers.get("content-type", "").partition(";")[0].strip()
        if content not in PATCHES:
            raise Refusal(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {content}")
        patch = _body(request)

        def changed(old: Json) -> Json:
            return received(kind, PATCHES[content](shown(kind, old), patch))

        return shown(kind, self._store.patch(kind, request.namespace, request.name, changed, status=status))

    def _list(self, request: Request, kind: Kind) -> Json:
        query = request.query
        limit, version = int(query.get("limit") or 0), query.get("resourceVersion", "")
        if token := query.get("continue"):
            if version:
                raise bad_request("specifying resource version is not allowed when using continue")
            at, left = self._continued(token)
        else:
            if query.get("resourceVersionMatch") and not version:
                raise bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
            self._store.check(int(version or 0))
            at, left = self._store.version, self._store.select(kind, request.namespace, _selected(request))
        if version == "0":
            limit = 0  # The server's cache does not know of pages.
        metadata: Json = {"resourceVersion": str(at)}
        page, rest = (left[:limit], left[limit:]) if limit else (left, [])
        if rest:
            metadata |= {"continue": self._keep(at, rest), "remainingItemCount": len(rest)}
        items = [
            {key: value for key, value in shown(kind, thing).items() if key not in ("kind", "apiVersion")}
            for thing in page
        ]
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items}

    def _keep(self, at: int, rest: list[Json]) -> str:
        place = json.dumps({"v": "meta.k8s.io/v1", "rv": at, "start": rest[0]["metadata"]["name"], "n": len(rest)})
        token = base64.urlsafe_b64encode(place.encode()).decode()
        self._rest[token] = at, rest
        while len(self._rest) > PAGES:
            self._rest.popitem(last=False)
        return token

    def _continued(self, token: str) -> tuple[int, list[Json]]:
        try:
            return self._rest[token]
        except KeyError:
            raise expired(0, self._store.oldest) from None

    async def _watch(self, request: Request, kind: Kind, respond: Respond) -> None:
        watch = Watch(request, kind, _selected(request), self._lines)
        self._begin(watch, kind)
        self.watches.add(watch)
        try:
            await respond.begin()
            bookmarks = Bookmarks(request, self.bookmark_seconds, lambda: self._bookmark(kind))
            await watch.tell(respond, self._faults, bookmarks, self.longest_watch)
            await respond.end()
        finally:
            self.watches.discard(watch)

    def _begin(self, watch: Watch, kind: Kind) -> None:
        """What happened since the version that the client has. Raises Refusal."""
        version = watch.request.query.get("resourceVersion", "")
        try:
            if version in ("", "0"):
                for thing in self._store.select(kind, watch.request.namespace, _selected(watch.request)):
                    watch.say(line("ADDED", shown(kind, thing)))
            for change in self._store.changes(int(version)) if version not in ("", "0") else ():
                watch.hear(change)
        except Refusal as refusal:
            if self.gone_as_status or refusal.code != 410:
                raise
            watch.say(line("ERROR", refusal.status))
            watch.end()

    def _bookmark(self, kind: Kind) -> Json:
        metadata = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}

    def _hear(self, change: Change) -> None:
        for watch in self.watches:
            watch.hear(change)

    async def _answer_other(self, request: Request, respond: Respond) -> None:
        path, address = request.path.rstrip("/"), request.headers.get("host", "")
        if path in ("/readyz", "/livez", "/healthz"):
            await respond.whole(200, b"ok", content="text/plain")
        elif path == "/version":
            await respond.whole(200, VERSION)
        elif path == "/openapi/v2":
            protobuf = "protobuf" in request.headers.get("accept", "")
            empty = {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": {}}
            await respond.whole(
                200, OPENAPI if protobuf else empty, content=PROTOBUF if protobuf else "application/json"
            )
        elif (document := discovery(path, address)) is not None:
            await respond.whole(200, document)
        else:
            raise no_such_path()


def _selected(request: Request) -> Matches:
    return selector(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))


def _body(request: Request, absent: Any = None) -> Any:
    if not request.body and absent is not None:
        return absent
    try:
        return json.loads(request.body)
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None


def _deleted(kind: Kind, gone: Json) -> Json:
    metadata = gone["metadata"]
    details = {"name": metadata["name"], "group": kind.group, "kind": kind.plural, "uid": metadata["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
