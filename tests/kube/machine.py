"""A machine: a lab's host with a root file system of its own, in which containerd runs and nothing else.

    unshare (in the host's network) ── busybox as first process ── containerd ── shims ── containers
        /usr/bin: containerd, its shim, ctr, runc      /run, /tmp, /dev: of this life alone
        /etc, /opt, /var: kept over a reboot           no Python, no iptables, no nft, no shell that others would call

Law: what a machine needs is in its root, by copy; nothing of the machine that runs the tests is reached from inside but
the kernel. Killing the first process is pulling the plug.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc  # type: ignore[import-untyped]
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from tests.runtimes import image
from tests.runtimes.cell import program
from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import run, wait_until
from tunrouter.edge import netns
from tunrouter.errors import HostError

PROGRAMS: Final = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
DIRECTORIES: Final = ("bin", "dev", "etc", "old", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/lib", "var/log")
FILES: Final = {
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/resolv.conf": "nameserver 192.0.2.254\n",
    "etc/containerd/config.toml": f"""\
version = 2

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image.NAME}"
# A confined root may not ask for more than it has.
restrict_oom_score_adj = true
""",
}
BOOT: Final = """\
set -e
cd "$0"
mount --bind . . && cd "$0"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs tmp tmp
mount -t tmpfs -o mode=0755 dev dev
mkdir dev/net dev/pts dev/shm
for each in full null random tty urandom zero net/tun; do cp -a "/dev/$each" "dev/$each"; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . old
exec /bin/busybox sh -c '
    /bin/busybox umount -l /old && /bin/busybox mount --make-rshared /
    trap "" CHLD; exec /bin/busybox sleep infinity'
