"""One kind of the cluster's objects, kept in memory: list, watch, resume, and list again when the thread is lost.

Law: the memory follows the server's order of changes and is never emptied because the server is away: what was known
stays, with since when it is out of touch, and why. After a new list the listener hears of exact differences. Only an
outage's end, a lasting watch or its own time ends a wait, so no server, however broken, makes this spin.

The first list is answered from the server's cache (version 0), so that a hundred nodes starting at once cost its store
nothing; such a server sends all objects as one. A later one is never older than what was seen, lest the memory go back
in time between servers of which one lags. Where that is refused, or too long, the newest state is asked for, in pages;
and always where the listener must not be told what was true some time ago (`newest`).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from tunrouter.edge.kube.client import PAGE, Client
from tunrouter.edge.kube.faults import GoneError, InvalidError, OversizeError, SilentError, UnreachableError
from tunrouter.edge.kube.objects import HasMetadata, Metadata, Resource, T, decoded
from tunrouter.edge.kube.reachability import jittered
from tunrouter.errors import ClusterError

WATCH_SECONDS: Final = 600
"""The longest; half of it the shortest."""
LASTING_SECONDS: Final = 5.0
"""A watch that lived as long was worth it: the next one may follow at once."""
FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 6.0
"""A server that is ready, and yet refuses lists, tells nobody when it gives them again: so late may it be noticed."""
TURN: Final = 100
"""Objects that are decoded or told to the listener before others have their turn in the loop."""
FROM_CACHE: Final = "0"
NEWEST: Final = ""
_MOST_DOUBLINGS: Final = 10

Key = tuple[str, str]
"""Namespace and name."""
Heard_contra = TypeVar("Heard_contra", bound=HasMetadata, contravariant=True)

_log: Final = logging.getLogger(__name__)


class Listener(Protocol[Heard_contra]):
    """Hears of the objects, in the server's order. Is called in the loop, and should return soon."""

    def replaced(self, objects: Mapping[Key, Heard_contra], /) -> None:
        """The first list is in."""

    def changed(self, thing: Heard_contra, /) -> None: ...

    def gone(self, thing: Heard_contra, /) -> None:
        """As it was last known."""


class _Bare(msgspec.Struct, frozen=True):
    """What is left of an object that is not understood, and all that a bookmark has."""

    metadata: Metadata


