"""What the doctor says: one thing it looked at, how that is, and what helps.

Law: a `fail` means that traffic is lost or leaks now, or that no agent can start; a `warn` that this may be, or that
somebody could not look. Whoever is not well has a fix.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    check: str
    """The name that docs/troubleshooting.md explains."""
    level: Level
    text: str
    fix: str = ""
    """Commands and words parted by semicolons; what comes after `else` is for whom the commands do not suit."""
