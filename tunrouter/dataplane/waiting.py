"""Frames that wait for a session: at most bounds.MAX_WAITING a node, the oldest gives way; control hears of the want.

Both kernels keep them here: a frame that waits has left the fast way.
"""

from __future__ import annotations

from collections import deque

from tunrouter.core import bounds, seam
from tunrouter.dataplane.kernel import Emit


class Waiting:
    def __init__(self, counters: dict[str, int], emit: Emit) -> None:
        self._counters = counters
        self._emit = emit
        self._frames: dict[int, deque[bytes]] = {}
        self._wanted: dict[int, float] = {}
        """When control was told of each node; the entry goes with the session that comes, or with the routes."""
        self._bytes = 0

    def keep(self, node: int, frame: bytes, now: float) -> None:
        frames = self._frames.get(node)
        if frames is not None and len(frames) >= bounds.MAX_WAITING:
            self._bytes -= len(frames.popleft())
            self._counters["drop_queue_full"] += 1
        full = self._bytes + len(frame) > bounds.MAX_WAITING_BYTES
        if full or (not frames and len(self._frames) >= bounds.MAX_WAITING_NODES):
            self._counters["drop_queue_full"] += 1
        else:
            self._bytes += len(frame)
            self._frames.setdefault(node, deque()).append(frame)
        if frames is not None and not frames:
            del self._frames[node]
        if now - self._wanted.get(node, float("-inf")) >= bounds.WANTED_SECONDS:
            self._wanted[node] = now
            self._emit(seam.Wanted(node))

    def take(self, node: int) -> deque[bytes]:
        """What waits for `node`, which has a session now."""
        self._wanted.pop(node, None)
        frames = self._frames.pop(node, deque[bytes]())
        self._bytes -= sum(map(len, frames))
        return frames

    def forget(self, node: int) -> None:
        """`node` owns no prefix any more."""
        self._counters["drop_no_route"] += len(self.take(node))
