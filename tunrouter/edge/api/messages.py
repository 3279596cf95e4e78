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


class BenchCall(msgspec.Struct, frozen=True, tag="bench"):
    """Has the agent of a connected peer start its responder; answers with a `BenchOffer`."""

    peer: str
    """Name, nickname, id or address, as `status` shows them, or a target as it was given."""


class BenchOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Where the peer's responder listens for some seconds, and what lies between."""

    peer: str
    nickname: str
    id: str
    address: str
    tcp: int
    udp: int
    token: str
    """In hex; it opens every connection to the responder."""
    kernel: str
    """The peer's, as are its workers."""
    workers: int
    endpoint: str
    path: str
    mtu: int
    """The largest inner packet of this path."""
    encrypted: bool


class Attachment(msgspec.Struct, frozen=True):
    name: str
    address: str
    """With prefix length: `10.32.1.2/32`."""
    interface: str
    mtu: int


CHANGING = ConnectCall | ForgetCall | AttachCall | DetachCall | BenchCall
"""Only root may ask for these."""
Call = StatusCall | ConnectCall | ForgetCall | AttachCall | DetachCall | BenchCall


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
