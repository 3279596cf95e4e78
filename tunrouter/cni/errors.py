"""What a plugin says when it cannot do what it was asked: the specification's codes, and words.

Law (CNI 1.1, section 5): codes up to 99 mean what the specification says, and a runtime acts on them.
"""

from __future__ import annotations

from typing import Final

from tunrouter.errors import AgentError, ConfigError, TunrouterError

INCOMPATIBLE_VERSION: Final = 1
UNSUPPORTED_FIELD: Final = 2
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
UNDECODABLE: Final = 6
INVALID_NETWORK: Final = 7
TRY_AGAIN: Final = 11
NOT_AVAILABLE: Final = 50
NOT_AS_IT_WAS: Final = 100
"""Ours: CHECK found a pod's network changed."""
THERE_ALREADY: Final = 101
"""Ours: ADD for an interface that the container has."""


class CniError(Exception):
    """`details` is the next step."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def of(error: TunrouterError) -> CniError:
    """Who is at fault decides: what the runtime gave, this machine, or the moment."""
    match error:
        case ConfigError():
            code = INVALID_NETWORK
        case AgentError():
            code = TRY_AGAIN
        case _:
            code = IO_FAILURE
    return CniError(code, error.what, error.fix)
