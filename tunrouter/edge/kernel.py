"""What this kernel is and can do, asked without making anything."""

from __future__ import annotations

import fcntl
import os
import re
import struct
from pathlib import Path
from typing import Final

TUNGETFEATURES: Final = 0x800454CF
TUN_FEATURES: Final = {"tun": 0x0001, "multi_queue": 0x0100, "vnet_hdr": 0x4000}
"""IFF_* of linux/if_tun.h: what our device is made with."""


def release() -> tuple[str, tuple[int, int]]:
    """As `uname -r` says, and its first two numbers."""
    name = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", name)
    return name, (int(found[1]), int(found[2])) if found else (0, 0)


def lacking_of_tun(path: Path) -> tuple[str, ...]:
    """What the TUN driver cannot do that we need. Raises OSError: there is none, or we may not use it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(descriptor, TUNGETFEATURES, struct.pack("=I", 0))
    finally:
        os.close(descriptor)
    (there,) = struct.unpack("=I", answer)
    return tuple(name for name, bit in TUN_FEATURES.items() if not there & bit)
