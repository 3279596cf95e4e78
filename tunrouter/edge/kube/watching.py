"""The answer to a watch: a line of JSON for each change, as long as both sides like.

Law: only a stream that its server ended counts as ended; everything else is Unreachable. An event ERROR is the fault
that its status tells, first of all Gone.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from tunrouter.edge.kube.connection import Connection
from tunrouter.edge.kube.faults import UnreachableError, fault
from tunrouter.edge.kube.objects import Status, decoded

EVENT_BYTES: Final = 8 << 20
"""An object has 1.5 MiB at most in the server's store."""


class Change(msgspec.Struct, frozen=True):
    """One line."""

    type: str
    object: msgspec.Raw


_changes: Final = msgspec.json.Decoder(Change)


class Watching:
    """Iterates over (type, object as it came), type one of ADDED, MODIFIED, DELETED, BOOKMARK."""

    def __init__(self, connection: Connection, doing: str, silence: float) -> None:
        self._connection = connection
        self._doing = doing
        self._silence = silence
        self._begun = b""
        self._lines: deque[bytes] = deque()
        self.ended = False

    def __aiter__(self) -> Watching:
        return self

    async def __anext__(self) -> tuple[str, msgspec.Raw]:
        while not self._lines:
            await self._receive()
        line = self._lines.popleft()
        try:
            change = _changes.decode(line)
            if change.type != "ERROR":
                return change.type, change.object
            status = decoded(change.object, Status)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UnreachableError(f"{self._doing}: not understood: {error}") from None
        raise fault(status.code, bytes(change.object), self._doing)

    async def _receive(self) -> None:
        data = await self._connection.part(self._silence)
        if not data:
            if self._begun.strip():
                raise UnreachableError(f"{self._doing}: the answer ends in the middle of an object")
            self.ended = True
            raise StopAsyncIteration
        *lines, self._begun = (self._begun + data).split(b"\n")
        self._lines.extend(line for line in lines if line.strip())
        if len(self._begun) > EVENT_BYTES:
            raise UnreachableError(f"{self._doing}: an object of more than {EVENT_BYTES >> 20} MiB")
