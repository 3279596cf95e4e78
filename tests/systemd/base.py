"""The system that machines boot: a Debian 12 with what the service needs, made once and then read only.

Law: its name follows from its contents, so a change makes another one, and `rm -r /var/cache/tunrouter-tests` begins
anew. Debian's mirror and PyPI are reached with this host's own certificates and settings, and never again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tunrouter.bench.namespaces import run
from tunrouter.errors import HostError

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = Path("/var/cache/tunrouter-tests")
SUITE: Final = "bookworm"
MIRROR: Final = os.environ.get("MIRROR", "http://deb.debian.org/debian")
PACKAGES: Final = (
    "ca-certificates,dbus,gcc,iproute2,iptables,iputils-ping,libc6-dev,make,nftables,procps,python3,python3-dev,"
    "python3-venv,systemd,systemd-sysv"
)
WHEELS: Final = "/root/wheels"
"""All that `pip install` of this program wants."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS: Final = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container"}
BUILD: Final = ("setuptools", "wheel")
CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
SECONDS: Final = 900.0
ENTER: Final = """
root=$1; shift
mount --bind "$root" "$root" && mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
exec chroot "$root" "$@"
"""
"""Enters a system that does not run, in a mount namespace of one's own."""
SLIM: Final = """
rm -rf /tmp/venv /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/locale
"""


def base_system() -> Path:
    """Its directory. Whoever comes first makes it, which takes minutes."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise HostError(f"{program} is not installed", f"apt-get install {package}")
    wanted = (SUITE, PACKAGES, SLIM, *BUILD, *_requirements())
    base = CACHE / f"{SUITE}-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}"
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _locked(CACHE / "lock"):
        if not base.exists():
            _make(base)
    return base


def _requirements() -> list[str]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]["install_requires"].split()


def _make(base: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".making-", dir=CACHE))
    try:
        fresh.chmod(0o755)
        run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(fresh), MIRROR], seconds=SECONDS)
        _take_settings(fresh)
        _chroot(fresh, "python3", "-m", "venv", "/tmp/venv")
        _chroot(fresh, "/tmp/venv/bin/pip", "download", "-q", "-d", WHEELS, *BUILD, *_requirements())
        _chroot(fresh, "sh", "-c", SLIM)
        fresh.rename(base)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _take_settings(root: Path) -> None:
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy(f"/{CERTIFICATES}", root / CERTIFICATES)
    if Path("/etc/pip.conf").exists():
        shutil.copy("/etc/pip.conf", root / "etc/pip.conf")


def _chroot(root: Path, *argv: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    environ = inherited | {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "PIP_CERT": f"/{CERTIFICATES}"}
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter", str(root), *argv]
    run(command, seconds=SECONDS, env=environ)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