class Reflector(Generic[T]):
    """Of one resource, or of those of its objects that the selectors name. `run` never returns; what should not happen
    ends it, out of touch, and it may be run again.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        listener: Listener[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        newest: bool = False,
    ) -> None:
        """`newest`: a list has what the server's store has, and not what this server of several has heard of it."""
        self.resource = resource
        self.skipped = 0
        """Objects that were not understood."""
        self.lists = 0
        self.synced = False
        """The memory has been filled once."""
        self.why = "the first list is not in"
        """Empty while in touch."""
        self._since: float | None = None
        self._client = client
        self._listener = listener
        self._namespace, self._labels, self._fields = namespace, labels, fields
        self._objects: dict[Key, T] = {}
        self._version = ""
        """The newest seen; empty without a list to watch from."""
        self._newest = newest
        self._list_from = NEWEST if newest else FROM_CACHE
        self._failures = 0

    @property
    def objects(self) -> Mapping[Key, T]:
        """What is known now; a view."""
        return MappingProxyType(self._objects)

    @property
    def version(self) -> str:
        """Of the newest change that is known; empty before the first list."""
        return self._version

    @property
    def in_touch(self) -> bool:
        """A watch is running."""
        return not self.why

    @property
    def out_of_touch_since(self) -> float | None:
        """By the loop's clock; none while in touch, or before `run`."""
        return self._since

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        if self._since is None:
            self._since = loop.time()
        while True:
            begun = loop.time()
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ClusterError as error:
                self._lost(error)
                await self._pause(error, begun)
            except Exception as error:
                self._version = ""  # it may be halfway through a change
                self._lost(UnreachableError(f"the {self.resource.plural} are not followed: {error!r}"))
                raise

    async def _list(self) -> None:
        found: dict[Key, T] = {}
        version = ""
        try:
            async for page in self._client.pages(
                self.resource, self._namespace,
                labels=self._labels, fields=self._fields, version=self._list_from, limit=PAGE,
            ):  # fmt: skip
                for number, raw in enumerate(page.items or ()):
                    await _take_turns(number)
                    self._take_listed(raw, found)
                version = page.metadata.resource_version
        except (GoneError, InvalidError, OversizeError):
            self._list_from = NEWEST
            raise
        if not version:
            raise UnreachableError(f"list {self.resource.plural}: the answer tells no version")
        self.lists += 1
        await self._compare(found)
        self._go_on_from(version)

    def _take_listed(self, raw: msgspec.Raw, found: dict[Key, T]) -> None:
        try:
            thing = self.resource.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._skip(error)
            # It is there, so what was known of it is not gone.
            if (bare := _bare(raw)) and (known := self._objects.get((bare.namespace, bare.name))):
                found[_key(known)] = known
        else:
            found[_key(thing)] = thing

    async def _compare(self, found: dict[Key, T]) -> None:
        """Until its end `version` is that of before: what is newer may be missing."""
        if not self.synced:
            self._objects = found
            self.synced = True
            self._tell(self._listener.replaced, self.objects)
            return
        for number, key in enumerate([key for key in self._objects if key not in found]):
            await _take_turns(number)
            self._forget(key)
        for number, thing in enumerate(found.values()):
            await _take_turns(number)
            self._learn(thing)

    async def _watch(self) -> None:
        """Returns after one that was worth it."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        seconds = int(jittered(WATCH_SECONDS))
        try:
            async with self._client.watch(
                self.resource, self._version, self._namespace,
                labels=self._labels, fields=self._fields, seconds=seconds,
            ) as changes:  # fmt: skip
                self._found()
                async for kind, raw in changes:
                    self._obey(kind, raw)
        except SilentError:
            pass  # nothing happened, or the server hangs: the next watch tells
        except GoneError:
            self._version = ""
            raise
        finally:
            lasted = loop.time() - begun >= LASTING_SECONDS
            if lasted:
                self._failures = 0
        if not lasted:
            raise UnreachableError(f"watch {self.resource.plural}: the server ended it at once")

    def _obey(self, kind: str, raw: msgspec.Raw) -> None:
        try:
            if kind == "BOOKMARK":
                self._mark(decoded(raw, _Bare).metadata.resource_version)
                return
            thing = self.resource.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._skip(error)
            if bare := _bare(raw):
                self._advance(bare.resource_version)
            return
        if kind in ("ADDED", "MODIFIED"):
            self._learn(thing)
        elif kind == "DELETED":
            self._forget(_key(thing))
        self._advance(thing.metadata.resource_version)

    def _mark(self, version: str) -> None:
        """A bookmark. Raises GoneError for one before our place: the server's store was put back to an older state."""
        if _number(version) < _number(self._version):
            self._list_from = NEWEST
            raise GoneError(f"watch {self.resource.plural}: the server went back to {version} from {self._version}")
        self._advance(version)

    def _advance(self, version: str) -> None:
        if version and _number(version) >= _number(self._version):
            self._go_on_from(version)

    def _go_on_from(self, version: str) -> None:
        self._version = version
        self._list_from = NEWEST if self._newest else version

    def _learn(self, thing: T) -> None:
        key = _key(thing)
        known = self._objects.get(key)
        if known is not None:
            if known.metadata.uid != thing.metadata.uid:
                self._forget(key)
            elif known.metadata.resource_version == thing.metadata.resource_version:
                return
        self._objects[key] = thing
        self._tell(self._listener.changed, thing)

    def _forget(self, key: Key) -> None:
        known = self._objects.pop(key, None)
        if known is not None:
            self._tell(self._listener.gone, known)

    def _tell(self, hear: Callable[[Any], None], what: object) -> None:
        try:
            hear(what)
        except Exception:
            _log.exception("a change of %s was not dealt with", self.resource.plural)

    def _skip(self, error: Exception) -> None:
        if not self.skipped:
            _log.warning("one of the %s is not understood and left out: %s", self.resource.plural, error)
        self.skipped += 1

    def _found(self) -> None:
        if self._since is not None:
            _log.info("in touch with the cluster's %s: %d", self.resource.plural, len(self._objects))
        self._since, self.why = None, ""

    def _lost(self, error: ClusterError) -> None:
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        if not self.why or not self._failures:
            _log.warning("out of touch with the cluster's %s: %s", self.resource.plural, error)
        self.why = str(error)

    async def _pause(self, error: ClusterError, begun: float) -> None:
        failures, self._failures = self._failures, min(self._failures + 1, _MOST_DOUBLINGS)
        await self._client.reachability.wait(backoff(error, failures), begun)


def backoff(error: ClusterError, failures: int) -> float:
    """Seconds until it is tried again, after so many failures before this one; at least what the server asks for."""
    seconds = jittered(min(FIRST_SECONDS * 2 ** min(failures, _MOST_DOUBLINGS), MOST_SECONDS))
    return max(seconds, error.retry_after if isinstance(error, UnreachableError) else 0.0)


async def _take_turns(number: int) -> None:
    """Others are let go on now and then: before thousands of objects are dealt with, pods would wait."""
    if number % TURN == TURN - 1:
        await asyncio.sleep(0)


def _key(thing: HasMetadata) -> Key:
    return thing.metadata.namespace, thing.metadata.name


def _number(version: str) -> int:
    """What cannot be compared is older than nothing."""
    return int(version) if version.isdigit() else sys.maxsize


def _bare(raw: msgspec.Raw) -> Metadata | None:
    try:
        return decoded(raw, _Bare).metadata
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
