"""What a device computes for us: checksums and segmentation, asked by the ethtool ioctls (ethtool.h)."""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from typing import Final

from tunrouter.errors import HostError

SIOCETHTOOL: Final = 0x8946
QUESTIONS: Final = {"tx-checksum": 0x16, "scatter-gather": 0x18, "tso": 0x1E}
"""ETHTOOL_GTXCSUM, ETHTOOL_GSG, ETHTOOL_GTSO."""


def offloads(device: str) -> dict[str, bool]:
    """Each offload of `QUESTIONS`, on or off; empty where there is no such device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        try:
            return {name: _ask(query.fileno(), device, command) for name, command in QUESTIONS.items()}
        except OSError as error:
            if error.errno == errno.ENODEV:
                return {}
            raise HostError(f"cannot read the offloads of {device}: {error.strerror}", "run as root") from None


def _ask(descriptor: int, device: str, command: int) -> bool:
    value = array.array("I", [command, 0])  # struct ethtool_value
    request = struct.pack("16sP", device.encode(), value.buffer_info()[0]).ljust(40, b"\0")
    fcntl.ioctl(descriptor, SIOCETHTOOL, request)
    return bool(value[1])
