"""The replay window of one lane: each counter is accepted once (RFC 6479).

    word    0       1             ...             126     127         a ring: counter >> 6 picks the word, modulo 128,
          |.......|.......|                     |.......|..newest|    counter & 63 the bit

Moving forward clears whole words instead of shifting bits, so one of the 128 words is always partly ahead of the newest
counter, and 127 * 64 = 8,128 counters behind it are usable.

Law: ask only after the datagram was authenticated; otherwise a forged counter would move the window.
"""

from __future__ import annotations

from typing import Final

from tunrouter.core import bounds

_WORDS: Final = 128
_MASK: Final = _WORDS - 1
_WINDOW: Final = bounds.REPLAY_WINDOW
_LIMIT: Final = bounds.REJECT_MESSAGES

assert (_WORDS - 1) * 64 == _WINDOW


class ReplayWindow:
    __slots__ = ("_newest", "_ring")

    def __init__(self) -> None:
        self._ring = [0] * _WORDS
        self._newest = -1

    def check_and_advance(self, counter: int) -> bool:
        """Whether `counter` (not negative) is new, and remembers it; False if too old or not below the key's limit."""
        newest = self._newest
        ring = self._ring
        word = counter >> 6
        if counter > newest:
            if counter >= _LIMIT:
                return False
            self._newest = counter
            newest >>= 6
            if word != newest:
                for passed in range(max(newest, word - _WORDS) + 1, word + 1):
                    ring[passed & _MASK] = 0
        elif newest - counter > _WINDOW:
            return False
        bit = 1 << (counter & 63)
        seen = ring[word & _MASK]
        if seen & bit:
            return False
        ring[word & _MASK] = seen | bit
        return True
