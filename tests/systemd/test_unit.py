"""The files of the service: what systemd says of them, and that they mean what the program means."""

from __future__ import annotations

import re
import subprocess
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tunrouter.config import Config
from tunrouter.edge.api.server import GROUP
from tunrouter.host.ruleset import PORT_PREFIX

ROOT = Path(__file__).parents[2]
FILES = ROOT / "systemd"
MOST = 3.5
"""Of `systemd-analyze security`: 0 is safe, 10 is not."""
DEVICES = (Config(name="a").bridge, Config(name="a").tun, f"{PORT_PREFIX}0123456")


def analyze(*argv: str, unit: Path) -> subprocess.CompletedProcess[str]:
    argv = ("systemd-analyze", argv[0], "--no-pager", *argv[1:], str(unit))
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that every host has."""
    copy = tmp_path / "tunrouter.service"
    copy.write_text((FILES / "tunrouter.service").read_text().replace("/opt/tunrouter/bin/tunrouter", "/bin/true"))
    return copy


def test_systemd_knows_every_key(unit: Path) -> None:
    done = analyze("verify", unit=unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSek="))
    assert "WatchdogSek" in analyze("verify", unit=unit).stderr, "it would say so"


def test_the_service_is_exposed_little(unit: Path) -> None:
    said = analyze("security", "--offline=true", unit=unit).stdout
    score = re.search(r"exposure level for tunrouter.service: ([0-9.]+)", said)
    assert score is not None
    assert float(score[1]) <= MOST


def test_a_reload_reads_the_file_that_the_credential_is_copied_from() -> None:
    text = (FILES / "tunrouter.service").read_text()
    taken = re.findall(r"^LoadCredential=password:(.+)$", text, re.MULTILINE)
    assert taken == re.findall(r"^Environment=TUNROUTER_CREDENTIAL_SOURCE=(.+)$", text, re.MULTILINE)
    assert f"z {taken[0]} 0600 root root -" in (FILES / "tunrouter.tmpfiles").read_text()


def test_the_directories_and_the_group_are_the_programs() -> None:
    text = (FILES / "tunrouter.service").read_text()
    config = Config(name="a")
    for key, directory in (("State", config.state_dir), ("Runtime", config.run_dir)):
        (name,) = re.findall(rf"^{key}Directory=(.+)$", text, re.MULTILINE)
        assert directory.endswith(f"/{name}")
    assert f"SupplementaryGroups={GROUP}" in text
    assert f"g {GROUP} -" in (FILES / "tunrouter.sysusers").read_text()


@pytest.mark.parametrize("device", DEVICES)
def test_the_network_managers_of_hosts_leave_our_devices_alone(device: str) -> None:
    manager, networkd = ConfigParser(), ConfigParser()
    manager.read(FILES / "networkmanager.conf")
    unmanaged = manager["keyfile"]["unmanaged-devices+"].split(";")
    assert any(fnmatch(device, each.removeprefix("interface-name:")) for each in unmanaged)
    networkd.read(FILES / "networkd.network")
    assert any(fnmatch(device, each) for each in networkd["Match"]["Name"].split())
    assert networkd["Link"]["Unmanaged"] == "yes"


def test_everything_that_is_installed_is_there() -> None:
    script = FILES / "install"
    subprocess.run(["bash", "-n", script], check=True)
    listed = re.findall(r'^    "(\S+) \$?\S+"$', script.read_text(), re.MULTILINE)
    assert len(listed) == 10
    assert [name for name in listed if not (ROOT / name).is_file()] == []