"""
"""By the tools of the machine that runs the tests; the last line by what is in the root."""
CGROUPS: Final = Path("/sys/fs/cgroup")
SHARES: Final = {"cpu/{name}/cpu.shares": "65536", "{name}/cpu.weight": "6000"}
"""By version of cgroups: pods have a machine to themselves, and not a small share beside what runs the tests."""
START_SECONDS: Final = 20.0
IMPORT_SECONDS: Final = 120.0
services: Any = api_pb2_grpc
"""Its stubs have no types."""
T = TypeVar("T")


class Off(Exception):
    """The plug was pulled."""


class Machine:
    """A context manager: switched on, with these images loaded."""

    def __init__(self, host: Host, *images: Path) -> None:
        self.host = host
        self.name = host.name
        self.root = host.lab.directory / host.name / "root"
        self.log = host.lab.directory / host.name / "containerd.log"
        self.runtime: Any = None
        """The CRI's RuntimeService."""
        self.slice = host.namespace.name
        """Its control group, in which the pods are."""
        self._images = images
        self._outer: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._first = 0
        self._channel: Any = None

    def __repr__(self) -> str:
        return self.name

    def __enter__(self) -> Machine:
        self._furnish()
        self.power_on()
        for archive in self._images:
            self.load(archive)
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()
        shutil.rmtree(self.root, ignore_errors=True)
        for top in (CGROUPS / self.slice, *CGROUPS.glob(f"*/{self.slice}")):
            for path in sorted(top.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):  # what the kernel has not buried yet
                    path.rmdir()

    def _furnish(self) -> None:
        for directory in DIRECTORIES:
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        (self.root / "var/run").symlink_to("/run")
        for name in PROGRAMS:
            found = Path(program(name))
            _copy(found, self.root / "usr/bin" / name)
            for library in _libraries(found):
                _copy(library, self.root / library.relative_to("/"))
        _copy(Path(program("busybox")), self.root / "bin/busybox")
        for name, text in FILES.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)

    # --- the plug ----------------------------------------------------------------------------------------------------
    def power_on(self) -> None:
        wanted = ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        with self.log.open("ab") as log:
            self._outer = self.host.namespace.spawn(
                program("unshare"), *wanted, "sh", "-c", BOOT, str(self.root), stdout=log
            )
        self._first = wait_until(f"{self} is on; see {self.log}", self._is_up, START_SECONDS)
        self.start_containerd()

    def favour(self) -> None:
        """Once there are pods."""
        for pattern, value in SHARES.items():
            path = CGROUPS / pattern.format(name=self.slice)
            if path.exists():
                path.write_text(value)

    def start_containerd(self) -> None:
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                self.enter("/usr/bin/containerd"), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": "/usr/bin"}, start_new_session=True,
            )  # fmt: skip
        self._channel = grpc.insecure_channel(f"unix:{self.inside('/run/containerd/containerd.sock')}")
        self.runtime = services.RuntimeServiceStub(self._channel)
        wait_until(f"containerd on {self} answers; it wrote {self.log}", self._answers, START_SECONDS)

    def power_off(self) -> None:
        """At once, as when the plug is pulled: nothing that ran here says good-bye."""
        if self._outer is None:
            return
        if self._channel is not None:
            self._channel.close()
        if self._outer.poll() is None:
            os.kill(self._first or self._outer.pid, signal.SIGKILL)
        for process in filter(None, (self._outer, self._daemon)):
            process.wait()
        self._outer = self._daemon = self._channel = self.runtime = None

    def reboot(self, between: Callable[[], None] = lambda: None) -> None:
        """The plug is pulled and put in again; the kernel's devices, rules and routes of before are gone."""
        self.power_off()
        self.host.lab.fabric.namespace.ip(f"link del {self.name}")
        self.host.namespace.delete()
        self.host.create()
        between()
        self.power_on()

    def _is_up(self) -> int | None:
        assert self._outer is not None
        if self._outer.poll() is not None:
            raise HostError(f"{self} does not start", f"see {self.log}")
        for child in Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split():
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"/bin/busybox\0sleep"):
                return int(child)
        return None

    def _answers(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise HostError(f"containerd on {self} ended with {self._daemon.returncode}", f"see {self.log}")
        try:
            return bool(self.runtime.Status(cri.StatusRequest()).status.conditions)
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN}:
                return False
            raise

    # --- what is inside ----------------------------------------------------------------------------------------------
    def inside(self, path: str) -> Path:
        """A file as the machine sees it, with what is mounted there."""
        return Path(f"/proc/{self._first}/root{path}")

    def enter(self, *argv: str) -> list[str]:
        return [program("nsenter"), f"--target={self._first}", "--net", "--mount", "--pid", "--", *argv]

    def run(self, *argv: str, check: bool = True, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A program that the machine has."""
        return run(self.enter(*argv), stdin="", check=check, seconds=seconds, env={"PATH": "/usr/bin"})

    def load(self, archive: Path) -> None:
        """As the docs say: `ctr -n k8s.io images import FILE`."""
        place = self.root / "root" / archive.name
        _copy(archive, place)
        self.run("/usr/bin/ctr", "-n", "k8s.io", "images", "import", f"/root/{archive.name}", seconds=IMPORT_SECONDS)
        place.unlink()

    def has_image(self, name: str) -> bool:
        if self._channel is None:
            raise Off
        asked = cri.ImageStatusRequest(image=cri.ImageSpec(image=name))
        return bool(services.ImageServiceStub(self._channel).ImageStatus(asked).image.id)

    def within(self, work: Callable[[], T]) -> T:
        """In the network of the machine."""
        with netns.Namespace(str(self.host.namespace.path)) as namespace:
            return netns.within(namespace, work)

    def executables(self) -> Iterator[Path]:
        """What can be executed on the host itself, images not counted."""
        for directory, below, files in os.walk(self.root):
            here = Path(directory)
            if here == self.root / "var/lib":
                below[:] = [name for name in below if name != "containerd"]
            yield from (here / name for name in files if os.access(here / name, os.X_OK))


def _libraries(file: Path) -> list[Path]:
    """What a program is linked with; its loader, too."""
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", run(["ldd", str(file)]).stdout)]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(source, target)
