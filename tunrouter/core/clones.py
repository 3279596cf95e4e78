"""Two machines with one identity, because a disk was copied: the one that was there first stays, the other one stops.

Law: a life begins with an incarnation above all earlier ones on its disk, so who hears of a later life of itself has
been copied. Who has been up for a while takes a later incarnation yet; who hears of that soon after its start is the
copy. Until then neither gives an address that the other may give, too: see `Ipam.start`. Who was given up in the life
it has, by those who could not reach it for a day or removed it, takes a later one, too.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds
from tunrouter.core.journal import ClusterRow, Journal
from tunrouter.core.local import Local
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Fatal, Outbox

INCARNATION: Final = "incarnation"
"""Name of the row with the incarnation that was taken during a life."""
MOST: Final = 3
"""So often in a row a life asserts itself: two that were both up for long would do it for ever."""
ROW_SECONDS: Final = 60.0
"""After so long without a copy it is not in a row any more."""


class Clones:
    def __init__(self, local: Local, mesh: Mesh, journal: Journal, out: Outbox) -> None:
        self._local = local
        self._mesh = mesh
        self._journal = journal
        self._out = out
        self._started = 0.0
        self._asserted = 0
        self._asserted_at = -ROW_SECONDS
        self._asserting = False

    def start(self, now: float) -> None:
        self._started = now

    def tick(self, now: float) -> None:
        """Looks at what others know of us."""
        later = self._mesh.usurper
        if self._asserting:
            return
        if later <= self._local.incarnation:
            self._begin_anew(now)
            return
        self._out.count("identity_cloned")
        if now - self._asserted_at >= ROW_SECONDS:
            self._asserted = 0
        if now - self._started < bounds.CLONE_SECONDS or self._asserted >= MOST:
            what = "another machine has this node's identity: its state directory was copied"
            self._out.put(Fatal(what, "remove the state directory of one of the two, then start it again"))
            return
        text = "another machine has this node's identity, copied with its state directory; this one stays"
        self._out.log("error", "clone", text)
        # A copy that is started again begins at the clock; who answers us says the very next one.
        self._asserted += later == self._local.incarnation + 1
        self._assert(later + 1)

    def _begin_anew(self, now: float) -> None:
        """Others have forgotten this node in the life it has now, and would take no word of it."""
        if self._mesh.outlived == self._local.incarnation and now >= self._asserted_at + bounds.OUTLIVED_SECONDS:
            self._out.log("info", "outlived", "others had given this node up; it announces itself anew")
            self._assert(self._local.incarnation + 1)

    def _assert(self, incarnation: int) -> None:
        self._asserting = True
        self._journal.put(ClusterRow(INCARNATION, incarnation.to_bytes(8, "big")))

        def on_disk(now: float) -> None:
            self._asserting = False
            self._asserted_at = now
            self._local.incarnation = incarnation
            self._mesh.say_again()

        self._journal.then(on_disk)
