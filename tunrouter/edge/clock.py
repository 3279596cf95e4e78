"""The kernel's opinion of its own clock (adjtimex(2))."""

from __future__ import annotations

import ctypes
from typing import Final

STA_UNSYNC: Final = 0x40
_WORDS_BEFORE_STATUS: Final = 4  # modes, offset, freq, maxerror, esterror: longs but for the first, then int status


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("measures", ctypes.c_long * _WORDS_BEFORE_STATUS),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


def synchronised() -> bool:
    """Whether somebody (NTP, chrony, the hypervisor) keeps the clock right; also if the kernel does not say."""
    state = _Timex()
    answered = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    return answered < 0 or not state.status & STA_UNSYNC
