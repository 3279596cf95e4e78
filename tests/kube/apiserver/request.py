"""A request as Kubernetes reads it: verb, kind, namespace, name, subresource."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.kube.apiserver.kinds import BY_PATH, Kind

_NODE: Final = re.compile(r"^tunrouter/\S+ \(([^)]+)\)")
_ONE: Final = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_MANY: Final = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}


class Request:
    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes, peer: str) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = unquote(parts.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.headers = headers
        """Their names in small letters."""
        self.body = body
        self.peer = peer
        self.user_agent = headers.get("user-agent", "")
        found = _NODE.match(self.user_agent)
        self.node = found[1] if found else ""
        """Which of our agents asks; empty for others."""
        self.kind: Kind | None = None
        self.namespace = self.name = self.subresource = ""
        self._place()
        self.verb = self._verb()

    @property
    def named_by_selector(self) -> str:
        field, _, name = self.query.get("fieldSelector", "").partition("=")
        return name if field == "metadata.name" else ""

    def _place(self) -> None:
        root, *rest = self.path.strip("/").split("/")
        if root == "api" and len(rest) >= 2:
            version, rest = rest[0], rest[1:]
        elif root == "apis" and len(rest) >= 3:
            version, rest = "/".join(rest[:2]), rest[2:]
        else:
            return
        if rest[0] == "namespaces" and len(rest) > 2 and (version, rest[2]) in BY_PATH:
            self.namespace, rest = rest[1], rest[2:]
        self.kind = BY_PATH.get((version, rest[0]))
        self.name, self.subresource = (*rest[1:], "", "")[:2]

    def _verb(self) -> str:
        if self.kind is None:
            return self.method.lower()
        verb = (_ONE if self.name else _MANY).get(self.method, self.method.lower())
        return "watch" if verb == "list" and self.query.get("watch") in ("1", "true") else verb
