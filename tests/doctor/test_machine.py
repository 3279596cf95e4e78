"""The machine itself: its kernel, its tools and its clock."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.doctor.patients import Patient
from tests.host.lab import run
from tunrouter.doctor import kernel

pytestmark = pytest.mark.root

TRYING = """#!/bin/sh
# A kernel without the fib expression, as the real one would say it.
case "$*" in *--check*) cat > /dev/null
echo "/dev/stdin:9:5-9: Error: Could not process rule: No such file or directory" >&2; exit 1;; esac
exec {nft} "$@"
"""


@pytest.mark.parametrize(
    ("release", "level", "words"),
    [
        ("3.10.0-1160.el7.x86_64", "fail", "3.10.0-1160.el7.x86_64 is too old"),
        ("4.17.19", "fail", "is too old"),
        ("4.19.0-27-amd64", "warn", "receives each datagram by itself"),
    ],
)
def test_an_old_kernel_is_named(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch, release: str, level: str, words: str
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    (found,) = healthy.finds("kernel", words)
    assert found.level == level


@pytest.mark.parametrize("release", ["5.0.0", "6.1.0-44-amd64", "6.18-rc1"])
def test_a_kernel_that_will_do_is_not(healthy: Patient, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert healthy.ailments() == []


def test_a_kernel_that_refuses_our_rules_is_named_with_its_words(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft = tmp_path / "nft"
    nft.write_text(TRYING.format(nft=run("sh", "-c", "command -v nft").strip()))
    nft.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        (found,) = healthy.finds("kernel", "nf_tables refuses our rules", "No such file or directory")
    assert found.fix.startswith("modprobe nf_tables")
    assert healthy.ailments() == []


@pytest.mark.parametrize("device", [None, (10, 250)])
def test_a_tun_driver_that_is_not_there_is_named(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: tuple[int, int] | None
) -> None:
    """No device, or one that no driver answers."""
    path = tmp_path / "tun"
    if device:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(*device))
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "TUN_DEVICE", path)
        (found,) = healthy.finds("kernel", f"{path} cannot be used: No such ")
    assert found.fix.startswith("modprobe tun")
    assert healthy.ailments() == []


def test_a_missing_tool_is_named_and_what_cannot_be_checked_without_it_says_so(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        found = healthy.ailments()
    assert {f.check for f in found if f.level == "fail"} == {"tools"}
    unseen = [f for f in found if f.level == "warn"]
    assert {f.check for f in unseen} == {"firewall", "leftovers"}
    assert all("nft is not installed" in f.text for f in unseen)
    assert healthy.ailments() == []


@pytest.mark.parametrize("now", [0.0, 86_400.0, time.time() + 3e9], ids=["1970", "a day later", "in a century"])
def test_a_clock_that_is_far_off_is_named(healthy: Patient, now: float) -> None:
    (found,) = healthy.ailments(now)
    assert (found.check, found.level) == ("clock", "fail")
    assert "timedatectl set-ntp true" in found.fix
    healthy.last = []


def test_a_clock_that_nobody_keeps_right_is_named(healthy: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    for synchronised, level in ((False, "warn"), (True, "ok")):
        monkeypatch.setattr("tunrouter.doctor.clock.synchronised", lambda synchronised=synchronised: synchronised)
        assert [f.level for f in healthy.findings() if f.check == "clock"] == [level]
