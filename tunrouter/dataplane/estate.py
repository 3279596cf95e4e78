"""What control told a worker and has not taken back: what the worker leaves to the next control, should this one die.

Law: it is as large as the worker's own tables. The next control knows none of it: it is told the names of all, so that
it can take back what it does not say itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from tunrouter.core import seam

PART: Final = 4096
"""Names in one message: well below what the seam carries."""
T = TypeVar("T")


class Estate:
    def __init__(self) -> None:
        self.charter = ""
        self.sessions: set[int] = set()
        self._routes: set[tuple[bytes, int]] = set()
        self._hops: set[int] = set()
        self._wills: dict[int, seam.Will] = {}

    def note(self, message: seam.ToWorker) -> None:
        match message:
            case seam.Install(session):
                self.sessions.add(session)
            case seam.Retire(session):
                self.sessions.discard(session)
                self._wills.pop(session, None)
            case seam.Route(prefix, length):
                self._routes.add((prefix, length))
            case seam.Unroute(prefix, length):
                self._routes.discard((prefix, length))
            case seam.Hop(target, 0):
                self._hops.discard(target)
            case seam.Hop(target):
                self._hops.add(target)
            case seam.Charter(text):
                self.charter = text
            case seam.Will(session) if session in self.sessions:
                self._wills[session] = message

    def inherited(self) -> Iterator[seam.Inherited]:
        """For the next control, which has a will of its own."""
        self._wills.clear()
        for sessions in _parts(self.sessions):
            yield seam.Inherited(sessions=sessions)
        for routes in _parts(self._routes):
            yield seam.Inherited(routes=routes)
        for hops in _parts(self._hops):
            yield seam.Inherited(hops=hops)

    def last_words(self) -> list[seam.SendControl]:
        """When nobody came."""
        return [seam.SendControl(will.session, will.body) for will in self._wills.values()]


def _parts(names: Iterable[T]) -> Iterator[tuple[T, ...]]:
    rest = iter(names)
    while part := tuple(islice(rest, PART)):
        yield part
