"""The kernel's table follows the compiler: one transaction for each change, and the whole again if others touched it.

    changed ──> rule set ──> difference to what the kernel has ──> nft -f - ──> in force        repaired: whole

Law: until the first rule set is complete the kernel keeps the table that it has, of this process's predecessor or none;
what is in force when this process ends stays in force. Who asks is told what is in force, never what is intended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Final

from tunrouter.core.policy import nftables
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.nftables import FAMILY, TABLE, Answer, Frame
from tunrouter.core.policy.ruleset import Ruleset
from tunrouter.edge.netlink import nft
from tunrouter.edge.netlink.nftevents import Monitor
from tunrouter.errors import HostError

AGAIN_SECONDS: Final = 1.0
"""After a transaction that was refused; for a whole table, so that the kernel's reason does not fill a processor."""
MOST_AGAIN_SECONDS: Final = 30.0
DOUBT_SECONDS: Final = 1.5
"""Somebody wrote rules while we wrote the whole table: so soon it is written once more, and twice as late each time
that it is so again, for there are hosts on which somebody always writes."""
MOST_DOUBT_SECONDS: Final = 300.0
MUCH: Final = 1 << 19
"""Characters of a change whose events nobody could hold."""
log = logging.getLogger("tunrouter.npc")

Applied = Callable[[Ruleset | None, Ruleset], object]


class Enforcement:
    """`awaited` says what the first rule set waits for; `applied` hears of what was in force before and is now."""

    def __init__(self, compiler: Compiler, frame: Frame, awaited: Callable[[], str], applied: Applied) -> None:
        self._compiler = compiler
        self._frame = frame
        self._awaited = awaited
        self._applied = applied
        self.held: Ruleset | None = None
        """What is in force, as far as is known."""
        self._sure = False
        """That it is."""
        self.why = "nothing was written yet"
        """Why it is not what it should be; empty if it is."""
        self.transactions = self.repairs = self.refusals = 0
        self.seconds = 0.0
        """That transactions took, all in all."""
        self._asked = self._done = 0
        self._answers: list[Answer] = []
        """That are to begin nothing, from now on."""
        self._wake = asyncio.Event()
        self._turn = asyncio.Condition()
        self._failures = self._doubts = 0
        self._monitor: Monitor | None = None

    # --- what others want --------------------------------------------------------------------------------------------
    def changed(self) -> int:
        """Something is to be compiled anew: a ticket for `wait`."""
        self._asked += 1
        self._wake.set()
        return self._asked

    async def wait(self, ticket: int, condition: Callable[[], bool]) -> None:
        """Until what was asked is in force, and the condition holds."""
        async with self._turn:
            await self._turn.wait_for(lambda: self._done >= ticket and not self.why and condition())

    async def refuse(self, answers: Collection[Answer]) -> None:
        """They begin nothing for a while; returns when the kernel knows."""
        self._answers += answers
        await self.wait(self.changed(), lambda: True)

    @property
    def asked(self) -> int:
        """The ticket for all that has changed so far."""
        return self._asked

    @property
    def pending(self) -> bool:
        return self._done < self._asked

    # --- following ---------------------------------------------------------------------------------------------------
    async def keep(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self.held is None and (awaited := self._awaited()):
                    self.why = awaited
                    continue
                await self._write()
        finally:
            self._stop_hearing()

    async def _write(self) -> None:
        asked, before = self._asked, self.held
        ruleset = self._compiler.ruleset()
        entire = before is None or not self._sure
        # `before` is what the table had before somebody changed it: of no use for a difference.
        text = nftables.whole(ruleset, self._frame) if entire else self._difference(ruleset)
        answers, self._answers = self._answers, []
        text += nftables.refusing(answers)
        if text:
            begun = time.monotonic()
            try:
                if entire or len(text) > MUCH:
                    await self._write_unheard(text, entire=entire)
                else:
                    await self._write_heard(text)
            except HostError as error:
                self._refused(error, [] if entire else answers, entire=entire)
                return
            self.transactions += 1
            self.seconds += time.monotonic() - begun
        self.held, self._done, self._failures = ruleset, asked, 0
        if self._sure:
            self.why = ""  # else others changed it meanwhile
        if text:
            # What the table had when others had changed it nobody knows, nor what passed meanwhile.
            self._applied(None if entire else before, ruleset)
        async with self._turn:
            self._turn.notify_all()

    def _difference(self, ruleset: Ruleset) -> str:
        assert self.held is not None
        return nftables.difference(self.held, ruleset, self._frame)

    async def _write_heard(self, text: str) -> None:
        assert self._monitor is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._monitor.fileno())
        try:
            ours = await asyncio.to_thread(nft.apply, text)
        finally:
            loop.add_reader(self._monitor.fileno(), self._heard)
        transactions, lost = self._monitor.changes()
        if lost or any(one.port != ours for one in transactions):
            self._touched("while it was changed here")

    async def _write_unheard(self, text: str, *, entire: bool) -> None:
        """Without a monitor: its events would fill any buffer. How often rules were changed tells of others."""
        before = await asyncio.to_thread(nft.generation)
        if not entire:
            self._heard()
        self._stop_hearing()
        await asyncio.to_thread(nft.apply, text)
        self._monitor = Monitor(FAMILY, TABLE)
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._heard)
        self._sure = self._sure or entire
        if nft.generation() == before + 1:
            self._doubts = 0
        else:
            again = min(DOUBT_SECONDS * 2**self._doubts, MOST_DOUBT_SECONDS)
            self._doubts = min(self._doubts + 1, 10)
            asyncio.get_running_loop().call_later(again, self._doubt)

    def _doubt(self) -> None:
        self._sure = False
        self.changed()

    def _refused(self, error: HostError, answers: list[Answer], *, entire: bool) -> None:
        self._answers = answers + self._answers
        self.refusals += 1
        self._sure = False
        self.why = error.what
        if not entire:
            log.info("the rules of NetworkPolicies are written anew: %s", error.what)
            self._wake.set()
            return
        self._failures += 1
        log.error("the rules of NetworkPolicies cannot be written, the kernel keeps those that it has: %s", error)
        again = min(AGAIN_SECONDS * 2 ** (self._failures - 1), MOST_AGAIN_SECONDS)
        asyncio.get_running_loop().call_later(again, self._wake.set)

    # --- others ------------------------------------------------------------------------------------------------------
    def _heard(self) -> None:
        if self._monitor is None:
            return
        transactions, lost = self._monitor.changes()
        if transactions or lost:
            by = {one.program for one in transactions if one.program}
            self._touched(f"by {', '.join(sorted(by))}" if by else "")

    def _touched(self, how: str) -> None:
        self._sure = False
        self.repairs += 1
        self.why = "somebody changed the table, which is being repaired"
        log.warning("table %s %s was changed %s: it is written anew", FAMILY, TABLE, how, extra={"event": "repair"})
        self.changed()

    def _stop_hearing(self) -> None:
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
