"""One request as a value, and a list's page as it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from tunrouter.edge.kube.objects import HasMetadata


class Call(NamedTuple):
    verb: str
    plural: str
    method: str
    target: str
    body: bytes = b""
    content: str = "application/json"

    def __str__(self) -> str:
        return f"{self.verb} {self.plural}"


class PageMetadata(msgspec.Struct, rename="camel", frozen=True):
    resource_version: str = ""
    following: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, rename="camel", frozen=True):
    """Some objects of a list, not looked at."""

    metadata: PageMetadata
    items: tuple[msgspec.Raw, ...] | None = None


pages: Final = msgspec.json.Decoder(Page)


def query(**options: str) -> str:
    """Of what is not empty."""
    given = {key: value for key, value in options.items() if value}
    return f"?{urlencode(given)}" if given else ""


def place(body: HasMetadata | Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name of an object."""
    if isinstance(body, Mapping):
        metadata = body["metadata"]
        return metadata.get("namespace", ""), metadata.get("name", "")
    return body.metadata.namespace, body.metadata.name
