"""NetworkManager or systemd-networkd that has taken our devices for its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.doctor.patients import Patient, commands
from tests.host.lab import run, wait_until
from tunrouter.doctor import CHECKS, Finding, managers
from tunrouter.edge import managers as edge

pytestmark = pytest.mark.root

STATE = """[device]
managed=true
perm-hw-addr-fake=CE:2F:EC:93:0A:2D
connection-uuid=2d77e155-3242-4610-b4b6-164891f502c4
nm-owned=false
"""
"""As NetworkManager 1.42 writes it, also of what it only watches."""
NMCLI = """#!/bin/sh
# As nmcli 1.42 speaks, of a NetworkManager whose states are in {states}.
case "$*" in
  "-t -f DEVICE,STATE device") [ -e {states} ] || {{ echo "Error: NetworkManager is not running."; exit 8; }}; cat {states};;
  "device set weave managed no") sed -i s/^weave:.*/weave:unmanaged/ {states};;
  *) echo "unexpected: $*" >&2; exit 9;;
esac
"""  # noqa: E501


FIRST = managers.FIRST


class NetworkManager:
    def __init__(self, patient: Patient, directory: Path) -> None:
        self.states = patient.directory / "states"
        self.command = patient.programs / "nmcli"
        self.command.write_text(NMCLI.format(states=self.states))
        self.command.chmod(0o755)
        for device in ("weave", "tunrouter0"):
            index = patient.lab.inside(lambda device=device: int(_index(device)))  # type: ignore[misc]
            (directory / str(index)).write_text(STATE)

    def says(self, state: str) -> None:
        self.states.write_text(f"lo:connected (externally)\nweave:{state}\ntunrouter0:unmanaged\n")


def _index(device: str) -> str:
    """Of the namespace that the thread is in, where /sys shows another."""
    return run("ip", "-o", "link", "show", device).partition(":")[0]


@pytest.fixture
def networkmanager(healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetworkManager]:
    monkeypatch.setattr(edge, "NM_DEVICES", tmp_path)
    monkeypatch.setattr(managers, "FIRST", (Path("/proc/thread-self/ns/net"),))
    monkeypatch.setenv("PATH", f"{healthy.programs}:{os.environ['PATH']}")
    found = NetworkManager(healthy, tmp_path)
    yield found
    found.command.unlink(missing_ok=True)
    found.states.unlink(missing_ok=True)


@pytest.mark.parametrize("state", ["connected", "disconnected", "connecting (getting IP configuration)"])
def test_networkmanager_is_named_and_told_to_leave_our_bridge(
    healthy: Patient, networkmanager: NetworkManager, state: str
) -> None:
    networkmanager.says(state)
    (found,) = healthy.finds("managers", f"NetworkManager sets up weave ({state})")
    assert found.level == "fail"
    assert "unmanaged-devices=interface-name:weave" in found.fix
    healthy.obey([found])
    assert healthy.ailments() == []


def test_one_that_only_watches_or_does_not_run_is_not_in_the_way(
    healthy: Patient, networkmanager: NetworkManager
) -> None:
    networkmanager.says("connected (externally)")
    assert healthy.ailments() == []
    networkmanager.states.unlink()
    assert healthy.ailments() == [], "what it left under /run means nothing"


def test_where_it_cannot_be_asked_that_is_said(healthy: Patient, networkmanager: NetworkManager) -> None:
    networkmanager.command.unlink()
    found = healthy.finds("managers", "may set up weave", "may set up tunrouter0")
    assert [f.level for f in found] == ["warn", "warn"]


def test_in_another_namespace_nothing_of_it_is_about_us(
    healthy: Patient, networkmanager: NetworkManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    networkmanager.says("connected")
    monkeypatch.setattr(managers, "FIRST", FIRST)
    assert healthy.ailments() == []


# --- the real systemd-networkd, in the namespace of the first process -------------------------------------------------
MACHINE = """
mount --make-rprivate /
for at in /run /etc/systemd/network; do mount -t tmpfs none $at; done
mount -t sysfs -o ro none /sys
mkdir -p /run/dbus /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network /run/systemd/netif
ip link set lo up
ip link add weave type bridge
ip link set weave up
printf '[Match]\\nName=*\\n[Network]\\nDHCP=yes\\n' > /etc/systemd/network/99-any.network
dbus-daemon --system --fork --nopidfile
exec /lib/systemd/systemd-networkd
"""
"""With /sys read only it does not wait for udev."""


class Machine:
    """Namespaces of its own, whose first process is their parent."""

    def __init__(self) -> None:
        unshared = ("unshare", "-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", MACHINE)
        self._outside = subprocess.Popen(unshared, stderr=subprocess.DEVNULL)
        self._children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children")
        wait_until(lambda: bool(self._children.read_text()))
        self._pid = self._children.read_text().strip()

    def run(self, *command: str) -> str:
        return run("nsenter", "-t", self._pid, "-m", "-n", "-p", *command, check=False)

    def close(self) -> None:
        self._outside.kill()
        self._outside.wait()


@pytest.fixture
def machine() -> Iterator[Machine]:
    found = Machine()
    try:
        yield found
    finally:
        found.close()


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """The schema of `-o json`."""

    schema: int
    agent: bool
    findings: list[Finding]


def examined(machine: Machine, tmp_path: Path) -> Callable[[], Said]:
    doctor = ("env", f"TUNROUTER_RUN_DIR={tmp_path}", sys.executable, "-m", "tunrouter.cli", "doctor", "-o", "json")
    return lambda: msgspec.json.decode(machine.run(*doctor), type=Said)


def test_networkd_is_named_and_told_to_leave_our_bridge(machine: Machine, tmp_path: Path) -> None:
    wait_until(lambda: "configuring" in machine.run("networkctl", "--no-pager", "list", "weave"), 10)
    look = examined(machine, tmp_path)
    said = look()
    assert (said.schema, said.agent) == (1, False)
    assert list(dict.fromkeys(finding.check for finding in said.findings)) == list(CHECKS)
    (found,) = (finding for finding in said.findings if finding.check == "managers")
    assert found.level == "fail"
    assert "systemd-networkd sets up weave (configuring by /etc/systemd/network/99-any.network)" in found.text
    for done in commands(found.fix):
        machine.run("sh", "-ec", done)
    wait_until(lambda: "unmanaged" in machine.run("networkctl", "--no-pager", "list", "weave"), 10)
    assert [finding.level for finding in look().findings if finding.check == "managers"] == ["ok"]
