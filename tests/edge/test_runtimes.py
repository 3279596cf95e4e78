"""The plugin and its network among others' in the directories of container runtimes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.rendered import container
from tunrouter.cni.request import VERSIONS
from tunrouter.edge import runtimes
from tunrouter.edge.runtimes import LIST, PLUGIN, Directories, Installed
from tunrouter.errors import HostError

KEYS = {"socket": "/run/x.sock", "notes": "/var/x"}


@pytest.fixture
def where(tmp_path: Path) -> Directories:
    return Directories(tmp_path / "bin", tmp_path / "net.d")


def plugin(where: Directories, name: str, *versions: str) -> None:
    where.binaries.mkdir(exist_ok=True)
    path = where.binaries / name
    path.write_text(
        "#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && echo '" + json.dumps({"supportedVersions": versions}) + "'\n"
    )
    path.chmod(0o755)


def install(where: Directories, *, exclusive: bool = False) -> Installed:
    return runtimes.install(where, "pods", KEYS, VERSIONS, exclusive=exclusive)


def written(where: Directories) -> dict[str, Any]:
    found = json.loads(where.conflist.read_text())
    assert isinstance(found, dict)
    return found


def test_alone_it_speaks_its_newest_version(where: Directories) -> None:
    assert install(where).version == "1.1.0"
    assert written(where) == {
        "cniVersion": "1.1.0",
        "name": "pods",
        "plugins": [{"type": PLUGIN, "capabilities": {"ips": True}, **KEYS}],
    }
    assert where.plugin.stat().st_mode & 0o777 == 0o755
    assert runtimes.versions(where.plugin) == VERSIONS, "it runs"


@pytest.fixture
def came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The plugins that came with this program, compiled and in Python, in places of their own."""
    places = [place for place in runtimes._places() if (place / PLUGIN).exists()]
    copies = [tmp_path / name for name in ("compiled", "python")]
    for place, copy in zip(places, copies, strict=True):
        copy.mkdir()
        shutil.copy(place / PLUGIN, copy)
    monkeypatch.setattr(runtimes, "_places", lambda: iter([tmp_path / "nowhere", *copies]))
    return [copy / PLUGIN for copy in copies]


def test_the_compiled_plugin_is_installed_as_it_is(where: Directories, came: list[Path]) -> None:
    assert install(where).compiled
    assert where.plugin.read_bytes() == came[0].read_bytes()
    assert where.plugin.read_bytes().startswith(b"\x7fELF")
    assert where.plugin.stat().st_mode & 0o777 == 0o755


def test_without_a_compiled_plugin_the_one_in_python_is_run_by_our_interpreter(
    where: Directories, came: list[Path]
) -> None:
    install(where)
    came[0].unlink()
    assert not install(where).compiled
    first, _, rest = where.plugin.read_text().partition("\n")
    original, _, expected = came[1].read_text().partition("\n")
    assert first == original.replace("/usr/bin/python3", os.path.realpath(sys.executable))
    assert rest == expected
    assert runtimes.versions(where.plugin) == VERSIONS, "it runs"


def test_a_package_without_any_plugin_says_so(where: Directories, came: list[Path]) -> None:
    for path in came:
        path.unlink()
    with pytest.raises(HostError, match="did not come with this program"):
        install(where)


def test_the_list_has_the_newest_version_that_every_plugin_in_it_speaks(where: Directories) -> None:
    plugin(where, "portmap", "0.1.0", "0.3.1", "0.4.0", "1.0.0")
    plugin(where, "bandwidth", "0.3.1", "0.4.0")
    plugin(where, "bridge", "0.1.0")
    assert install(where).chain == ("portmap", "bandwidth")
    assert written(where)["cniVersion"] == "0.4.0"
    assert [each["type"] for each in written(where)["plugins"]] == [PLUGIN, "portmap", "bandwidth"]


@pytest.mark.parametrize("versions", [("0.1.0",), ()])
def test_plugins_without_a_common_version_are_refused_before_anything_is_written(
    where: Directories, versions: tuple[str, ...]
) -> None:
    plugin(where, "portmap", *versions)
    with pytest.raises(HostError, match="no version in common"):
        install(where)
    assert not where.conflist.exists()
    assert not where.plugin.exists()


def test_a_plugin_that_says_nonsense_is_named(where: Directories) -> None:
    plugin(where, "portmap", "1.0.0")
    (where.binaries / "portmap").write_text("#!/bin/sh\necho no\n")
    with pytest.raises(HostError, match="portmap does not say which versions"):
        install(where)


def test_a_network_that_comes_first_is_named_and_with_leave_set_aside(where: Directories) -> None:
    where.configurations.mkdir()
    for name in ("00-first.conflist", "04-second.conf", "05-tunrouter.conf.bak", "10-later.conflist", "00-note.txt"):
        (where.configurations / name).write_text(name)
    assert where.hindrance() == "", "ours is not installed"
    install(where)
    assert "00-first.conflist comes before 05-tunrouter.conflist" in where.hindrance()
    assert [path.name for path in install(where, exclusive=True).aside] == [
        "00-first.conflist.by-tunrouter",
        "04-second.conf.by-tunrouter",
    ]
    assert where.hindrance() == ""
    assert (where.configurations / "10-later.conflist").exists()


