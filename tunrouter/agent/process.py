"""What this process may do with what it knows: no core dump and no other user's debugger sees the keys.

Python cannot wipe every copy of a secret; that they never leave the memory is what can be promised.
"""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def keep_secrets_in_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
