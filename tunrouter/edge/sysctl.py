"""Kernel switches under /proc/sys, of the network namespace the calling thread is in.

Law: a write happens only where the value differs, and is read back: the kernel clamps some values silently.
Names are written as sysctl(8) writes them; a dot inside an interface's name is written as a slash there
(`net/ipv4/conf/eth0.1/rp_filter`), so both forms are accepted and the slash form is used for devices.

In a container /proc/sys is read-only, runtimes let nothing be mounted on it, and AppArmor's usual profiles forbid
writing there. The host's own /proc/sys/net is mounted elsewhere then, and preferred: whose switches it shows depends on
who looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunrouter.errors import HostError

ROOT: Final = Path("/proc/sys")
HOSTS: Final = Path("/host/proc/sys")
"""Where a container has the host's, or at least `net` of it."""


def read(name: str) -> str | None:
    """The value, or None where this kernel or namespace has no such switch."""
    try:
        return _path(name).read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"cannot read sysctl {name}: {error.strerror}", "run as root on the host") from None


def write(name: str, value: int | str) -> bool:
    """Sets the switch; True if it had another value. A missing switch is an error: see `write_if_present`."""
    wanted = str(value)
    if read(name) == wanted:
        return False
    try:
        _path(name).write_text(wanted)
    except FileNotFoundError:
        raise HostError(f"this kernel has no sysctl {name}", "use a kernel with this feature built in") from None
    except OSError as error:
        fix = f"in a container mount the host's /proc/sys/net at {HOSTS}/net, or set {name}={wanted} yourself"
        raise HostError(f"cannot set sysctl {name}={wanted}: {error.strerror}", fix) from None
    return True


def write_if_present(name: str, value: int | str) -> bool:
    """As `write`, for switches that IPv6-less or older kernels do not have."""
    return read(name) is not None and write(name, value)


def _path(name: str) -> Path:
    relative = name if "/" in name else name.replace(".", "/")
    return next((path for path in (HOSTS / relative, ROOT / relative) if path.exists()), ROOT / relative)
