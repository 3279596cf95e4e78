"""Which handshake datagrams are looked at, and which may be answered with a reject: token buckets.

Law: a flood may make strangers wait, never peers, and it costs no memory. Strangers have a bucket for each source and
one for all together; addresses of known peers have their own buckets, five times larger, and a budget of their own.
Answers and rejects have the same apart from first messages, but strangers only the common budget: we asked few of them.
The common budget is asked first: once it is spent nobody's bucket matters, so forged sources cannot fill the table.

A bucket is one number, the time at which it is full again (the generic cell rate algorithm, ITU-T I.371): taking
a token moves that time by 1/rate, and the bucket is empty while it lies more than (burst - 1)/rate ahead. A full bucket
needs no entry, therefore forgetting the source that was admitted longest ago loses nothing that still counts.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Final

from tunrouter.core import bounds

SOURCE_RATE: Final = "handshake_source_rate"
OVER_BUDGET: Final = "handshake_over_budget"
ANSWER_SOURCE_RATE: Final = "answer_source_rate"
ANSWER_OVER_BUDGET: Final = "answer_over_budget"
"""Names of the drop counters."""

_ROUNDING: Final = 1e-6
"""Seconds: more than adding steps up to a burst can be off, less than any step."""


class Budget:
    """One token bucket."""

    __slots__ = ("_full_at", "_step", "_tolerance")

    def __init__(self, rate: float, burst: int) -> None:
        self._step = 1.0 / rate
        self._tolerance = (burst - 1) / rate + _ROUNDING
        self._full_at = -math.inf

    def empty(self, now: float) -> bool:
        return now < self.empty_until

    @property
    def empty_until(self) -> float:
        return self._full_at - self._tolerance

    def take(self, now: float, tokens: int = 1) -> None:
        self._full_at = max(self._full_at, now) + tokens * self._step


class Sources:
    """A token bucket for each source, for at most `limit` of them."""

    __slots__ = ("_full_at", "_limit", "_step", "_tolerance")

    def __init__(self, rate: float, burst: int, limit: int) -> None:
        self._step = 1.0 / rate
        self._tolerance = (burst - 1) / rate + _ROUNDING
        self._limit = limit
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def empty(self, source: str, now: float) -> bool:
        return now < self.empty_until(source)

    def empty_until(self, source: str) -> float:
        return self._full_at.get(source, -math.inf) - self._tolerance

    def take(self, source: str, now: float) -> None:
        self._full_at[source] = max(self._full_at.get(source, now), now) + self._step
        self._full_at.move_to_end(source)
        if len(self._full_at) > self._limit:
            self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)


class Admission:
    """Decides in the packet loop, before anything else is done with the datagram, by its source address alone."""

    __slots__ = (
        "_answering", "_answers", "_known", "_known_answers", "_known_budget", "_known_sources", "_strangers",
        "_strangers_budget",
    )  # fmt: skip

    def __init__(self) -> None:
        rate, burst = bounds.FIRST_PER_SOURCE_PER_SECOND, bounds.FIRST_PER_SOURCE_BURST
        factor = bounds.FIRST_KNOWN_FACTOR
        self._strangers = Sources(rate, burst, bounds.MAX_SOURCES)
        self._strangers_budget = Budget(bounds.FIRST_PER_SECOND, bounds.FIRST_BURST)
        self._known: frozenset[str] = frozenset()
        self._known_sources = Sources(rate * factor, burst * factor, bounds.MAX_SOURCES)
        self._known_budget = Budget(bounds.FIRST_PER_SECOND, bounds.FIRST_BURST)
        self._answers = Budget(bounds.ANSWERS_PER_SECOND, bounds.ANSWERS_BURST)
        self._answering = Sources(rate * factor, burst * factor, bounds.MAX_SOURCES)
        self._known_answers = Budget(bounds.ANSWERS_PER_SECOND, bounds.ANSWERS_BURST * factor)

    def know(self, addresses: Iterable[str]) -> None:
        """These, and no others, are peers' addresses, in the text form in which `admit` gets them."""
        self._known = frozenset(islice(addresses, bounds.MAX_PEERS + bounds.MAX_TARGETS))

    def knows(self, address: str) -> bool:
        return address in self._known

    @property
    def shut_until(self) -> float:
        """Before this no stranger's first message is admitted."""
        return self._strangers_budget.empty_until

    @property
    def answers_shut_until(self) -> float:
        """Before this no stranger's answer is."""
        return self._answers.empty_until

    def dry_until(self, address: str) -> float:
        """Before this no first message of this stranger is."""
        return self._strangers.empty_until(source_of(address))

    def refuses(self, address: str, now: float, *, first: bool) -> str:
        """Of a stranger, without taking anything: why it would not be admitted, or the empty string."""
        if not first:
            return ANSWER_OVER_BUDGET if self._answers.empty(now) else ""
        if self._strangers_budget.empty(now):
            return OVER_BUDGET
        return SOURCE_RATE if self._strangers.empty(source_of(address), now) else ""

    def admit(self, address: str, now: float) -> str:
        """For a first message: the empty string, or the name of the counter under which the datagram is dropped."""
        if address in self._known:
            source, budget, sources = address, self._known_budget, self._known_sources
            if budget.empty(now):
                return OVER_BUDGET
        else:
            budget, sources = self._strangers_budget, self._strangers
            if budget.empty(now):
                return OVER_BUDGET
            source = source_of(address)
        if sources.empty(source, now):
            return SOURCE_RATE
        budget.take(now)
        sources.take(source, now)
        return ""

    def admit_answer(self, address: str, now: float) -> str:
        """The same for an answer or a reject."""
        known = address in self._known
        budget = self._known_answers if known else self._answers
        if budget.empty(now):
            return ANSWER_OVER_BUDGET
        if known:
            if self._answering.empty(address, now):
                return ANSWER_SOURCE_RATE
            self._answering.take(address, now)
        budget.take(now)
        return ""


class RejectBudget:
    """How often a stranger is told why his handshake cannot be used: once a second a source, 20 times in all."""

    __slots__ = ("_budget", "_sources")

    def __init__(self) -> None:
        self._budget = Budget(bounds.REJECTS_PER_SECOND, bounds.REJECTS_PER_SECOND)
        self._sources = Sources(bounds.REJECTS_PER_SOURCE_PER_SECOND, 1, bounds.MAX_SOURCES)

    def allow(self, address: str, now: float) -> bool:
        source = source_of(address)
        if self._budget.empty(now) or self._sources.empty(source, now):
            return False
        self._budget.take(now)
        self._sources.take(source, now)
        return True


def source_of(address: str) -> str:
    """Whom a stranger's address is charged to: itself, or the /64 of an IPv6 address, which one host fills at will.

    The address is in the kernel's text form; the /64 is written as its first four groups.
    """
    if ":" not in address:
        return address
    head, gap, tail = address.partition("::")
    if not head and "." in tail:
        return address  # an IPv4 address mapped into IPv6
    groups = head.split(":") if head else []
    if gap and len(groups) < 4:
        after = tail.split(":") if tail else []
        groups += ["0"] * (8 - len(groups) - len(after)) + after
    return ":".join(groups[:4])
