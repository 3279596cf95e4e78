"""Kernel switches under /proc/sys, of the network namespace the calling thread is in.

Law: a write happens only where the value differs, and is read back: the kernel clamps some values silently.
Names are written as sysctl(8) writes them; a dot inside an interface's name is written as a slash there
(`net/ipv4/conf/eth0.1/rp_filter`), so both forms are accepted and the slash form is used for devices. In a container
/proc/sys cannot be written and nothing can be mounted over it: there the host's net/ is mounted at another place, and
shows what the calling thread's namespace has, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunrouter.errors import HostError

MOUNTED: Final = Path("/host/proc/sys")


def root(mounted: Path) -> Path:
    """Where the switches are: in a container under `mounted`."""
    return mounted if (mounted / "net/ipv4").is_dir() else Path("/proc/sys")


ROOT: Final = root(MOUNTED)


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
        fix = f"set {name}={wanted} yourself, or in a container mount the host's /proc/sys/net at {MOUNTED}/net"
        raise HostError(f"cannot set sysctl {name}={wanted}: {error.strerror}", fix) from None
    return True


def write_if_present(name: str, value: int | str) -> bool:
    """As `write`, for switches that IPv6-less or older kernels do not have."""
    return read(name) is not None and write(name, value)


def _path(name: str) -> Path:
    return ROOT / (name if "/" in name else name.replace(".", "/"))
