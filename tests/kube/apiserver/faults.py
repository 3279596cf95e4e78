"""What is wrong with the server at the moment, on command, for all clients or for some of our nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, cast, get_args

from tests.kube.apiserver.request import Request

Mode = Literal["hang", "close", "error", "garbage", "broken-json", "truncated", "slow", "page"]
MODES: Final = get_args(Mode)
"""hang: neither answers nor tells watches anything · close: ends the connection instead of answering · error: `code` ·
garbage: no HTTP · broken-json: half of an object in a whole answer · truncated: half of one · slow: `seconds` late ·
page: `code`, and a page of HTML as a proxy on the way makes it
"""


class Fault(NamedTuple):
    mode: Mode
    nodes: frozenset[str] = frozenset()
    """Only these of our nodes; empty for every client."""
    verbs: frozenset[str] = frozenset()
    plurals: frozenset[str] = frozenset()
    code: int = 500
    retry_after: int = 0
    seconds: float = 1.0


class Faults:
    def __init__(self) -> None:
        self._all: list[Fault] = []
        self._changed = asyncio.Event()

    def plant(
        self, mode: str, *, nodes: Iterable[str] = (), verbs: Iterable[str] = (), plurals: Iterable[str] = (),
        code: int = 500, retry_after: int = 0, seconds: float = 1.0,
    ) -> None:  # fmt: skip
        """The one planted last counts."""
        if mode not in MODES:
            raise ValueError(f"{mode!r} is none of {MODES}")
        self._all.append(
            Fault(
                cast("Mode", mode), frozenset(nodes), frozenset(verbs), frozenset(plurals), code, retry_after, seconds
            )
        )
        self._tell()

    def clear(self) -> None:
        self._all.clear()
        self._tell()

    def of(self, request: Request) -> Fault | None:
        for fault in reversed(self._all):
            plural = request.kind.plural if request.kind else ""
            if (
                (not fault.nodes or request.node in fault.nodes)
                and (not fault.verbs or request.verb in fault.verbs)
                and (not fault.plurals or plural in fault.plurals)
            ):
                return fault
        return None

    async def while_hanging(self, request: Request) -> None:
        while (fault := self.of(request)) and fault.mode == "hang":
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