def test_uninstalling_gives_back_what_was_there_and_may_be_repeated(where: Directories) -> None:
    where.configurations.mkdir()
    (where.configurations / "00-first.conflist").write_text("theirs")
    install(where, exclusive=True)
    assert {path.name for path in runtimes.uninstall(where)} == {LIST, PLUGIN, "00-first.conflist"}
    assert [path.name for path in where.configurations.iterdir()] == ["00-first.conflist"]
    assert (where.configurations / "00-first.conflist").read_text() == "theirs"
    assert list(where.binaries.iterdir()) == []
    assert runtimes.uninstall(where) == []


def test_where_nothing_can_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="file"):
        install(Directories(tmp_path / "file" / "bin", tmp_path))


def test_what_its_owner_has_written_anew_is_not_replaced(where: Directories) -> None:
    where.configurations.mkdir()
    (where.configurations / "00-first.conflist").write_text("old")
    install(where, exclusive=True)
    (where.configurations / "00-first.conflist").write_text("new")
    runtimes.uninstall(where)
    assert (where.configurations / "00-first.conflist").read_text() == "new"


def test_there_is_a_network_at_every_moment(where: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    where.configurations.mkdir()
    (where.configurations / "00-first.conflist").write_text("theirs")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "disk")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(HostError, match="No space left"):
            install(where, exclusive=True)
    assert [path.name for path in where.configurations.iterdir()] == ["00-first.conflist"]
    assert list(where.binaries.iterdir()) == []


# --- for an agent, which must not stop -------------------------------------------------------------------------------
@pytest.mark.parametrize("versions", [("0.1.0",), None])
def test_a_plugin_that_cannot_be_chained_is_left_out(where: Directories, versions: tuple[str, ...] | None) -> None:
    plugin(where, "bandwidth", "0.4.0", "1.0.0")
    plugin(where, "portmap", *(versions or ()))
    if versions is None:
        (where.binaries / "portmap").write_text("#!/bin/sh\nexit 1\n")
    done = runtimes.install(where, "pods", KEYS, VERSIONS, exclusive=False, lenient=True)
    assert (done.chain, done.version) == (("bandwidth",), "1.0.0")
    (why,) = done.left_out
    assert why.startswith("portmap is left out of the chain of CNI plugins: ")
    assert [each["type"] for each in written(where)["plugins"]] == [PLUGIN, "bandwidth"]


def test_what_somebody_took_away_is_named(where: Directories) -> None:
    install(where)
    assert where.missing() == ""
    edited = where.conflist.read_text().replace("pods", "mine")
    where.conflist.write_text(edited)
    assert where.missing() == "", "who changed it meant to"
    where.conflist.write_text("{}")
    assert where.missing() == str(where.conflist)
    where.conflist.rename(where.conflist.with_suffix(".away"))
    assert where.missing() == str(where.conflist)
    install(where)
    where.plugin.unlink()
    assert where.missing() == str(where.plugin)


OURS = {"type": PLUGIN}
THEIRS = {"type": "flannel"}


@pytest.mark.parametrize(
    ("text", "wins"),
    [
        ({"type": "multus"}, False),
        ({"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/05-tunrouter.conflist"}, False),
        ({"plugins": [{"type": "multus", "delegates": [{"name": "weave", "plugins": [OURS]}]}]}, False),
        ({"type": "multus", "delegates": [THEIRS]}, True),
        ({"plugins": [THEIRS]}, True),
        ({"plugins": ["multus"]}, True),
        (["multus"], True),
        ("no JSON", True),
    ],
)
def test_who_delegates_to_us_is_not_in_the_way(where: Directories, text: object, wins: bool) -> None:
    install(where)
    first = where.configurations / "00-multus.conf"
    first.write_text(text if isinstance(text, str) else json.dumps(text))
    assert bool(where.hindrance()) == wins
    assert bool(install(where, exclusive=True).aside) == wins


INSTALL = """
import sys
from pathlib import Path
from tunrouter.edge import runtimes
from tunrouter.errors import HostError
where = runtimes.Directories(Path(sys.argv[1]), Path(sys.argv[2]))
try:
    runtimes.install(where, "pods", {}, ("1.1.0",), exclusive=False)
except HostError as error:
    sys.exit(str(error))
"""


@pytest.mark.root
def test_in_somebody_elses_directory_root_needs_a_capability(where: Directories) -> None:
    """With those of the manifest it installs; without that one it says what helps, and that helps."""
    for path in where:
        path.mkdir()
        os.chown(path, 65534, 65534)
        path.chmod(0o755)
    has = container("weave")["securityContext"]["capabilities"]["add"]

    def installed(*without: str) -> str:
        left = ",".join(f"+{name.lower()}" for name in has if name not in without)
        rights = ("setpriv", "--inh-caps=-all", f"--bounding-set=-all,{left}")
        command = [*rights, sys.executable, "-c", INSTALL, *map(str, where)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stderr.strip()

    refused = installed("DAC_OVERRIDE")
    fix = f"chown root {where.binaries}, or give the container DAC_OVERRIDE"
    assert "Permission denied" in refused
    assert refused.endswith(f"; {fix}")
    assert installed() == ""
    for path in where:
        os.chown(path, 0, 0)
    assert installed("DAC_OVERRIDE") == ""
