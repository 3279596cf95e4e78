"""What is in the image, and what is not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import pytest

from tests.image.archive import NAME, Archive
from tests.image.conftest import BUILD_SECONDS, ROOT
from tunrouter import __version__

pytestmark = [pytest.mark.root, pytest.mark.timeout(BUILD_SECONDS)]

LARGEST = 150_000_000
SITE = "opt/tunrouter/lib/python3.11/site-packages"
PLUGINS = ("opt/tunrouter/cni/portmap", "opt/tunrouter/cni/bandwidth", "opt/tunrouter/cni/loopback",
           f"{SITE}/tunrouter/edge/tunrouter-cni")  # fmt: skip
COLOURS = re.compile(r"/pygments/(lexers|styles|formatters)/")
SBOM = "usr/share/tunrouter/sbom.spdx.json"


def test_whoever_loads_it_finds_it_under_the_manifests_name(archive: Archive) -> None:
    names = archive.described["annotations"]
    assert names["io.containerd.image.name"] == names["org.opencontainers.image.ref.name"] == NAME


def test_labels_tell_what_it_is(archive: Archive) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in archive.config["config"]["Labels"].items()
    }
    assert labels["title"] == "tunrouter"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"] == "docker.io/library/debian:bookworm-slim"
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])
    assert labels["description"]


def test_it_is_small(root: Path) -> None:
    assert sum(path.lstat().st_size for path in _files(root)) <= LARGEST


def test_the_bill_of_materials_lists_every_package_and_every_wheel(root: Path) -> None:
    bill = json.loads((root / SBOM).read_text())
    assert bill["spdxVersion"] == "SPDX-2.3"
    listed = {(each["name"], each["versionInfo"]) for each in bill["packages"]}
    missing = {*_debian(root), *_wheels(root)} - listed
    assert missing == set()
    assert ("tunrouter", __version__) in listed
    assert "golang-github-containernetworking-plugins" in {name for name, _ in listed}
    assert len({each["SPDXID"] for each in bill["packages"]}) == len(bill["packages"])
    assert (ROOT / "build" / "tunrouter-image.spdx.json").read_bytes() == (root / SBOM).read_bytes()


def test_nothing_of_the_machine_that_built_it_is_inside(root: Path) -> None:
    for name in ("etc/resolv.conf", "etc/hosts", "etc/hostname"):
        assert (root / name).read_bytes() == b"", name
    for name in ("build", "etc/apt", "etc/pip.conf", "root/.cache", "root/.config", "root/.pip"):
        assert not (root / name).exists(), name
    assert list((root / "tmp").iterdir()) == list((root / "run").iterdir()) == []
    words = re.compile(b"|".join(re.escape(word) for word in (b"/run/host", b"deb.debian.org", bytes(ROOT))))
    found = {path.relative_to(root) for path in _files(root) if words.search(path.read_bytes())}
    # What the program itself says of Debian's mirror.
    assert {path for path in found if "packages" not in path.name or SITE not in str(path)} == set()


def test_no_tool_of_a_build_is_inside(root: Path) -> None:
    places = (root / "usr/bin", root / "usr/sbin", root / "opt/tunrouter/bin")
    programs = {path.name for place in places for path in place.iterdir()}
    assert programs & {"apt", "apt-get", "cc", "gcc", "git", "go", "ld", "make", "perl", "pip", "pip3"} == set()
    assert {"nft", "iptables-nft", "iptables-legacy", "ip6tables-legacy-restore", "sh", "python3"} <= programs
    assert not (root / SITE / "pip").exists()
    assert not (root / SITE / "matplotlib").exists()


def test_nothing_makes_a_user_root(root: Path) -> None:
    assert [path for path in _files(root) if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)] == []


def test_modules_are_compiled_for_a_root_that_cannot_be_written(root: Path) -> None:
    sources = [path for place in (SITE, "usr/lib/python3.11") for path in (root / place).rglob("*.py")]
    assert len(sources) > 500
    for source in sources:
        if not COLOURS.search(str(source)):
            code = Path(importlib.util.cache_from_source(str(source))).with_suffix("").with_suffix(".cpython-311.pyc")
            header = code.read_bytes()[:16]
            # PEP 552: by content, and not compared with it at every start.
            assert int.from_bytes(header[4:8], "little") == 1, source
            assert header[8:] == importlib.util.source_hash(source.read_bytes()), source


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_run_on_hosts_without_any_library(root: Path, tmp_path: Path, plugin: str) -> None:
    program = tmp_path / "plugin"
    program.write_bytes((root / plugin).read_bytes())
    program.chmod(0o755)
    done = subprocess.run(
        ["/plugin"], input='{"cniVersion":"1.0.0"}', preexec_fn=lambda: os.chroot(tmp_path), cwd="/",
        env={"CNI_COMMAND": "VERSION"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "1.0.0" in json.loads(done.stdout)["supportedVersions"]


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _debian(root: Path) -> Iterator[tuple[str, str]]:
    for paragraph in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = message_from_string(paragraph.strip())
        if fields["Status"] == "install ok installed":
            yield fields["Package"], fields["Version"]


def _wheels(root: Path) -> Iterator[tuple[str, str]]:
    for path in (root / SITE).glob("*.dist-info/METADATA"):
        fields = message_from_string(path.read_text())
        yield fields["Name"], fields["Version"]
