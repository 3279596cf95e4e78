"""A machine of its own: a Debian 12 that boots under systemd-nspawn, with this checkout installed by make.

    base system (cached, read only) ── overlay ── tmpfs      one mount namespace, entered for every step
                                          └ systemd-nspawn --boot: own processes, mounts and network

Law: nothing is left of a machine. Its files are in memory, its mounts belong to the namespace of one process, and they
go when that process does; the base system stays for the next one. A machine reaches no network.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.systemd.base import ENTER, PATH, ROOT, WHEELS, base_system
from tunrouter.bench.namespaces import lines_until, run, stop, wait_until
from tunrouter.errors import HostError

SOURCE: Final = "/root/tunrouter"
CAPABILITIES: Final = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_ADMIN,CAP_SYS_PTRACE"
WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""What is started so does not outlive this process, however it ends."""
BOOT_SECONDS: Final = 60.0
BOOT_AGAIN: Final = 133
"""How systemd-nspawn ends when the machine wants to."""
HOLD: Final = """
mount -t tmpfs -o mode=755 machine "$1" && mkdir "$1/upper" "$1/work" "$1/root" &&
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" machine "$1/root" &&
echo ready && exec sleep infinity
"""


class Machine:
    """A context manager: installed when it is entered, running after `boot`."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="tunrouter-machine-"))
        self._root = self._directory / "root"
        self._log = (self._directory.parent / f"{self._directory.name}.log").open("w+b")
        self._holder: subprocess.Popen[bytes] | None = None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0
        """Its first process, as this host counts."""

    def __enter__(self) -> Machine:
        try:
            self._hold(base_system())
            self._copy_checkout()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Told to stop, systemd-nspawn shuts the machine down; killed, it takes all its processes along.
        for process in (self._nspawn, self._holder):
            if process is not None:
                stop(process, seconds=15)
        self._log.close()
        Path(self._log.name).unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _hold(self, base: Path) -> None:
        script = ("sh", "-c", HOLD, "hold", str(self._directory), str(base))
        argv = [*WITH_US, "unshare", "--mount", "--propagation", "private", *script]
        self._holder = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        if next(lines_until(self._holder, time.monotonic() + 10), "") != "ready":
            raise HostError("the machine's files cannot be mounted", "overlayfs and tmpfs are needed")

    def _inside(self, *argv: str) -> list[str]:
        """Among the machine's mounts, while it does not run."""
        assert self._holder is not None
        return [*WITH_US, "nsenter", f"--target={self._holder.pid}", "--mount", "--", *argv]

    def _copy_checkout(self) -> None:
        """As it is now, changes included."""
        listed = run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).stdout
        names = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
        packed = subprocess.run(
            ["tar", "-C", str(ROOT), "-c", "--null", "-T", "-"], input="\0".join(names).encode(), capture_output=True,
            check=True,
        ).stdout  # fmt: skip
        into = f"{self._root}{SOURCE}"
        unpack = self._inside("sh", "-ec", 'mkdir -p "$1"; tar -x --no-same-owner -C "$1"', "unpack", into)
        subprocess.run(unpack, input=packed, check=True)

    # --- before it boots ---------------------------------------------------------------------------------------------
    def chroot(self, *argv: str, seconds: float = 300.0) -> str:
        """As an image is made: no systemd runs there, and no network is set up."""
        command = self._inside("unshare", "--mount", "sh", "-c", ENTER, "enter", str(self._root), *_clean(*argv))
        return run(command, seconds=seconds).stdout

    def install(self) -> str:
        return self.chroot("make", "-C", SOURCE, "install-service")

    # --- running -----------------------------------------------------------------------------------------------------
    def boot(self) -> None:
        who = (f"--directory={self._root}", f"--machine=tunrouter-{os.getpid()}", "--register=no", "--keep-unit")
        what = ("--private-network", "--bind=/dev/net/tun", f"--capability={CAPABILITIES}", "--console=pipe", "--boot")
        self._nspawn = subprocess.Popen(
            self._inside("systemd-nspawn", *who, *what),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._wait_booted()

    def reboot(self) -> None:
        """Returns when it is up again."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)  # which may go down before it has said so
        if self._nspawn.wait(BOOT_SECONDS) != BOOT_AGAIN:
            raise HostError(f"the machine did not reboot: systemd-nspawn ended with {self._nspawn.returncode}")
        self.boot()

    def crash(self) -> None:
        """The power goes, and comes back; returns when it is up again."""
        assert self._nspawn is not None
        os.kill(self.leader, signal.SIGKILL)  # which takes all its processes along
        self._nspawn.wait(BOOT_SECONDS)
        self.boot()

    def _wait_booted(self) -> None:
        self.leader = wait_until("the machine begins to boot", self._find_leader, BOOT_SECONDS)
        wait_until("the machine is booted", self._booted, BOOT_SECONDS, pause=0.2)

    def _find_leader(self) -> int | None:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            self._log.seek(0)
            raise HostError(f"systemd-nspawn ended: {self._log.read()[-500:].decode(errors='replace')}")
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return None

    def _booted(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def run(self, *argv: str, check: bool = True, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", f"--target={self.leader}", "--all", "--wdns=/root", "--"]
        return run([*enter, *_clean(*argv)], check=check, seconds=seconds)

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.run("sh", "-ec", script, check=check).stdout.strip()

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.run("systemctl", "show", "--property", name, "--value", "tunrouter.service").stdout.strip()

    def journal(self) -> str:
        return self.run("journalctl", "-u", "tunrouter.service", "--no-pager", "-o", "cat").stdout

    def write(self, path: str, text: str) -> None:
        script = 'umask 022; mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"'
        self.run("sh", "-ec", script, "write", path, text)

    def signal_agent(self, number: signal.Signals) -> None:
        self.run("kill", f"-{int(number)}", self.show("MainPID"))


def _clean(*argv: str) -> list[str]:
    settings = ["HOME=/root", "LANG=C.UTF-8", f"PATH={PATH}", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={WHEELS}"]
    return ["env", "-i", *settings, *argv]
