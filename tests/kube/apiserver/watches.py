"""The watches that are running: which changes each hears of, and how they are told, until one side has had enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from tests.kube.apiserver.events import shown
from tests.kube.apiserver.faults import Faults
from tests.kube.apiserver.kinds import Json, Kind, stored_as
from tests.kube.apiserver.request import Request
from tests.kube.apiserver.selectors import Matches
from tests.kube.apiserver.store import Change
from tests.kube.apiserver.wire import Closed, Respond

LONGEST_SECONDS: Final = 1800.0


def line(type_: str, thing: Json) -> bytes:
    return msgspec.json.encode({"type": type_, "object": thing}) + b"\n"


class Lines:
    """A change is told to many, and encoded once."""

    def __init__(self) -> None:
        self._version = 0
        self._made: dict[tuple[str, Kind], bytes] = {}

    def of(self, type_: str, kind: Kind, change: Change) -> bytes:
        if change.version != self._version:
            self._version, self._made = change.version, {}
        if (type_, kind) not in self._made:
            self._made[type_, kind] = line(type_, shown(kind, change.after or {}))
        return self._made[type_, kind]


class Watch:
    """One client's."""

    def __init__(self, request: Request, kind: Kind, matches: Matches, lines: Lines) -> None:
        self.request = request
        self._kind = kind
        self._stored = stored_as(kind)
        self._matches = matches
        self._lines = lines
        self._untold: list[bytes] = []
        self._news = asyncio.Event()
        self._end = ""

    def hear(self, change: Change) -> None:
        if change.kind is not self._stored or change.after is None:
            return
        namespace = self.request.namespace
        if namespace and change.after["metadata"].get("namespace") != namespace:
            return
        before = change.before is not None and self._matches(change.before)
        after = change.type != "DELETED" and self._matches(change.after)
        if before or after:
            type_ = "DELETED" if not after else "MODIFIED" if before else "ADDED"
            self.say(self._lines.of(type_, self._kind, change))

    def say(self, line: bytes) -> None:
        self._untold.append(line)
        self._news.set()

    def end(self) -> None:
        """Properly, after what is still to be told."""
        self._end = self._end or "ended"
        self._news.set()

    def break_off(self) -> None:
        self._end = "broken"
        self._news.set()

    async def tell(self, respond: Respond, faults: Faults, bookmark: Bookmarks, longest: float | None) -> None:
        loop = asyncio.get_running_loop()
        seconds = float(self.request.query.get("timeoutSeconds") or LONGEST_SECONDS)
        until = loop.time() + (seconds if longest is None else min(seconds, longest))
        while (left := until - loop.time()) > 0:
            await self._wait(min(left, bookmark.left()))
            await faults.while_hanging(self.request)
            if self._end == "broken":
                raise Closed
            told, self._untold = self._untold, []
            if told:
                await respond.part(b"".join(told))
            elif self._end:
                return
            elif bookmark.left() <= 0:
                await respond.part(bookmark.make())

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._news.wait()
        except TimeoutError:
            return
        if not self._end:
            self._news.clear()


class Bookmarks:
    """When one is due, if they are wanted, and what it says."""

    def __init__(self, request: Request, seconds: float, make: Callable[[], Json]) -> None:
        self._wanted = request.query.get("allowWatchBookmarks") in ("1", "true")
        self._seconds = seconds
        self._make = make
        self._due = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        return self._due - asyncio.get_running_loop().time() if self._wanted else LONGEST_SECONDS

    def make(self) -> bytes:
        self._due = asyncio.get_running_loop().time() + self._seconds
        return line("BOOKMARK", self._make())
