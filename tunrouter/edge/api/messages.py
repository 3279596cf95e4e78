"""The agent's API: one JSON line asked, one JSON line answered, on a unix socket that only root and its group may open.

Law: every request has a version, a bounded size and a bounded time; a request that changes something needs uid 0, which
the kernel vouches for (SO_PEERCRED). An answer is `{"version":1,"result":…}` or `{"version":1,"error":{…}}`.
"""

from __future__ import annotations

import msgspec

VERSION = 1


class StatusCall(msgspec.Struct, frozen=True, tag="status"):
    """Answers with the snapshot."""


class ConnectCall(msgspec.Struct, frozen=True, tag="connect"):
    """Adds targets (`host`, `host:port`, `[v6]:port`), or with `replace` makes them the only ones."""

    peers: tuple[str, ...]
    replace: bool = False


class ForgetCall(msgspec.Struct, frozen=True, tag="forget"):
    peers: tuple[str, ...]


class AttachCall(msgspec.Struct, frozen=True, tag="attach"):
    """Joins a network namespace (a path) to the bridge; answers with an `Attachment`. Idempotent."""

    netns: str
    name: str
    """What the user called it (a pid or a namespace's name)."""
    address: str | None = None
    interface: str = "eth0"


class DetachCall(msgspec.Struct, frozen=True, tag="detach"):
    netns: str
    name: str
    interface: str = "eth0"


class Attachment(msgspec.Struct, frozen=True):
    name: str
    address: str
    """With prefix length: `10.32.1.2/32`."""
    interface: str
    mtu: int


CHANGING = ConnectCall | ForgetCall | AttachCall | DetachCall
"""Only root may ask for these."""
Call = StatusCall | ConnectCall | ForgetCall | AttachCall | DetachCall


class Request(msgspec.Struct, frozen=True):
    call: Call
    version: int = VERSION


class Failure(msgspec.Struct, frozen=True):
    what: str
    fix: str = ""
    exit_code: int = 1


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    version: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None
