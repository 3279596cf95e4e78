"""A host with a TUN, a bridge and a pod that is well until a test plants something; and a reader that obeys fixes."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import msgspec

from tests.host.lab import PLAN, Lab, Tun
from tunrouter.doctor import Finding, Known, diagnose

WORD = re.compile(r"(?:^|: |, )(?=([a-z][\w-]*) )")
OURS = f'tunrouter() {{ {sys.executable} -m tunrouter.cli "$@"; }}'
"""The command, for a shell."""
PROGRAMS = {
    "bridge", "ethtool", "firewall-cmd", "ip", "ip6tables-legacy", "ip6tables-nft", "ipset", "iptables-legacy",
    "iptables-nft", "kill", "networkctl", "nft", "nmcli", "printf", "rm", "sysctl", "tunrouter", "ufw",
}  # fmt: skip


class Patient:
    def __init__(self) -> None:
        self.lab = Lab()
        self.directory = Path(tempfile.mkdtemp())
        self.programs = self.directory / "bin"
        """Of stand-ins, that come before all others."""
        self.known = Known(
            range=PLAN.range,
            peers=("192.0.2.2",),
            cni_bin_dir=str(self.directory / "cni"),
            cni_conf_dir=str(self.directory / "net.d"),
        )
        self.told = self.known
        self.last: list[Finding] = []
        """Ailments at the last look."""

    def __enter__(self) -> Patient:
        self._tun = Tun(self.lab)
        self.programs.mkdir()
        self.host = self.lab.host(manage_firewall=False)
        self.restart()
        self.pod = self.lab.pod(self.host, "10.32.1.2")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._tun.close()
        self.lab.close()
        shutil.rmtree(self.directory)

    def tell(self, **changes: object) -> None:
        """The doctor, from now to the end of the test."""
        self.told = msgspec.structs.replace(self.told, **changes)

    def restart(self) -> None:
        """What a start of the agent does to its host."""
        self.lab.inside(self.host.apply)

    def run(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        return self.lab.host_ns.run(*arguments, check=check, text=text)

    def findings(self, now: float | None = None) -> list[Finding]:
        return self.lab.inside(lambda: diagnose(self.told, now))

    def ailments(self, now: float | None = None) -> list[Finding]:
        """Without the clock of the machine that runs the tests, unless that is moved."""
        found = self.findings(now)
        self.last = [f for f in found if f.level != "ok" and (now is not None or f.check != "clock")]
        return self.last

    def finds(self, check: str, *words: str) -> list[Finding]:
        """What that check and no other has to say; all of `words` are in it, and each has a fix."""
        found = self.ailments()
        assert {f.check for f in found} == {check}, found
        told = "\n".join(f.text for f in found)
        assert [word for word in words if word not in told] == [], told
        assert all(f.fix for f in found)
        return found

    def obey(self, found: list[Finding]) -> list[str]:
        """Runs the commands that the fixes name, as a person would."""
        done = [command for finding in found for command in commands(finding.fix)]
        path = f"{self.programs}:{os.environ['PATH']}"
        for command in done:
            self.run("env", f"PATH={path}", "sh", "-ec", f"{OURS}\n{command}")
        return done


def commands(fix: str) -> list[str]:
    """The parts that begin with a program's name, up to an `else`."""
    found = []
    for part in fix.split("; "):
        if part.startswith("else"):
            break
        found += [part[word.end() :] for word in WORD.finditer(part) if word[1] in PROGRAMS][:1]
    return found
