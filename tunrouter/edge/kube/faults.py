"""What an API server answers instead of the object asked for, as errors, one type a way to go on.

Law: what time may cure is Unreachable; what is wrong with the request is not. A server's own words are kept, in bounds.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tunrouter.edge.kube.objects import Status, decoded
from tunrouter.errors import ClusterError

WORDS: Final = 512
"""Of a server's message; a proxy's may be a whole page of HTML."""
RETRY_SECONDS: Final = 60.0
"""A longer Retry-After is not believed."""
_TOO_NEW: Final = "ResourceVersionTooLarge"


class AccessError(ClusterError):
    """This process does not know where the API server is, or has nothing to show to it."""

    exit_code = 2


class UnreachableError(ClusterError):
    """Network, timeout, overload (429), a fault of the server (5xx), or an answer that is none. Time may cure it."""

    def __init__(self, what: str, fix: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(what, fix)
        self.retry_after = retry_after
        """Seconds that the server asks for."""


class SilentError(UnreachableError):
    """Nothing came for so long in the middle of an answer. A watch may just have nothing to tell."""


class OversizeError(UnreachableError):
    """The answer is longer than we take; asked for in pages it may fit."""


class RefusedError(ClusterError):
    """Who we are (401), or what we may do (403)."""


class NotFoundError(ClusterError):
    """No such object, or no such kind of objects (404)."""


class AlreadyExistsError(ClusterError):
    """An object of this name is there (409)."""


class ConflictError(ClusterError):
    """The object is another, or of another version, than the request presumes (409)."""


class GoneError(ClusterError):
    """The version or the page asked for is no longer, or not yet, known to the server (410): list again."""


class InvalidError(ClusterError):
    """The request is wrong in itself (400, 422 and what else is below 500)."""


_RIGHTS: Final = "apply the manifest of this version again: it holds the rights"


def fault(code: int, body: bytes, doing: str, retry_after: float = 0.0) -> ClusterError:
    """The error for an answer other than 2xx. `doing` is what was asked, in a few words."""
    status = _told(code, body)
    what = f"{doing}: {status.message or status.reason or f'status {code}'}"
    if code in (401, 403):
        return RefusedError(what, _RIGHTS if code == 403 else "see whether the service account still exists")
    if code == 404:
        return NotFoundError(what)
    if code == 409:
        return AlreadyExistsError(what) if status.reason == "AlreadyExists" else ConflictError(what)
    if code == 410 or (code == 504 and _too_new(status)):
        return GoneError(what)
    if code == 429 or code >= 500 or code < 400:
        wait = max(retry_after, float(status.details.retry_after_seconds if status.details else 0))
        return UnreachableError(what, retry_after=min(max(wait, 0.0), RETRY_SECONDS))
    return InvalidError(what)


def _too_new(status: Status) -> bool:
    """Its data were restored from a backup, or this server of several lags behind."""
    causes = status.details.causes if status.details else ()
    return any(cause.reason == _TOO_NEW for cause in causes) or "Too large resource version" in status.message


def _told(code: int, body: bytes) -> Status:
    """A Status; what is none, from a proxy or of an old server, is told by its first line."""
    try:
        status = decoded(body, Status)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        line = body[:WORDS].decode("utf-8", "replace").strip().partition("\n")[0]
        status = Status(code=code, message=f"status {code} {line}")
    return msgspec.structs.replace(status, message=" ".join(status.message[:WORDS].split()))
