"""What a kubelet and a controller ask of the API server, one request at a time, over HTTP like everybody.

Law: sockets are made in the network of whoever asks, so that a machine is cut off when its network is.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.kube.apiserver.kinds import BY_KIND

SECONDS: Final = 10.0
STRATEGIC: Final = "application/strategic-merge-patch+json"
Json = dict[str, Any]
Dial = Callable[[], socket.socket]


class Refused(Exception):
    """The server's own words; `code` is HTTP's."""

    def __init__(self, code: int, status: Json) -> None:
        super().__init__(status.get("message", code))
        self.code = code


class Unreachable(Exception):
    """No answer."""


class Caller:
    def __init__(self, dial: Dial, host: str, authority: Path, token: str) -> None:
        self._dial = dial
        self._host = host
        self._context = ssl.create_default_context(cafile=str(authority))
        self._token = token

    # --- requests ----------------------------------------------------------------------------------------------------
    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Json | None:
        try:
            return self._ask("GET", f"{_path(api_version, kind, namespace)}/{name}")
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, api_version: str, kind: str, namespace: str = "", query: str = "") -> Json:
        return self._ask("GET", f"{_path(api_version, kind, namespace)}?{query}")

    def create(self, thing: Json) -> Json:
        metadata = thing["metadata"]
        path = _path(thing["apiVersion"], thing["kind"], metadata.get("namespace", ""))
        return self._ask("POST", path, thing)

    def patch_status(self, api_version: str, kind: str, name: str, namespace: str, status: Json) -> Json:
        path = f"{_path(api_version, kind, namespace)}/{name}/status"
        return self._ask("PATCH", path, {"status": status}, content=STRATEGIC)

    def delete(self, api_version: str, kind: str, name: str, namespace: str = "", *, uid: str = "",
               grace: int | None = None) -> None:  # fmt: skip
        """What is not there is no error."""
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self._ask("DELETE", f"{_path(api_version, kind, namespace)}/{name}", options)
        except Refused as refused:
            if refused.code not in (404, 409):
                raise

    def follow(self, api_version: str, kind: str, query: str, version: str) -> Iterator[Json]:
        """The events of a watch until it breaks."""
        asked = f"watch=1&resourceVersion={version}&{query}"
        connection, response = self._begin("GET", f"{_path(api_version, kind, '')}?{asked}", None, "application/json")
        try:
            connection.sock.settimeout(None)
            while line := response.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError):
            return
        finally:
            connection.close()

    # --- HTTP --------------------------------------------------------------------------------------------------------
    def _ask(self, method: str, path: str, body: Json | None = None, *, content: str = "application/json") -> Json:
        connection, response = self._begin(method, path, body, content)
        try:
            found: Json = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(str(error)) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise Refused(response.status, found)
        return found

    def _begin(self, method: str, path: str, body: Json | None, content: str) -> tuple[Any, http.client.HTTPResponse]:
        connection: Any = http.client.HTTPConnection(self._host, timeout=SECONDS)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content, "Accept": "application/json"}
        try:
            plain = self._dial()
            plain.settimeout(SECONDS)
            connection.sock = self._context.wrap_socket(plain, server_hostname=self._host)
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(str(error)) from error


def _path(api_version: str, kind: str, namespace: str) -> str:
    root = "/apis" if "/" in api_version else "/api"
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}/{api_version}{within}/{BY_KIND[api_version, kind].plural}"
