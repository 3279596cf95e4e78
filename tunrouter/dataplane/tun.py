"""Prepares the TUN device, and opens a queue of it with the offloads the data plane lives on.

Every frame has a virtio-net header (10 bytes, native byte order), so the kernel hands over whole TCP super-packets and
leaves checksums partial. The device is persistent: addresses and routes on it, and with them established connections,
survive a restart of the agent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import pytun

from tunrouter.dataplane.kernel import Buffer
from tunrouter.errors import HostError

_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
VNET_HEADER: Final = 10

_OFFLOADS: Final = {"csum": 0x01, "tso4": 0x02, "tso6": 0x04, "ecn": 0x08, "uso4": 0x20, "uso6": 0x40}
_WANTED: Final = (("csum", "tso4", "tso6", "ecn", "uso4", "uso6"), ("csum", "tso4", "tso6", "ecn"), ("csum",))
"""What is asked for, best first; UDP segmentation needs Linux 6.2."""

_FIXES: Final = {
    errno.ENOENT: "create it: mkdir -p /dev/net && mknod /dev/net/tun c 10 200",
    errno.ENODEV: "load the driver: modprobe tun",
    errno.ENXIO: "load the driver: modprobe tun",
    errno.EPERM: "run as root, or with CAP_NET_ADMIN",
    errno.EACCES: "run as root, or with CAP_NET_ADMIN and access to /dev/net/tun",
    errno.EBUSY: "another process holds it: stop the other agent, or choose another device name",
    errno.EINVAL: "a device of this name and another kind exists: remove it (ip link del NAME) or choose another name",
}


class TunQueue:
    """One queue of a TUN device, non-blocking."""

    def __init__(self, device: pytun.TunTapDevice, features: tuple[str, ...]) -> None:
        self._device = device
        self._fd: int = device.fileno()
        self.name: str = device.name
        self.features = features

    def fileno(self) -> int:
        return self._fd

    def read_into(self, buffer: memoryview) -> int:
        """Reads one frame; 0 when there is none."""
        try:
            return os.readv(self._fd, (buffer,))
        except BlockingIOError:
            return 0

    def write(self, parts: Sequence[Buffer]) -> None:
        os.writev(self._fd, parts)

    def persist(self) -> None:
        """The device outlives its queues from now on."""
        try:
            self._device.persist(True)
        except OSError as error:
            raise _refused(self.name, error) from None

    def close(self) -> None:
        self._device.close()


def prepare_tun(name: str) -> tuple[str, ...]:
    """Makes the device `name` persistent, or finds it so and unused, and tells its offloads. Raises HostError."""
    queue = open_tun(name)
    try:
        _refuse_shared(name)
        queue.persist()
    finally:
        queue.close()
    return queue.features


def open_tun(name: str) -> TunQueue:
    """Opens a queue of the TUN device `name`, which is created if it is missing. Raises HostError with the next step.

    The kernel spreads flows over a device's queues, and back when one is closed: nobody but its worker may hold one.
    """
    flags = pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR | pytun.IFF_MULTI_QUEUE
    try:
        device = pytun.TunTapDevice(name=name, flags=flags)
    except OSError as error:
        raise _refused(name, error) from None
    try:
        os.set_blocking(device.fileno(), False)
        fcntl.ioctl(device.fileno(), _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
        features = _offloads(device.fileno())
    except OSError as error:
        device.close()
        raise _refused(name, error) from None
    return TunQueue(device, features)


def _offloads(fd: int) -> tuple[str, ...]:
    for names in _WANTED:
        with suppress(OSError):
            fcntl.ioctl(fd, _TUNSETOFFLOAD, sum(_OFFLOADS[name] for name in names))
            return names
    return ()


def _refuse_shared(name: str) -> None:
    """A multi-queue device lets anybody attach one queue more, and the kernel would spread flows over both agents."""
    path = f"/sys/class/net/{name}"
    with suppress(FileNotFoundError):
        with open(f"{path}/ifindex", encoding="ascii") as file:
            ours = int(file.read()) == socket.if_nametoindex(name)  # else this /sys shows another namespace
        queues = sum(entry.startswith("rx-") for entry in os.listdir(f"{path}/queues"))
        if ours and queues > 1:
            raise HostError(f"the TUN device {name} is in use", _FIXES[errno.EBUSY])


def _refused(name: str, error: OSError) -> HostError:
    number = error.errno or 0
    what = "/dev/net/tun" if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EACCES) else f"TUN device {name}"
    reason = os.strerror(number) if number else str(error)
    return HostError(f"cannot open {what}: {reason}", _FIXES.get(number, "see `ip -d link show` and `dmesg`"))
